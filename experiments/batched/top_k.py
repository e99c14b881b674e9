"""Rows of several KV heads that keep their most probable keys: the error of every window.

Shape letters: G groups (KV heads), M rows of all of them, N keys, V value dimension, W windows, B bags of keys.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from experiments.batched.running_sums import running_sums
from experiments.reference.exact import ExactRows

BAG = 1024  # keys at most that float32 adds up before float64 takes over


def measure_top_k(exact: ExactRows, value_GNV: Tensor, k_MW: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Measure rows that keep their `k_MW` most probable keys, for every window at once.

    Returns
    -------
    tuple
        What differs among the measures of `experiments.reference.subset.measure_subset`, each [M, W], and the squared
        norm of the exact output [M].
    """
    p_MN, keys = exact.probability_RN, exact.probability_RN.shape[1]
    kept_MW = _at(running_sums(p_MN), k_MW - 1)
    dropped_MW = _at(exact.smallest_RN, keys - 1 - k_MW)
    square_MN = p_MN.square()
    kept_square_MW = _at(running_sums(square_MN), k_MW - 1)
    dropped_square_MW = _at(running_sums(square_MN, from_end=True), k_MW)
    del square_MN
    kept_largest_MW, dropped_largest_MW = p_MN[:, :1].expand_as(kept_MW), _at(p_MN, k_MW)
    if exact.learned_sink_R is not None:
        sink_M1 = exact.learned_sink_R[:, None]
        kept_MW, kept_square_MW = kept_MW + sink_M1, kept_square_MW + sink_M1.square()
        kept_largest_MW = kept_largest_MW.maximum(sink_M1)
    odds_MW = dropped_MW / kept_MW
    kept_output_MVW, dropped_output_MVW, output_MV = _outputs(exact, value_GNV, k_MW)
    measures = {
        "dropped_mass": dropped_MW,
        "kl": torch.where(dropped_MW < 0.5, -torch.log1p(-dropped_MW), -kept_MW.log()),
        "linf_truncated": dropped_largest_MW,
        "linf_renormalised": torch.maximum(dropped_largest_MW, kept_largest_MW * odds_MW),
        "l2_truncated": dropped_square_MW.sqrt(),
        "l2_renormalised": (dropped_square_MW + odds_MW.square() * kept_square_MW).sqrt(),
        "output_truncated": dropped_output_MVW.square().sum(1),
        "output_renormalised": (dropped_output_MVW - odds_MW[:, None] * kept_output_MVW).square().sum(1),
    }
    return measures, output_MV.square().sum(-1)


def _at(value_MN: Tensor, index_MW: Tensor) -> Tensor:
    """Return the values at these indices [M, W]; 0 where there is no such index."""
    last = value_MN.shape[1] - 1
    value_MW = value_MN.gather(1, index_MW.clamp(0, last))
    return value_MW.masked_fill_((index_MW < 0) | (index_MW > last), 0.0)


def _outputs(exact: ExactRows, value_GNV: Tensor, k_MW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of p_j v_j over kept and over dropped keys [M, V, W], and over all [M, V], in float64.

    The ranked row is cut into bags of keys at the end of every window, and at least every `BAG` keys. A bag is summed
    in float32 over weights relative to its largest, one key after the other; running sums over bags do the rest.
    """
    p_MN = exact.probability_RN
    (rows, keys), groups, device = p_MN.shape, len(value_GNV), p_MN.device
    grid_MB = torch.arange(0, keys, BAG, device=device).expand(rows, -1)
    start_MB = torch.cat([grid_MB, k_MW], dim=1).sort(dim=-1).values
    stop_MB = torch.cat([start_MB[:, 1:], start_MB.new_full((rows, 1), keys)], dim=1)
    largest_MB = _at(p_MN, start_MB)
    count_X = (stop_MB - start_MB).flatten()
    largest_X = largest_MB.flatten().repeat_interleave(count_X, output_size=rows * keys)
    weight_X = (p_MN.flatten() / largest_X).nan_to_num_(nan=0.0).float()  # 0 / 0 in a bag of invisible keys
    del largest_X
    row_M1 = torch.arange(rows, device=device)[:, None]
    sum_XV = embedding_bag(
        (exact.order_RN + row_M1 // (rows // groups) * keys).flatten(),
        value_GNV.float().flatten(0, 1),
        (start_MB + row_M1 * keys).flatten(),
        mode="sum",
        per_sample_weights=weight_X,
    )
    sum_MVB = (sum_XV.double().unflatten(0, start_MB.shape) * largest_MB[..., None]).mT
    first_MW = torch.searchsorted(start_MB, k_MW.contiguous())  # the first bag that a window drops
    before_MVB, from_MVB = running_sums(sum_MVB), running_sums(sum_MVB, from_end=True)

    def at(bag_MW: Tensor, sum_MVB: Tensor) -> Tensor:
        return sum_MVB.gather(2, bag_MW[:, None].expand(-1, sum_MVB.shape[1], -1))

    return at((first_MW - 1).clamp(min=0), before_MVB), at(first_MW, from_MVB), from_MVB[..., 0]
