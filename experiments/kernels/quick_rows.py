"""The quick path: rows ranked by bins of their weights, on a CPU, for selectors that keep the most probable.

`experiments.reference` runs anywhere, ranks keys in any order, and is the reference for this path.

Shape letters: R rows, N keys, V value dimension, W windows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from experiments.kernels import windows as kernels
from experiments.kernels.scratch import Scratch
from experiments.reference.exact import ETA_SLACK
from experiments.reference.subset import of_subset
from experiments.rows import check_rows
from experiments.tables.rows import EPSILONS, ETAS, k_min

MEASURED = (
    *("dropped_mass", "tv", "kl", "linf_truncated", "linf_renormalised", "l2_truncated", "l2_renormalised"),
    *("output_truncated", "output_renormalised"),
)


def _mantissa_bits(keys: int) -> int:
    """Return how finely to bin rows of `keys` keys: few keys should share a bin, few bins should be empty."""
    return min(max(keys.bit_length() - 7, 2), 7)


@dataclass(frozen=True)
class _Answers:
    """The smallest windows of some tolerances and the counts above some thresholds, for the kernels to fill in."""

    etas: list[float]
    epsilons: list[float]
    k_RE: np.ndarray
    above_RT: np.ndarray

    @classmethod
    def to(cls, etas: Iterable[float], epsilons: Iterable[float], rows: int) -> _Answers:
        etas, epsilons = sorted(set(etas)), sorted(set(epsilons))
        return cls(etas, epsilons, np.empty((rows, len(etas)), np.int64), np.empty((rows, len(epsilons)), np.int64))

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The last arguments of the kernels."""
        return np.array(self.etas) * (1 + ETA_SLACK), np.array(self.epsilons), self.k_RE, self.above_RT


