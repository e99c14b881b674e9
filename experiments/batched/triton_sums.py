"""What windows keep and drop of ranked rows, summed by a Triton kernel that reads each key once.

Plain torch (`window_sums`) writes and reads again whole rows of running sums, weights and indices.

Shape letters: G groups (KV heads), M rows of all of them, N keys, V value dimension, W windows, B bags of keys.
"""

from __future__ import annotations

import triton
from torch import Tensor
from triton import language as tl

from experiments.batched.bags import Bags
from experiments.batched.window_sums import WindowSums
from experiments.reference.exact import ExactRows

KEYS = 32  # of a bag that a program reads at a time


def window_sums(exact: ExactRows, value_GNV: Tensor, k_MW: Tensor) -> WindowSums:
    """Return the sums of windows that keep the `k_MW` most probable keys of their row."""
    p_MN, groups, width = exact.probability_RN, len(value_GNV), value_GNV.shape[-1]
    rows, keys = p_MN.shape
    cut = Bags.cut(keys, k_MW)
    bags = cut.start_MB.shape[1]
    mass_MB, square_MB = p_MN.new_empty(rows, bags), p_MN.new_empty(rows, bags)
    output_MVB = p_MN.new_empty(rows, width, bags)
    _sum_bag[(rows * bags,)](
        p_MN,
        exact.order_RN,
        value_GNV,
        cut.start_MB,
        cut.stop_MB,
        mass_MB,
        square_MB,
        output_MVB,
        keys,
        bags,
        rows // groups,
        width,
        *value_GNV.stride(),
        KEYS=KEYS,
        WIDTH=triton.next_power_of_2(width),
    )
    return WindowSums(
        *cut.split(mass_MB)[:2],
        *cut.split(square_MB)[:2],
        *cut.split(output_MVB),
    )


@triton.jit
def _sum_bag(
    p_ptr,
    order_ptr,
    value_ptr,
    start_ptr,
    stop_ptr,
    mass_ptr,
    square_ptr,
    output_ptr,
    keys,
    bags,
    rows_of_group,
    width,
    stride_g,
    stride_n,
    stride_v,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Sum one bag of one row. Masses are float64; values are float32 over weights relative to the bag's largest."""
    bag = tl.program_id(0).to(tl.int64)  # of all rows
    row = bag // bags
    start, stop = tl.load(start_ptr + bag), tl.load(stop_ptr + bag)
    p_ptr += row * keys
    order_ptr += row * keys
    value_ptr += row // rows_of_group * stride_g
    largest = tl.load(p_ptr + start, mask=start < stop, other=0.0)
    inverse = 1.0 / tl.where(largest > 0.0, largest, 1.0)  # keys that are not visible have no weight
    column = tl.arange(0, WIDTH)
    mass = tl.zeros((KEYS,), tl.float64)
    square = tl.zeros((KEYS,), tl.float64)
    output = tl.zeros((WIDTH,), tl.float32)
    for first in range(start, stop, KEYS):
        turn = first + tl.arange(0, KEYS)
        inside = turn < stop
        p = tl.load(p_ptr + turn, mask=inside, other=0.0)
        key = tl.load(order_ptr + turn, mask=inside, other=0)
        mass += p
        square += p * p
        weight = (p * inverse).to(tl.float32)
        at = value_ptr + key[:, None] * stride_n + column[None, :] * stride_v
        value = tl.load(at, mask=inside[:, None] & (column < width)[None, :], other=0.0).to(tl.float32)
        output += tl.sum(weight[:, None] * value, axis=0)
    tl.store(mass_ptr + bag, tl.sum(mass))
    tl.store(square_ptr + bag, tl.sum(square))
    output_ptr += row * width * bags + bag % bags
    tl.store(output_ptr + column * bags, output.to(tl.float64) * largest, mask=column < width)
