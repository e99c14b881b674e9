"""The exact row: probabilities sorted once, and whatever follows from them without any window.

Shape letters: R rows, N keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.reference.subset import measure_subset
from experiments.rows import check_rows
from experiments.tables.rows import EPSILONS, ETAS, k_min

# A key this far below the row's largest logit, in nats, is measured as if it were exactly this far: e^-340 and its
# square are still float64 numbers, so that even a selector that keeps only such keys has a row to renormalise.
MAX_GAP = 340.0

FLOAT32_GAP = 80.0

# "At most eta" means <= eta (1 + 1e-6): a row whose dropped mass is eta up to rounding meets eta (theory.md section 1).
ETA_SLACK = 1e-6


@dataclass(frozen=True)
class ExactRows:
    """Exact softmax rows, ranked.

    Attributes
    ----------
    logits_RN
        Scaled, masked logits in key order.
    n_R
        Keys each row can see.
    logsumexp_R
        ln sum_j exp(logit_j), float64.
    order_RN
        Key indices by falling probability; ties go to the lower index, invisible keys come last.
    probability_RN
        Probabilities in that order, float64; 0 where a key is invisible.
    smallest_RN
        `smallest_RN[:, m - 1]` is the mass of the m least probable entries. Adding up from the small end keeps a
        dropped mass of 1e-6 as exact as one of 0.5.
    learned_sink_R
        Probability of a learned sink, which is no key and is kept by every window; None for none.
    """

    logits_RN: Tensor
    n_R: Tensor
    logsumexp_R: Tensor
    order_RN: Tensor
    probability_RN: Tensor
    smallest_RN: Tensor
    learned_sink_R: Tensor | None = None

    @classmethod
    def from_logits(cls, logits_RN: Tensor, learned_sink_R: Tensor | None = None) -> ExactRows:
        """Rank the rows of `logits_RN`, in which -inf marks an invisible key.

        Parameters
        ----------
        learned_sink_R
            Logit of a learned sink of each row; None for none.

        Raises
        ------
        UserError
            If a logit is NaN or infinite, or a row sees no key.
        """
        max_R1 = logits_RN.amax(-1, keepdim=True)
        check_rows(max_R1)
        gap_RN = logits_RN - max_R1
        # The quick path weighs and ranks keys in float32; the same weights give both the same k and the same ties. Far
        # below the largest logit float32 has no numbers left, and only keys kept by other selectors care.
        far_RN = gap_RN.double().clamp(min=-MAX_GAP).exp_()
        weight_RN = torch.where(gap_RN > -FLOAT32_GAP, gap_RN.exp().double(), far_RN)
        weight_RN.masked_fill_(torch.isneginf(logits_RN), 0.0)
        weight_RN, order_RN = torch.sort(weight_RN, dim=-1, descending=True, stable=True)
        smallest_RN = weight_RN.flip(-1).cumsum_(-1)
        normaliser_R1 = smallest_RN[:, -1:].clone()
        if learned_sink_R is not None:
            learned_sink_R = sink_weights(learned_sink_R, max_R1.squeeze(-1))
            normaliser_R1 += learned_sink_R[:, None]
            learned_sink_R = learned_sink_R / normaliser_R1.squeeze(-1)
        return cls(
            logits_RN=logits_RN,
            n_R=torch.isfinite(logits_RN).sum(-1),
            logsumexp_R=(max_R1.double() + normaliser_R1.log()).squeeze(-1),
            order_RN=order_RN,
            probability_RN=weight_RN.div_(normaliser_R1),
            smallest_RN=smallest_RN.div_(normaliser_R1),
            learned_sink_R=learned_sink_R,
        )

    def probabilities(self, order_RN: Tensor) -> Tensor:
        """Return the probabilities in another order of the keys, such as a method's."""
        return self.in_key_order().gather(1, order_RN)

    def in_key_order(self) -> Tensor:
        """Return the probabilities [R, N] in key order."""
        return torch.empty_like(self.probability_RN).scatter_(1, self.order_RN, self.probability_RN)

    def k_min(self, eta: float) -> Tensor:
        """Return the smallest k >= 1 whose k most probable keys leave a dropped mass <= eta, per row [R] int64."""
        bound_R1 = self.smallest_RN.new_full((len(self.n_R), 1), eta * (1 + ETA_SLACK))
        droppable_R = torch.searchsorted(self.smallest_RN, bound_R1, right=True).squeeze(-1)
        return (self.smallest_RN.shape[-1] - droppable_R).clamp(min=1).minimum(self.n_R)

    def count_above(self, epsilon: float) -> Tensor:
        """Return #{j: p_j > epsilon} per row [R] int64."""
        return (self.probability_RN > epsilon).sum(-1)

    def count_relative(self, factor: float, of_peak: bool) -> Tensor:
        """Return #{j: p_j > factor / n}, or with `of_peak` #{j: p_j / max p > factor / n}, per row [R] int64."""
        sink_R = None if self.learned_sink_R is None else self.learned_sink_R.log() + self.logsumexp_R
        return count_relative(self.logits_RN, sink_R, factor, of_peak)

    def statistics(self) -> dict[str, Tensor]:
        """Return the window-free columns of rows.parquet, each [R]; `logit_std` is the population deviation.

        [G8] describes keys that have all of the mass: beside a learned sink its sums are NaN.
        """
        visible_RN = torch.isfinite(self.logits_RN)
        logits_RN = self.logits_RN.double()
        mean_R = logits_RN.masked_fill(~visible_RN, 0.0).sum(-1) / self.n_R
        deviation_RN = (logits_RN - mean_R[:, None]).masked_fill_(~visible_RN, 0.0)
        entropy_R, square_R = torch.special.entr(self.probability_RN).sum(-1), self.probability_RN.square().sum(-1)
        sunk_R = torch.zeros_like(entropy_R) if self.learned_sink_R is None else self.learned_sink_R
        log_RN = self.probability_RN.clamp(min=torch.finfo(torch.float64).tiny).log_()
        variance_R = (self.probability_RN * (log_RN + entropy_R[:, None]).square_()).sum(-1)
        sink_R = torch.where(visible_RN[:, 0], (logits_RN[:, 0] - self.logsumexp_R).exp(), 0.0)
        return {
            "n": self.n_R,
            "logit_mean": mean_R,
            "logit_std": (deviation_RN.square_().sum(-1) / self.n_R).sqrt(),
            "logit_max": logits_RN.amax(-1),
            "logsumexp": self.logsumexp_R,
            "entropy": entropy_R + torch.special.entr(sunk_R),
            "log_p_variance": variance_R.where(sunk_R == 0, torch.nan),
            "root_sum": self.probability_RN.sqrt().sum(-1).where(sunk_R == 0, torch.nan),
            "participation": 1 / (square_R + sunk_R.square()),
            "p_max": self.probability_RN[:, 0],
            "sink_mass": sink_R,
            "learned_sink_mass": sunk_R,
            **{k_min(eta): self.k_min(eta) for eta in ETAS},
            **{f"count_{eps:g}": self.count_above(eps) for eps in EPSILONS},
        }

    def measure_top_k(self, value_NV: Tensor, k_RW: Tensor) -> dict[str, Tensor]:
        """Measure the rows that keep their k most probable keys, for every window at once."""
        return measure_subset(self.order_RN, self.probability_RN, value_NV, k_RW, self.learned_sink_R)


