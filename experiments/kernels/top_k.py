"""Attention over the k most probable keys alone, row by row, without sorting rows.

Shape letters: R rows, N keys, V value dimension, B bins.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from experiments.kernels.scratch import Scratch
from experiments.kernels.threads import use_threads
from experiments.rows import check_rows

# Bins of equal width in the logit, below the row's largest one; what is more than 32 nats below shares the last.
_BINS = 2049
_BINS_PER_NAT = np.float32(64.0)
_MANY = 0.25  # share of the keys above which one dense product is quicker than adding kept values up


def top_k_output(logits_RN: Tensor, value_NV: Tensor, k_R: Tensor) -> Tensor:
    """Return what `experiments.reference.top_k.top_k_output` does, for float32 logits on a CPU."""
    use_threads(logits_RN)
    if int(k_R.max()) > _MANY * logits_RN.shape[1]:
        kept_RN = logits_RN.clone()
        _drop(kept_RN.numpy(), k_R.numpy())
        return torch.softmax(kept_RN, dim=-1) @ value_NV.float()
    output_RV = np.empty((logits_RN.shape[0], value_NV.shape[1]), np.float32)
    value = value_NV.float().contiguous().numpy()
    _attend(logits_RN.numpy(), k_R.numpy(), value, (0,) * value.shape[1], output_RV)
    return torch.from_numpy(output_RV)


def weights_above(logits_RN: Tensor, epsilon: float, scratch: Scratch) -> tuple[Tensor, Tensor]:
    """Return what `experiments.reference.top_k.weights_above` does, for float32 logits on a CPU."""
    use_threads(logits_RN)
    highest_R1 = logits_RN.amax(-1, keepdim=True)
    check_rows(highest_R1)
    weight_RN = torch.sub(logits_RN, highest_R1, out=scratch.take("weight", *logits_RN.shape)).exp_()
    k_R = torch.empty(len(logits_RN), dtype=torch.int64)
    _above(weight_RN.numpy(), epsilon, k_R.numpy())
    return k_R, weight_RN


def top_k_mask(logits_RN: Tensor, k_R: Tensor) -> Tensor:
    """Return what `experiments.reference.top_k.top_k_mask` does, for float32 logits on a CPU."""
    use_threads(logits_RN)
    left_RN = logits_RN.clone()
    _drop(left_RN.numpy(), k_R.numpy())
    return left_RN > -torch.inf


@numba.njit(cache=True, fastmath={"nnan", "nsz"})
def _highest(logits_N):
    """Return the largest logit; written to be vectorised, which a maximum that heeds NaN is not."""
    highest = np.float32(-np.inf)
    for j in range(logits_N.shape[0]):
        highest = max(highest, logits_N[j])
    return highest


@numba.njit(cache=True, error_model="numpy")
def _bins_of(logits_N, highest, bin_N):
    """Fill in the bin number of each key; written to be vectorised."""
    for j in range(logits_N.shape[0]):
        bin_N[j] = np.int16(min((highest - logits_N[j]) * _BINS_PER_NAT, np.float32(_BINS - 1)))


@numba.njit(cache=True, error_model="numpy")
def _boundary(logits_N, highest, k, bin_N, count_B):
    """Return the bin in which the k-th key lies, and the sorted keys of that bin that are kept."""
    _bins_of(logits_N, highest, bin_N)
    count_B[:] = 0
    for j in range(logits_N.shape[0]):
        count_B[bin_N[j]] += 1
    above, b = 0, 0
    while above + count_B[b] < k:
        above += count_B[b]
        b += 1
    inside = np.empty(count_B[b], np.int64)
    filled = 0
    for j in range(logits_N.shape[0]):
        if bin_N[j] == b:
            inside[filled] = j
            filled += 1
    if k - above < filled:
        gap = np.empty(filled, np.float32)
        for i in range(filled):
            gap[i] = highest - logits_N[inside[i]]
        inside = inside[np.argsort(gap, kind="mergesort")]  # stable: ties stay in the order of their indices
    return b, inside[: k - above]


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _drop(logits_RN, k_R):
    """Set every logit but the k largest of each row to -inf."""
    keys = logits_RN.shape[1]
    for r in numba.prange(logits_RN.shape[0]):
        bin_N = np.empty(keys, np.int16)
        count_B = np.empty(_BINS, np.int32)
        b, kept = _boundary(logits_RN[r], _highest(logits_RN[r]), k_R[r], bin_N, count_B)
        for j in kept:
            bin_N[j] = -1
        for j in range(keys):
            if bin_N[j] >= b:
                logits_RN[r, j] = -np.inf


@numba.njit(parallel=True, cache=True, error_model="numpy", fastmath={"contract"})
def _attend(logits_RN, k_R, value_NV, lanes, output_RV):
    """Add up the values of the kept keys alone; `lanes` is a tuple of V zeros, a constant length to the compiler."""
    keys, width = logits_RN.shape[1], len(lanes)
    for r in numba.prange(logits_RN.shape[0]):
        bin_N = np.empty(keys, np.int16)
        count_B = np.empty(_BINS, np.int32)
        highest = _highest(logits_RN[r])
        b, inside = _boundary(logits_RN[r], highest, k_R[r], bin_N, count_B)
        kept = np.empty(k_R[r], np.int64)
        filled = len(inside)
        kept[:filled] = inside
        for j in range(keys):
            if bin_N[j] < b:
                kept[filled] = j
                filled += 1
        sum_V = np.zeros(width, np.float32)
        total = np.float32(0.0)
        for j in kept:
            w = np.exp(logits_RN[r, j] - highest)
            total += w
            for v in range(width):
                sum_V[v] += w * value_NV[j, v]
        for v in range(width):
            output_RV[r, v] = sum_V[v] / total


@numba.njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _sum(weight_N):
    """Return the sum of a row's weights."""
    total = 0.0
    for j in range(weight_N.shape[0]):
        total += np.float64(weight_N[j])
    return total


@numba.njit(cache=True, error_model="numpy")
def _keep_from(weight_N, least):
    """Set weights below `least` to 0; return how many are left."""
    count = np.int32(0)
    for j in range(weight_N.shape[0]):
        kept = weight_N[j] >= least
        count += np.int32(kept)
        weight_N[j] = weight_N[j] if kept else np.float32(0.0)
    return np.int64(count)


@numba.njit(parallel=True, cache=True, error_model="numpy")
def _above(weight_RN, epsilon, k_R):
    """Set the weights of keys with p <= epsilon to 0, and fill in how many are left.

    The most probable key, whose weight is 1, is always left; of several, the first.
    """
    for r in numba.prange(weight_RN.shape[0]):
        total = _sum(weight_RN[r])
        if 1.0 / total > epsilon:
            least = np.float32(total * epsilon)  # to become the smallest float32 with least / total > epsilon
            while least > 0 and np.float64(least) / total > epsilon:
                least = np.nextafter(least, np.float32(0.0))
            while np.float64(least) / total <= epsilon:
                least = np.nextafter(least, np.float32(2.0))
            k_R[r] = _keep_from(weight_RN[r], least)
        else:
            first = np.argmax(weight_RN[r])
            weight_RN[r] = 0
            weight_RN[r, first] = 1
            k_R[r] = 1
