"""The quick path: rows ranked by bins of their weights, on a CPU, for methods that keep the most probable keys.

`experiments.reference` runs anywhere, ranks keys in any order, and is the reference for this path.

Shape letters: R rows, N keys, V value dimension, W windows, E tolerances, P thresholds, M measures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from experiments.kernels import windows as kernels
from experiments.kernels.add_run import AHEAD, LANES
from experiments.kernels.scratch import Scratch
from experiments.kernels.threads import use_threads
from experiments.reference.exact import ETA_SLACK, sink_weights
from experiments.reference.subset import of_subset
from experiments.rows import check_rows
from experiments.tables.rows import EPSILONS, ETAS, k_min
from experiments.windows import Sizes

MEASURED = (
    *("dropped_mass", "tv", "kl", "linf_truncated", "linf_renormalised", "l2_truncated", "l2_renormalised"),
    *("output_truncated", "output_renormalised"),
)
SERIAL = 1 << 15  # logits of a block that one thread works off before a second one is awake


@dataclass(frozen=True)
class _Block:
    """Rows as weights relative to their largest one, and what the kernels are to find out about them."""

    highest_R: Tensor
    learned_sink_R: Tensor
    weight_RN: Tensor
    moment_RM: np.ndarray
    etas: list[float]
    epsilons: list[float]
    k_RE: np.ndarray
    above_RP: np.ndarray

    @classmethod
    def of(
        cls,
        logits_RN: Tensor,
        learned_sink_R: Tensor | None,
        scratch: Scratch,
        etas: Iterable[float],
        epsilons: Iterable[float],
    ) -> _Block:
        rows, keys = logits_RN.shape
        highest_R1 = logits_RN.amax(-1, keepdim=True)
        check_rows(highest_R1)
        weight_RN = torch.sub(logits_RN, highest_R1, out=scratch.take("weight", rows, keys)).exp_()
        etas, epsilons = sorted(set(etas)), sorted(set(epsilons))
        k_RE, above_RP = (np.empty((rows, len(requested)), np.int64) for requested in (etas, epsilons))
        highest_R, moment_RM = highest_R1.squeeze(-1), np.empty((rows, kernels.MOMENTS))
        sink_R = highest_R.double() * 0 if learned_sink_R is None else sink_weights(learned_sink_R, highest_R)
        return cls(highest_R, sink_R, weight_RN, moment_RM, etas, epsilons, k_RE, above_RP)

    def arguments(self, logits_RN: Tensor, threads: int, scratch: Scratch) -> tuple[object, ...]:
        """Return the arguments that the kernels have in common."""
        keys = logits_RN.shape[1]
        mantissa_bits = min(max(keys.bit_length() - 7, 2), 7)  # few keys should share a bin, few bins be empty
        bins = (kernels.OCTAVES << mantissa_bits) + 1
        weight_RN = self.weight_RN.numpy()
        return (
            logits_RN.numpy(),
            self.highest_R.numpy(),
            self.learned_sink_R.numpy(),
            weight_RN,
            weight_RN.view(np.int32),
            23 - mantissa_bits,  # a float32 has 23 bits of mantissa and an exponent of 127 at 1
            (127 - kernels.OCTAVES) << mantissa_bits,
            np.array(self.etas) * (1 + ETA_SLACK),
            np.array(self.epsilons),
            scratch.take("start", threads, bins + 1, dtype=torch.int32).numpy(),
            scratch.take("next", threads, bins, dtype=torch.int32).numpy(),
            scratch.take("ranked", threads, keys + AHEAD, dtype=torch.int64).numpy().view(np.uint64),
            self.moment_RM,
            self.k_RE,
            self.above_RP,
        )


@dataclass(frozen=True)
class QuickRows:
    """What `ExactRows` knows of the rows themselves, from rows that are sorted no further than the questions ask."""

    highest_R: Tensor
    sink_R: Tensor
    learned_sink_R: Tensor
    moment_RM: Tensor
    _k_min: dict[float, Tensor]
    _counts: dict[float, Tensor]

    @classmethod
    def from_logits(
        cls,
        logits_RN: Tensor,
        scratch: Scratch,
        etas: Iterable[float] = ETAS,
        epsilons: Iterable[float] = EPSILONS,
        learned_sink_R: Tensor | None = None,
    ) -> QuickRows:
        """Return the facts of the rows of `logits_RN` (float32 on the CPU; -inf marks an invisible key).

        Parameters
        ----------
        etas, epsilons
            What `k_min` and `count_above` will be asked for.
        learned_sink_R
            As of `ExactRows.from_logits`.

        Raises
        ------
        UserError
            If a logit is NaN or infinite, or a row sees no key.
        """
        block, threads = _Block.of(logits_RN, learned_sink_R, scratch, etas, epsilons), use_threads(logits_RN, SERIAL)
        kernels.resolve(*block.arguments(logits_RN, threads, scratch))
        return cls._of(block)

    @classmethod
    def _of(cls, block: _Block) -> QuickRows:
        moment_RM = torch.from_numpy(block.moment_RM)
        n_R, total_R = moment_RM[:, 0].long(), moment_RM[:, 4]
        k_RE, above_RP = torch.from_numpy(block.k_RE).minimum(n_R[:, None]), torch.from_numpy(block.above_RP)
        return cls(
            highest_R=block.highest_R.double(),
            sink_R=block.weight_RN[:, 0].double() / total_R,
            learned_sink_R=block.learned_sink_R / total_R,
            moment_RM=moment_RM,
            _k_min=dict(zip(block.etas, k_RE.unbind(1), strict=True)),
            _counts=dict(zip(block.epsilons, above_RP.unbind(1), strict=True)),
        )

    @property
    def n_R(self) -> Tensor:
        """Keys each row can see."""
        return self.moment_RM[:, 0].long()

    def k_min(self, eta: float) -> Tensor:
        """Return the smallest k >= 1 whose k most probable keys leave a dropped mass <= eta, per row [R] int64."""
        return self._k_min[eta]

    def count_above(self, epsilon: float) -> Tensor:
        """Return #{j: p_j > epsilon} per row [R] int64."""
        return self._counts[epsilon]

    def statistics(self) -> dict[str, Tensor]:
        """Return the window-free columns of rows.parquet, each [R]."""
        n_R, first_R, second_R, product_R, total_R, square_R, spread_R, root_R = self.moment_RM.unbind(1)
        mean_R = first_R / n_R  # of logit - max
        log_total_R, likely_R = total_R.log(), product_R / total_R  # mean of logit - max under p
        return {
            "n": n_R.long(),
            "logit_mean": self.highest_R + mean_R,
            "logit_std": (second_R / n_R - mean_R.square()).clamp(min=0).sqrt(),
            "logit_max": self.highest_R,
            "logsumexp": self.highest_R + log_total_R,
            "entropy": (log_total_R - likely_R).clamp(min=0),
            "log_p_variance": (spread_R / total_R - likely_R.square()).clamp(min=0),
            "root_sum": root_R / total_R.sqrt(),
            "participation": total_R.square() / square_R,
            "p_max": 1 / total_R,
            "sink_mass": self.sink_R,
            "learned_sink_mass": self.learned_sink_R,
            **{k_min(eta): self._k_min[eta] for eta in ETAS},
            **{f"count_{epsilon:g}": self._counts[epsilon] for epsilon in EPSILONS},
        }