def count_relative(logits_RN: Tensor, learned_sink_R: Tensor | None, factor: float, of_peak: bool) -> Tensor:
    """Return how many keys of each row have a probability above factor / n [R] int64, told by their logits.

    Parameters
    ----------
    learned_sink_R
        Logit of a learned sink of each row; None for none.
    factor
        Of 1 / n, n the keys that the row sees.
    of_peak
        The probability is one relative to the row's largest.
    """
    level_R = (logits_RN.amax(-1) if of_peak else logits_RN.logsumexp(-1)).double()
    if learned_sink_R is not None and not of_peak:
        level_R = level_R.logaddexp(learned_sink_R.double())
    n_R = torch.isfinite(logits_RN).sum(-1)
    bound_R = level_R + math.log(factor) - n_R.double().log()
    return (logits_RN > bound_R.to(logits_RN.dtype)[:, None]).sum(-1)


def sink_weights(learned_sink_R: Tensor, highest_R: Tensor) -> Tensor:
    """Return the weights of learned sinks [R] relative to each row's most probable key, float64.

    Parameters
    ----------
    learned_sink_R
        Their logits.
    highest_R
        Largest logit of a key.
    """
    return (learned_sink_R.double() - highest_R.double()).clamp(max=MAX_GAP).exp_()
