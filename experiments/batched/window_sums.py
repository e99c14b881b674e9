"""What windows keep and drop of ranked rows, summed in plain torch.

Shape letters: G groups (KV heads), M rows of all of them, N keys, V value dimension, W windows, B bags of keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from experiments.batched.bags import Bags
from experiments.batched.running_sums import running_sums
from experiments.reference.exact import ExactRows


@dataclass(frozen=True)
class WindowSums:
    """Sums over the keys that windows keep and over those that they drop, float64.

    Attributes
    ----------
    kept_MW, dropped_MW
        Of probabilities.
    kept_square_MW, dropped_square_MW
        Of squared probabilities.
    kept_output_MVW, dropped_output_MVW
        Of values, weighted by probabilities.
    output_MV
        The same over all keys.
    """

    kept_MW: Tensor
    dropped_MW: Tensor
    kept_square_MW: Tensor
    dropped_square_MW: Tensor
    kept_output_MVW: Tensor
    dropped_output_MVW: Tensor
    output_MV: Tensor


def window_sums(exact: ExactRows, value_GNV: Tensor, k_MW: Tensor) -> WindowSums:
    """Return the sums of windows that keep the `k_MW` most probable keys of their row."""
    p_MN, keys = exact.probability_RN, exact.probability_RN.shape[1]
    bags = Bags.cut(keys, k_MW)
    kept_output_MVW, dropped_output_MVW, output_MV = bags.split(_outputs(exact, value_GNV, bags))
    square_MN = p_MN.square()
    return WindowSums(
        kept_MW=at_keys(running_sums(p_MN), k_MW - 1),
        dropped_MW=at_keys(exact.smallest_RN, keys - 1 - k_MW),
        kept_square_MW=at_keys(running_sums(square_MN), k_MW - 1),
        dropped_square_MW=at_keys(running_sums(square_MN, from_end=True), k_MW),
        kept_output_MVW=kept_output_MVW,
        dropped_output_MVW=dropped_output_MVW,
        output_MV=output_MV,
    )


def at_keys(value_MN: Tensor, index_MX: Tensor) -> Tensor:
    """Return the values at these indices [M, X]; 0 where there is no such index."""
    last = value_MN.shape[1] - 1
    value_MX = value_MN.gather(1, index_MX.clamp(0, last))
    return value_MX.masked_fill_((index_MX < 0) | (index_MX > last), 0.0)


def _outputs(exact: ExactRows, value_GNV: Tensor, bags: Bags) -> Tensor:
    """Return the weighted sums of the values of every bag [M, V, B].

    A bag is summed in float32 over weights relative to its largest, one key after the other.
    """
    p_MN = exact.probability_RN
    (rows, keys), groups = p_MN.shape, len(value_GNV)
    largest_MB = at_keys(p_MN, bags.start_MB)
    count_X = (bags.stop_MB - bags.start_MB).flatten()
    largest_X = largest_MB.flatten().repeat_interleave(count_X, output_size=rows * keys)
    weight_X = (p_MN.flatten() / largest_X).nan_to_num_(nan=0.0).float()  # 0 / 0 in a bag of invisible keys
    del largest_X
    row_M1 = torch.arange(rows, device=p_MN.device)[:, None]
    sum_XV = embedding_bag(
        (exact.order_RN + row_M1 // (rows // groups) * keys).flatten(),
        value_GNV.float().flatten(0, 1),
        (bags.start_MB + row_M1 * keys).flatten(),
        mode="sum",
        per_sample_weights=weight_X,
    )
    return (sum_XV.double().unflatten(0, bags.start_MB.shape) * largest_MB[..., None]).mT
