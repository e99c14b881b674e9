"""Where rows are computed: the one place that chooses between compiled kernels and plain torch.

Kernels (experiments/kernels/) take float32 on a CPU; everything else takes plain torch, which is their reference.

Shape letters: R rows, N keys, V value dimension.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from experiments.cache import softmax
from experiments.kernels import first_turns
from experiments.kernels import order as radix
from experiments.kernels import top_k as kernels
from experiments.kernels.quick_rows import QuickRows, measure_top_k
from experiments.kernels.scratch import Scratch
from experiments.reference import top_k
from experiments.reference.exact import ExactRows, count_relative
from experiments.rows import Rows
from experiments.windows import RowFacts, Sizes


class Compute:
    """What measures rows and attends to their top keys; it owns the memory that blocks of rows reuse."""

    def __init__(self, *, reference: bool = False) -> None:
        """Choose by the tensors, or plain torch alone."""
        self._reference = reference
        self._scratch = Scratch()

    def _quick(self, device: torch.device, dtype: torch.dtype) -> bool:
        return not self._reference and device.type == "cpu" and dtype == torch.float32

    def logits(self, rows: Rows) -> Tensor:
        """Return the logits of rows [R, N], good until the next ones are made."""
        dtype = torch.promote_types(rows.query_RD.dtype, torch.float32)
        quick = self._quick(rows.query_RD.device, dtype)
        return rows.logits(out=self._scratch.take("logits", len(rows), rows.num_keys) if quick else None)

    def product(self, query_RD: Tensor, key_ND: Tensor) -> Tensor:
        """Return the dot products of queries and keys [R, N], good until the next ones are made."""
        quick = self._quick(query_RD.device, query_RD.dtype)
        out = self._scratch.take("product", len(query_RD), len(key_ND)) if quick else None
        return torch.mm(query_RD, key_ND.T, out=out)

    def facts(
        self,
        logits_RN: Tensor,
        etas: Iterable[float] = (),
        epsilons: Iterable[float] = (),
        sink_R: Tensor | None = None,
    ) -> RowFacts:
        """Return what rules ask of the rows of logits.

        Parameters
        ----------
        etas, epsilons
            What `k_min` and `count_above` will be asked for.
        sink_R
            Logits of learned sinks; None for none.
        """
        if self._quick(logits_RN.device, logits_RN.dtype):
            return QuickRows.from_logits(logits_RN, self._scratch, etas, epsilons, sink_R)
        return ExactRows.from_logits(logits_RN, sink_R)

    def measure_top_k(
        self, logits_RN: Tensor, value_NV: Tensor, sizes: Sizes, sink_R: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
        """Measure rows of logits that keep their most probable keys, for every window at once.

        Returns
        -------
        tuple
            The statistics of the exact rows, each [R]; the keys kept [R, W]; the measures, each [R, W], and `output`
            [R]: see `experiments.reference.subset.measure_subset`.
        """
        if self._quick(logits_RN.device, logits_RN.dtype):
            if sizes.relative:
                sizes = sizes.with_relative(partial(count_relative, logits_RN, sink_R))
            return measure_top_k(logits_RN, value_NV, sizes, self._scratch, sink_R)
        exact = ExactRows.from_logits(logits_RN, sink_R)
        k_RW = sizes.of(exact)
        return exact.statistics(), k_RW, exact.measure_top_k(value_NV, k_RW)

    def top_k_output(self, logits_RN: Tensor, value_NV: Tensor, k_R: Tensor, sink_R: Tensor | None = None) -> Tensor:
        """Return the outputs [R, V] of rows that attend to their `k_R` most probable keys, renormalised."""
        if sink_R is not None:
            kept_RN = self.top_k_mask(logits_RN, k_R)
            return softmax(logits_RN.masked_fill(~kept_RN, -torch.inf), sink_R) @ value_NV.to(logits_RN.dtype)
        path = kernels if self._quick(logits_RN.device, logits_RN.dtype) else top_k
        return path.top_k_output(logits_RN, value_NV, k_R)

    def weights_above(self, logits_RN: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """Return how many keys are above a probability [R], and weights [R, N] that are 0 for all others.

        The weights are good until the next ones are made.
        """
        if self._quick(logits_RN.device, logits_RN.dtype):
            return kernels.weights_above(logits_RN, epsilon, self._scratch)
        return top_k.weights_above(logits_RN, epsilon)

    def top_k_mask(self, logits_RN: Tensor, k_R: Tensor) -> Tensor:
        """Return which keys are among the k most probable of their row [R, N]."""
        path = kernels if self._quick(logits_RN.device, logits_RN.dtype) else top_k
        return path.top_k_mask(logits_RN, k_R)

    def first_mask(self, turn_RN: Tensor, k_R: Tensor) -> Tensor:
        """Return which keys are the k of the lowest turns of their row [R, N]; of equal turns the first keys are."""
        if turn_RN.device.type == "cpu" and not self._reference:
            return first_turns.first_mask(turn_RN, k_R)
        return top_k.first_mask(turn_RN, k_R)

    def order(self, turn_RN: Tensor) -> Tensor:
        """Return the keys of each row by their turns [R, N], the lowest first; of equal turns the first keys are."""
        if turn_RN.device.type == "cpu" and not self._reference:
            return radix.order(turn_RN)
        return turn_RN.argsort(dim=-1, stable=True)
