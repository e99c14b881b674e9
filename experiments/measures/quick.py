"""The quick path: rows measured from a histogram of their weights, on a CPU, for selectors that keep the most probable.

The torch path (exact.py, sparse.py) runs anywhere, ranks keys in any order, and is the reference for this one.

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

from experiments.measures import kernels
from experiments.measures.exact import COUNT_EPSILONS, ETA_SLACK, K_MIN_ETAS

MEASURED = (
    *("dropped_mass", "tv", "kl", "linf_truncated", "linf_renormalised", "l2_truncated", "l2_renormalised"),
    *("output_truncated", "output_renormalised"),
)


def _mantissa_bits(keys: int) -> int:
    """Return how finely to bin rows of `keys` keys: few keys should share a bin, few bins should be empty."""
    return min(max(keys.bit_length() - 8, 2), 8)


@dataclass(frozen=True)
class QuickRows:
    """What `ExactRows` knows, without the order: the same names, the same meaning."""

    highest_R: Tensor
    weight_RN: np.ndarray
    bits_RN: np.ndarray
    bin_RN: np.ndarray
    count_RB: np.ndarray
    mass_RB: np.ndarray
    square_RB: np.ndarray
    moment_R6: np.ndarray
    _shift: int
    _lowest: int
    _k_min: dict[float, Tensor] = field(default_factory=dict)
    _counts: dict[float, Tensor] = field(default_factory=dict)

    @classmethod
    def from_logits(cls, logits_RN: Tensor) -> QuickRows:
        """Weigh and bin the rows of `logits_RN` (float32 on the CPU; -inf marks an invisible key)."""
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        rows, keys = logits_RN.shape
        mantissa_bits = _mantissa_bits(keys)
        bins = (kernels.OCTAVES << mantissa_bits) + 1
        highest_R1 = logits_RN.amax(-1, keepdim=True)
        weight_RN = (logits_RN - highest_R1).exp_().numpy()
        quick = cls(
            highest_R=highest_R1.squeeze(-1).double(),
            weight_RN=weight_RN,
            bits_RN=weight_RN.view(np.int32),
            bin_RN=np.empty((rows, keys), np.uint16),
            count_RB=np.empty((rows, bins), np.int32),
            mass_RB=np.empty((rows, bins)),
            square_RB=np.empty((rows, bins)),
            moment_R6=np.empty((rows, 6)),
            _shift=23 - mantissa_bits,  # a float32 has 23 bits of mantissa and an exponent of 127 at 1
            _lowest=(127 - kernels.OCTAVES) << mantissa_bits,
        )
        kernels.histogram(
            logits_RN.numpy(),
            weight_RN,
            quick.bits_RN,
            highest_R1.squeeze(-1).numpy(),
            quick._shift,
            quick._lowest,
            quick.bin_RN,
            quick.count_RB,
            quick.mass_RB,
            quick.square_RB,
            quick.moment_R6,
        )
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
            self.look_up([eta], [])
        return self._k_min[eta]

    def count_above(self, epsilon: float) -> Tensor:
        """Return #{j: p_j > epsilon} per row [R] int64."""
        if epsilon not in self._counts:
            self.look_up([], [epsilon])
        return self._counts[epsilon]

    def look_up(self, etas: Iterable[float], epsilons: Iterable[float]) -> None:
        """Find the smallest windows and the counts of many tolerances in one pass over the rows."""
        limits, thresholds = np.array(sorted(set(etas))), np.array(sorted(set(epsilons)))
        total_R = self._total_R
        k_RE = np.empty((len(total_R), len(limits)), np.int64)
        count_RT = np.empty((len(total_R), len(thresholds)), np.int64)
        smallest_RT = (total_R[:, None] * thresholds).astype(np.float32)
        bin_RT = np.clip((smallest_RT.view(np.int32) >> self._shift) - self._lowest, 0, self.count_RB.shape[1] - 1)
        kernels.resolve(
            self.weight_RN,
            self.bin_RN,
            self.count_RB,
            self.mass_RB,
            total_R,
            limits * (1 + ETA_SLACK),
            thresholds,
            bin_RT,
            k_RE,
            count_RT,
        )
        n_R = self.n_R
        self._k_min.update({eta: torch.from_numpy(k_RE[:, i]).minimum(n_R) for i, eta in enumerate(limits.tolist())})
        self._counts.update({eps: torch.from_numpy(count_RT[:, i]) for i, eps in enumerate(thresholds.tolist())})

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
            **{f"k_min_{eta}": self.k_min(eta) for eta in K_MIN_ETAS},
            **{f"count_{epsilon}": self.count_above(epsilon) for epsilon in COUNT_EPSILONS},
        }

    def measure(self, value_NV: Tensor, k_RW: Tensor) -> dict[str, Tensor]:
        """Measure the rows that keep their k most probable keys, for every window at once, as `sparse.measure` does."""
        rows, windows = k_RW.shape
        measure_RWM = np.empty((rows, windows, kernels.MEASURES))
        output_R = np.empty(rows)
        value_NV = pad(value_NV.float(), (0, -value_NV.shape[1] % kernels.LANES)).contiguous()
        kernels.sparse(
            self.weight_RN,
            self.bits_RN,
            self.bin_RN,
            self.count_RB,
            self.mass_RB,
            self.square_RB,
            self._total_R,
            value_NV.numpy(),
            k_RW.numpy(),
            (0,) * (value_NV.shape[1] // kernels.LANES),
            measure_RWM,
            output_R,
        )
        measured = torch.from_numpy(measure_RWM)
        return {name: measured[..., m] for m, name in enumerate(MEASURED)} | {"output": torch.from_numpy(output_R)}