def measure_top_k(
    logits_RN: Tensor, value_NV: Tensor, sizes: Sizes, scratch: Scratch, learned_sink_R: Tensor | None = None
) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
    """Measure rows that keep their most probable keys, for every window at once.

    Parameters
    ----------
    logits_RN
        Float32 on the CPU; -inf marks an invisible key.
    sizes
        What the windows keep, as far as it is known before the rows are.
    learned_sink_R
        As of `ExactRows.from_logits`.

    Returns
    -------
    tuple
        What `ExactRows.statistics`, `Sizes.of` and `ExactRows.measure_top_k` return of the same rows.

    Raises
    ------
    UserError
        If a logit is NaN or infinite, or a row sees no key.
    """
    (rows, keys), (windows, width) = logits_RN.shape, (sizes.given_RW.shape[1], value_NV.shape[1])
    etas, epsilons = (*ETAS, *sizes.tolerances.values()), (*EPSILONS, *sizes.thresholds.values())
    block, threads = _Block.of(logits_RN, learned_sink_R, scratch, etas, epsilons), use_threads(logits_RN, SERIAL)
    source_W = np.full(windows, -1)
    source_W[list(sizes.tolerances)] = [block.etas.index(eta) for eta in sizes.tolerances.values()]
    source_W[list(sizes.thresholds)] = [len(block.etas) + block.epsilons.index(e) for e in sizes.thresholds.values()]
    value_NV = value_NV.float().contiguous()
    if lacking := -width % LANES:
        value_NV, width = pad(value_NV, (0, lacking)), width + lacking
    tile_bits, chunk, dealt = keys.bit_length(), 1, 0
    if value_NV.nbytes > kernels.LARGEST_VALUES:
        tile_bits = max(kernels.TILE_BYTES // (4 * width), 1).bit_length() - 1
        chunk, dealt = min(kernels.CHUNK, -(-rows // threads)), keys + AHEAD
    k_RW = torch.empty(rows, windows, dtype=torch.int64)
    measure_RWM = np.empty((rows, windows, kernels.MEASURES))
    output_R = np.empty(rows)
    kernels.measure(
        *block.arguments(logits_RN, threads, scratch),
        value_NV.numpy(),
        sizes.given_RW.numpy(),
        source_W,
        tile_bits,
        scratch.take("dealt", threads, chunk, dealt, dtype=torch.int64).numpy().view(np.uint64),
        scratch.take("runs", threads, chunk, dealt, dtype=torch.int64).numpy().view(np.uint64),
        scratch.take("sums", threads, chunk, windows + 1, width, dtype=torch.float64).numpy(),
        (0,) * (width // LANES),
        k_RW.numpy(),
        measure_RWM,
        output_R,
    )
    measured = dict(zip(MEASURED, torch.from_numpy(measure_RWM).unbind(-1), strict=True))
    dropped_RW, kept_RW = measured["dropped_mass"], measured["kl"]
    measured["kl"] = torch.where(dropped_RW < 0.5, (-dropped_RW).log1p(), kept_RW.log()).neg_()
    measured |= {name: measured[name].sqrt() for name in ("l2_truncated", "l2_renormalised")}
    return QuickRows._of(block).statistics(), k_RW, of_subset(measured) | {"output": torch.from_numpy(output_R)}
