"""Rows of several KV heads that keep their most probable keys: the error of every window.

Shape letters: G groups (KV heads), M rows of all of them, N keys, V value dimension, W windows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.batched.window_sums import at_keys, window_sums
from experiments.reference.exact import ExactRows


def measure_top_k(
    exact: ExactRows, value_GNV: Tensor, k_MW: Tensor, *, triton: bool = False
) -> tuple[dict[str, Tensor], Tensor]:
    """Measure rows that keep their `k_MW` most probable keys, for every window at once.

    Parameters
    ----------
    triton
        Sum over windows by a Triton kernel instead of plain torch.

    Returns
    -------
    tuple
        What differs among the measures of `experiments.reference.subset.measure_subset`, each [M, W], and the squared
        norm of the exact output [M].
    """
    if triton:
        from experiments.batched import triton_sums

        sums = triton_sums.window_sums(exact, value_GNV, k_MW)
    else:
        sums = window_sums(exact, value_GNV, k_MW)
    p_MN = exact.probability_RN
    kept_MW, dropped_MW, kept_square_MW = sums.kept_MW, sums.dropped_MW, sums.kept_square_MW
    kept_largest_MW, dropped_largest_MW = p_MN[:, :1].expand_as(kept_MW), at_keys(p_MN, k_MW)
    if exact.learned_sink_R is not None:
        sink_M1 = exact.learned_sink_R[:, None]
        kept_MW, kept_square_MW = kept_MW + sink_M1, kept_square_MW + sink_M1.square()
        kept_largest_MW = kept_largest_MW.maximum(sink_M1)
    odds_MW = dropped_MW / kept_MW
    measures = {
        "dropped_mass": dropped_MW,
        "kl": torch.where(dropped_MW < 0.5, -torch.log1p(-dropped_MW), -kept_MW.log()),
        "linf_truncated": dropped_largest_MW,
        "linf_renormalised": torch.maximum(dropped_largest_MW, kept_largest_MW * odds_MW),
        "l2_truncated": sums.dropped_square_MW.sqrt(),
        "l2_renormalised": (sums.dropped_square_MW + odds_MW.square() * kept_square_MW).sqrt(),
        "output_truncated": sums.dropped_output_MVW.square().sum(1),
        "output_renormalised": (sums.dropped_output_MVW - odds_MW[:, None] * sums.kept_output_MVW).square().sum(1),
    }
    return measures, sums.output_MV.square().sum(-1)