@dataclass(frozen=True)
class QuickRows:
    """What `ExactRows` knows, from rows that are sorted no further than the questions ask: same names, same meaning."""

    highest_R: Tensor
    weight_RN: np.ndarray
    ranked_RN: np.ndarray
    start_RB: np.ndarray
    moment_R6: np.ndarray
    scratch: Scratch
    _shift: int
    _lowest: int
    _k_min: dict[float, Tensor] = field(default_factory=dict)
    _counts: dict[float, Tensor] = field(default_factory=dict)

    @classmethod
    def from_logits(
        cls,
        logits_RN: Tensor,
        scratch: Scratch,
        etas: Iterable[float] = ETAS,
        epsilons: Iterable[float] = EPSILONS,
    ) -> QuickRows:
        """Weigh and rank the rows of `logits_RN` (float32 on the CPU; -inf marks an invisible key).

        Rows live in `scratch`: they are good until the next ones are made there.
        What is asked for now, `etas` for `k_min` and `epsilons` for `count_above`, is quicker than what is asked later.

        Raises
        ------
        UserError
            If a logit is NaN or infinite, or a row sees no key.
        """
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        rows, keys = logits_RN.shape
        mantissa_bits = _mantissa_bits(keys)
        highest_R1 = logits_RN.amax(-1, keepdim=True)
        check_rows(highest_R1)
        weight_RN = torch.sub(logits_RN, highest_R1, out=scratch.take("weight", rows, keys)).exp_().numpy()
        quick = cls(
            highest_R=highest_R1.squeeze(-1).double(),
            weight_RN=weight_RN,
            ranked_RN=scratch.take("ranked", rows, keys, dtype=torch.int64).numpy().view(np.uint64),
            start_RB=scratch.take("start", rows, (kernels.OCTAVES << mantissa_bits) + 2, dtype=torch.int32).numpy(),
            moment_R6=np.empty((rows, 6)),
            scratch=scratch,
            _shift=23 - mantissa_bits,  # a float32 has 23 bits of mantissa and an exponent of 127 at 1
            _lowest=(127 - kernels.OCTAVES) << mantissa_bits,
        )
        answers = _Answers.to(etas, epsilons, rows)
        kernels.rank(
            logits_RN.numpy(),
            highest_R1.squeeze(-1).numpy(),
            weight_RN,
            weight_RN.view(np.int32),
            quick._shift,
            quick._lowest,
            quick.start_RB,
            quick.ranked_RN,
            quick.moment_R6,
            *answers.arrays,
        )
        quick._remember(answers)
        return quick

    @property
    def n_R(self) -> Tensor:
        """Keys each row can see."""
        return torch.from_numpy(self.moment_R6[:, 0]).long()

    @property
    def _total_R(self) -> np.ndarray:
        return np.ascontiguousarray(self.moment_R6[:, 4])

    def k_min(self, eta: float) -> Tensor:
        """Return the smallest k >= 1 whose k most probable keys leave a dropped mass <= eta, per row [R] int64."""
        if eta not in self._k_min:
            self._look_up([eta], [])
        return self._k_min[eta]

    def count_above(self, epsilon: float) -> Tensor:
        """Return #{j: p_j > epsilon} per row [R] int64."""
        if epsilon not in self._counts:
            self._look_up([], [epsilon])
        return self._counts[epsilon]

    def _look_up(self, etas: list[float], epsilons: list[float]) -> None:
        answers = _Answers.to(etas, epsilons, len(self.weight_RN))
        kernels.resolve(self.ranked_RN, self.start_RB, self._shift, self._lowest, self._total_R, *answers.arrays)
        self._remember(answers)

    def _remember(self, answers: _Answers) -> None:
        n_R = self.n_R
        k_min = zip(answers.etas, torch.from_numpy(answers.k_RE).unbind(1), strict=True)
        self._k_min.update({eta: k_R.minimum(n_R) for eta, k_R in k_min})
        self._counts.update(zip(answers.epsilons, torch.from_numpy(answers.above_RT).unbind(1), strict=True))

    def statistics(self) -> dict[str, Tensor]:
        """Return the window-free columns of rows.parquet, each [R]."""
        n_R, first_R, second_R, product_R, total_R, square_R = torch.from_numpy(self.moment_R6).unbind(1)
        mean_R = first_R / n_R  # of logit - max
        log_total_R = total_R.log()
        return {
            "n": self.n_R,
            "logit_mean": self.highest_R + mean_R,
            "logit_std": (second_R / n_R - mean_R.square()).clamp(min=0).sqrt(),
            "logit_max": self.highest_R,
            "logsumexp": self.highest_R + log_total_R,
            "entropy": (log_total_R - product_R / total_R).clamp(min=0),
            "participation": total_R.square() / square_R,
            "p_max": 1 / total_R,
            "sink_mass": torch.from_numpy(self.weight_RN[:, 0].astype(np.float64)) / total_R,
            **{k_min(eta): self.k_min(eta) for eta in ETAS},
            **{f"count_{epsilon:g}": self.count_above(epsilon) for epsilon in EPSILONS},
        }

    def measure_top_k(self, value_NV: Tensor, k_RW: Tensor) -> dict[str, Tensor]:
        """Measure the rows that keep their k most probable keys, for every window at once, as `ExactRows` does."""
        rows, windows = k_RW.shape
        measure_RWM = np.empty((rows, windows, kernels.MEASURES))
        output_R = np.empty(rows)
        value_NV = value_NV.float().contiguous()
        if lacking := -value_NV.shape[1] % kernels.LANES:
            value_NV = pad(value_NV, (0, lacking))
        kernels.sparse(
            self.weight_RN,
            self.ranked_RN,
            self.start_RB,
            self.scratch.take("segment", *self.weight_RN.shape, dtype=torch.uint16).numpy(),
            self.scratch.take("sums", rows, windows + 1, value_NV.shape[1]).numpy(),
            self.scratch.take("outputs", rows, windows + 1, value_NV.shape[1], dtype=torch.float64).numpy(),
            self._shift,
            self._lowest,
            self._total_R,
            value_NV.numpy(),
            k_RW.numpy(),
            (0,) * (value_NV.shape[1] // kernels.LANES),
            measure_RWM,
            output_R,
        )
        measured = dict(zip(MEASURED, torch.from_numpy(measure_RWM).unbind(-1), strict=True))
        dropped_RW, kept_RW = measured["dropped_mass"], measured["kl"]
        measured["kl"] = torch.where(dropped_RW < 0.5, (-dropped_RW).log1p(), kept_RW.log()).neg_()
        measured["l2_truncated"].sqrt_()
        measured["l2_renormalised"].sqrt_()
        return of_subset(measured) | {"output": torch.from_numpy(output_R)}
