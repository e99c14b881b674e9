"""Rows that keep a subset of keys: the error of every window from one pass over a ranked row.

The windows' k cut the ranked row into segments. Each segment's mass, sum of squares, largest entry and weighted sum of
values is taken once; running sums over segments, from the head for the kept part and from the tail for the dropped
part, then give every window. Nothing is computed as 1 - something near 1.

Shape letters: R rows, N keys, V value dimension, W windows, S = W + 1 segments.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

# Float32 adds up at most this many values before float64 takes over, so that a row of a million keys loses no digits.
BAG = 4096


def measure_subset(
    order_RN: Tensor,
    probability_RN: Tensor,
    value_NV: Tensor,
    k_RW: Tensor,
    learned_sink_R: Tensor | None = None,
) -> dict[str, Tensor]:
    """Measure the rows that keep the first k keys of a ranking, for every window at once.

    Parameters
    ----------
    order_RN
        Key indices in the order in which the selector keeps them.
    probability_RN
        Exact probabilities in that order, float64.
    value_NV
        Values in key order.
    k_RW
        Keys kept, 1 <= k <= n; windows in any order, repeats allowed.
    learned_sink_R
        Probability of a learned sink, an entry without a value that every window keeps; None for none.

    Returns
    -------
    dict
        Per row and window [R, W], float64: `dropped_mass`, `tv` [T1], `kl` in nats [T2], `linf_truncated`,
        `linf_renormalised` [T3], `l2_truncated`, `l2_renormalised` [T5], and the squared norms
        `output_truncated`, `output_renormalised` of the output errors [T6], and what `of_subset` adds; per row [R]:
        `output`, the squared norm of the exact output.
    """
    k_sorted_RW, sorting_RW = k_RW.sort(dim=-1)
    undo_RW = sorting_RW.argsort(dim=-1)
    segments = _Segments(k_sorted_RW, probability_RN.shape[1])

    mass_RS = segments.reduce(probability_RN, "sum")
    square_RS = segments.reduce(probability_RN.square(), "sum")
    largest_RS = segments.reduce(probability_RN, "max")
    output_RSV = segments.weighted_values(order_RN, probability_RN, largest_RS, value_NV)

    kept_RW, dropped_RW = _head(mass_RS), _tail(mass_RS)
    kept_square_RW, kept_largest_RW = _head(square_RS), largest_RS.cummax(-1).values[:, :-1]
    if learned_sink_R is not None:
        sink_R1 = learned_sink_R[:, None]
        kept_RW, kept_square_RW = kept_RW + sink_R1, kept_square_RW + sink_R1.square()
        kept_largest_RW = kept_largest_RW.maximum(sink_R1)
    odds_RW = dropped_RW / kept_RW
    dropped_largest_RW = largest_RS.flip(-1).cummax(-1).values.flip(-1)[:, 1:]
    dropped_square_RW = _tail(square_RS)
    kept_output_RWV = output_RSV.cumsum(1)[:, :-1]
    dropped_output_RWV = output_RSV.flip(1).cumsum(1).flip(1)[:, 1:]

    measures = {
        "dropped_mass": dropped_RW,
        "tv": dropped_RW,
        "kl": torch.where(dropped_RW < 0.5, -torch.log1p(-dropped_RW), -kept_RW.log()),
        "linf_truncated": dropped_largest_RW,
        "linf_renormalised": torch.maximum(dropped_largest_RW, kept_largest_RW * odds_RW),
        "l2_truncated": dropped_square_RW.sqrt(),
        "l2_renormalised": (dropped_square_RW + odds_RW.square() * kept_square_RW).sqrt(),
        "output_truncated": dropped_output_RWV.square().sum(-1),
        "output_renormalised": (dropped_output_RWV - odds_RW[..., None] * kept_output_RWV).square().sum(-1),
    }
    measures = {name: values_RW.gather(1, undo_RW) for name, values_RW in measures.items()}
    return of_subset(measures) | {"output": output_RSV.sum(1).square().sum(-1)}


def of_subset(measures: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add what estimates are measured by, and what it is for a subset [R, W].

    No entry is negative, no row fails, and ln sum w = ln(1 - tau) = -kl [T2].
    """
    zero_RW = torch.zeros_like(measures["kl"])
    return measures | {"negative_mass": zero_RW, "normaliser_error": measures["kl"], "failed": zero_RW}


def _head(values_RS: Tensor) -> Tensor:
    """Sum the segments that each window keeps."""
    return values_RS.cumsum(-1)[:, :-1]


def _tail(values_RS: Tensor) -> Tensor:
    """Sum the segments that each window drops, from the small end."""
    return values_RS.flip(-1).cumsum(-1).flip(-1)[:, 1:]


class _Segments:
    """The segments [0, k_1), [k_1, k_2), ..., [k_W, N) of every ranked row, as reductions over flat rows."""

    def __init__(self, k_sorted_RW: Tensor, keys: int) -> None:
        rows, windows = k_sorted_RW.shape
        self.shape = (rows, windows + 1)
        first_R1 = torch.arange(rows, device=k_sorted_RW.device)[:, None] * keys
        starts_RS = torch.cat([first_R1, first_R1 + k_sorted_RW], dim=1)
        self.offsets = torch.cat([starts_RS.flatten(), first_R1.new_tensor([rows * keys])])

    def reduce(self, values_RN: Tensor, how: str) -> Tensor:
        """Reduce each segment by `sum` or `max`; an empty segment gives 0."""
        return torch.segment_reduce(values_RN.flatten(), how, offsets=self.offsets, initial=0.0).view(self.shape)

    def weighted_values(self, order_RN: Tensor, probability_RN: Tensor, largest_RS: Tensor, value_NV: Tensor) -> Tensor:
        """Return sum of p_j v_j over each segment [R, S, V] in float64.

        The sums run in float32 over weights relative to the segment's largest, so that neither a segment of tiny
        probabilities underflows nor a float64 copy of the values is needed.
        """
        lengths = self.offsets.diff()
        entries = probability_RN.numel()
        # with its size given, nothing waits for a card to tell it
        relative = probability_RN.flatten() / largest_RS.flatten().repeat_interleave(lengths, output_size=entries)
        relative = relative.nan_to_num_(nan=0.0)  # 0 / 0 in a segment of invisible keys
        grid = torch.arange(0, entries, BAG, device=self.offsets.device)
        bags = torch.cat([self.offsets[:-1], grid]).sort().values  # where two begin at one place, the first is empty
        sums = embedding_bag(
            order_RN.flatten(),
            value_NV.float(),
            bags,
            mode="sum",
            per_sample_weights=relative.float(),
        ).double()
        segment_of_bag = (torch.searchsorted(self.offsets, bags, right=True) - 1).clamp_(max=lengths.numel() - 1)
        output = sums.new_zeros(lengths.numel(), value_NV.shape[1]).index_add_(0, segment_of_bag, sums)
        return (output * largest_RS.flatten()[:, None]).view(*self.shape, -1)
