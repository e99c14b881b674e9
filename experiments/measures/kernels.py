"""Compiled kernels of the quick path: every window of a row without sorting it.

A weight w = exp(logit - max) is a positive float, so its bit pattern grows with it: the top bits are a bin number, and
a histogram over bins orders a row but for ties within a bin. Only the few bins in which a window begins or ends are
sorted exactly. One more pass adds w_j v_j into the segment between two windows that key j belongs to; sums over
segments, from the tail for what is dropped and from the head for what is kept, give every window at once.

Shape letters: R rows, N keys, V value dimension, B bins, W windows, S segments, E tolerances. Kernels run in parallel
over rows; no result depends on how many threads or rows there are.
"""

import math

import numba
import numpy as np

# What is more than 48 octaves (33 nats) below the row's largest weight shares the lowest bin.
OCTAVES = 48

TILE = 2048  # keys whose values stay in the cache while a chunk of rows reads them
CHUNK = 16  # rows that share them
LANES = 16  # values added at once
MIXED = np.uint16(65535)  # stands for a bin in which a segment starts
MEASURES = 9  # columns of `sparse`, in the order of quick.MEASURED

_compiled = numba.njit(parallel=True, cache=True, error_model="numpy", fastmath={"contract"})
_helper = numba.njit(cache=True, error_model="numpy", fastmath={"contract"}, inline="always")


@numba.njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _moments(logits_N, weight_N, highest):
    """Return n, and the sums of t, t^2 and w t over visible keys, t = logit - max; written to be vectorised."""
    n, first, second, product, top = 0, 0.0, 0.0, 0.0, np.float64(highest)
    for j in range(logits_N.shape[0]):
        seen = logits_N[j] > -np.inf
        t = np.float64(logits_N[j]) - top if seen else 0.0  # in float64: a mean near 0 is a small difference
        n += seen
        first += t
        second += t * t
        product += np.float64(weight_N[j]) * t
    return n, first, second, product


@_compiled
def histogram(logits_RN, weight_RN, bits_RN, highest_R, shift, lowest, bin_RN, count_RB, mass_RB, square_RB, moment_R6):
    """Bin each row, add up counts, masses and squares, and its moments: n, sums of t, t^2, w t, w and w^2.

    The bin of a weight is its bit pattern without the last `shift` bits, less `lowest`.
    """
    for r in numba.prange(weight_RN.shape[0]):
        for j in range(weight_RN.shape[1]):
            bin_RN[r, j] = np.uint16(max((bits_RN[r, j] >> shift) - lowest, 0))
        count_RB[r, :] = 0
        mass_RB[r, :] = 0.0
        square_RB[r, :] = 0.0
        for j in range(weight_RN.shape[1]):
            w = np.float64(weight_RN[r, j])
            b = bin_RN[r, j]
            count_RB[r, b] += 1
            mass_RB[r, b] += w
            square_RB[r, b] += w * w
        n, first, second, product = _moments(logits_RN[r], weight_RN[r], highest_R[r])
        moment_R6[r, 0] = n
        moment_R6[r, 1] = first
        moment_R6[r, 2] = second
        moment_R6[r, 3] = product
        total, squares = 0.0, 0.0
        for b in range(count_RB.shape[1]):  # from the small end
            total += mass_RB[r, b]
            squares += square_RB[r, b]
        moment_R6[r, 4] = total
        moment_R6[r, 5] = squares


@_compiled
def resolve(weight_RN, bin_RN, count_RB, mass_RB, total_R, limit_E, epsilon_T, epsilon_bin_RT, k_RE, above_RT):
    """Fill k_RE with the smallest k of each tolerance, and above_RT with #{j: w_j / total > eps}.

    `limit_E` rises; `epsilon_bin_RT` is the bin of eps x total, right to one bin. Only keys that share a bin with an
    answer are looked at one by one. Invisible keys count as keys of weight 0.
    """
    keys, bins, tolerances = weight_RN.shape[1], count_RB.shape[1], limit_E.shape[0]
    for r in numba.prange(weight_RN.shape[0]):
        wanted_B = np.zeros(bins, np.bool_)
        crossing_E = np.empty(tolerances, np.int64)
        tail_E = np.empty(tolerances)
        below_E = np.empty(tolerances, np.int64)
        b, below, tail = 0, 0, 0.0
        for i in range(tolerances):
            limit = limit_E[i] * total_R[r]
            while b < bins - 1 and tail + mass_RB[r, b] <= limit:
                tail += mass_RB[r, b]
                below += count_RB[r, b]
                b += 1
            crossing_E[i] = b
            tail_E[i] = tail
            below_E[i] = below
            wanted_B[b] = True
        for i in range(epsilon_T.shape[0]):
            nearest = epsilon_bin_RT[r, i]
            for b in range(max(nearest - 1, 0), min(nearest + 2, bins)):
                wanted_B[b] = True

        start_B = np.empty(bins, np.int64)
        size = 0
        for b in range(bins):
            start_B[b] = size
            if wanted_B[b]:
                size += count_RB[r, b]
        held = np.empty(size, np.float32)
        size = 0
        for j in range(keys):
            if wanted_B[bin_RN[r, j]]:
                held[size] = weight_RN[r, j]
                size += 1
        held.sort()

        for i in range(tolerances):
            limit = limit_E[i] * total_R[r]
            b = crossing_E[i]
            dropped, tail = below_E[i], tail_E[i]
            for h in range(start_B[b], start_B[b] + count_RB[r, b]):
                tail += np.float64(held[h])
                if tail > limit:
                    break
                dropped += 1
            k_RE[r, i] = max(keys - dropped, 1)
        for i in range(epsilon_T.shape[0]):
            nearest = epsilon_bin_RT[r, i]
            above = 0
            for b in range(nearest + 2, bins):
                above += count_RB[r, b]
            for b in range(max(nearest - 1, 0), min(nearest + 2, bins)):
                for h in range(start_B[b], start_B[b] + count_RB[r, b]):
                    above += np.float64(held[h]) / total_R[r] > epsilon_T[i]
            above_RT[r, i] = above


@_helper
def _segments_of_bins(count_B, start_S, segments, held, segment_B, next_B):
    """Map each bin to its segment, MIXED if one starts at a key of the bin; return where the next row's held keys go.

    The keys of mixed bins are held bin by bin, from `held` on; `next_B` says where each bin's go.
    """
    s, above = 0, 0
    for b in range(count_B.shape[0] - 1, -1, -1):
        inside = count_B[b]
        last = s
        while last + 1 < segments and start_S[last + 1] < above + inside:
            last += 1
        segment_B[b] = s if last == s else MIXED
        if last > s:
            next_B[b] = held
            held += inside
        above += inside
        s = last
    return held


@numba.njit(cache=True, error_model="numpy")
def _segment_tile(bin_T, bits_T, segment_B, spare, first, segment_T, next_B, held_H):
    """Look up the segment of each key of a tile; keys of mixed bins are held, and go to a spare segment meanwhile."""
    for t in range(bin_T.shape[0]):
        b = bin_T[t]
        s = segment_B[b]
        if s == MIXED:
            # sorts by falling weight, then by rising index
            held_H[next_B[b]] = (np.uint64(0x7FFFFFFF - bits_T[t]) << np.uint64(32)) | np.uint64(first + t)
            next_B[b] += 1
            s = spare
        segment_T[t] = s


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def _add_pair(weight0_T, weight1_T, segment0_T, segment1_T, value_TV, sum0_SV, sum1_SV, lanes):
    """Add w v into the segments of two rows at a time: their sums are independent, one hides the other's latency."""
    for t in range(value_TV.shape[0]):
        w0, s0, w1, s1 = weight0_T[t], segment0_T[t], weight1_T[t], segment1_T[t]
        for v in range(LANES * len(lanes)):
            x = value_TV[t, v]
            sum0_SV[s0, v] += w0 * x
            sum1_SV[s1, v] += w1 * x


@_compiled
def sparse(
    weight_RN, bits_RN, bin_RN, count_RB, mass_RB, square_RB, total_R, value_NV, k_RW, lanes, measure_RWM, output_R
):
    """Fill measure_RWM with every measure of every window, and output_R with the squared norm of the exact output.

    V is a multiple of LANES, and `lanes` a tuple of V / LANES zeros: its length is a constant to the compiler, which
    the inner loops need to be quick.
    """
    rows, keys = weight_RN.shape
    windows, width = k_RW.shape[1], value_NV.shape[1]
    for c in numba.prange((rows + CHUNK - 1) // CHUNK):
        r0 = c * CHUNK
        here = min(CHUNK, rows - r0)
        start_CS = np.empty((CHUNK, windows + 2), np.int64)
        segments_C = np.empty(CHUNK, np.int64)
        segment_CB = np.empty((CHUNK, count_RB.shape[1]), np.uint16)
        next_CB = np.empty((CHUNK, count_RB.shape[1]), np.int64)
        held_from_C = np.zeros(CHUNK + 1, np.int64)
        output_CSV = np.zeros((CHUNK, windows + 2, width))
        for i in range(here):
            order_W = np.sort(k_RW[r0 + i])
            start_CS[i, 0] = 0
            segments = 1
            for k in order_W:
                if k > start_CS[i, segments - 1]:
                    start_CS[i, segments] = k
                    segments += 1
            segments_C[i] = segments
            held_from_C[i + 1] = _segments_of_bins(
                count_RB[r0 + i], start_CS[i], segments, held_from_C[i], segment_CB[i], next_CB[i]
            )
        held_H = np.empty(held_from_C[here], np.uint64)

        sum_PSV = np.empty((2, windows + 2, width), np.float32)
        segment_PT = np.empty((2, TILE), np.uint16)
        for j0 in range(0, keys, TILE):
            tile = min(TILE, keys - j0)
            for i0 in range(0, here, 2):
                pair = min(2, here - i0)
                for p in range(pair):
                    i = i0 + p
                    sum_PSV[p, : segments_C[i] + 1] = 0
                    _segment_tile(
                        bin_RN[r0 + i, j0 : j0 + tile],
                        bits_RN[r0 + i, j0 : j0 + tile],
                        segment_CB[i],
                        np.uint16(segments_C[i]),
                        j0,
                        segment_PT[p],
                        next_CB[i],
                        held_H,
                    )
                other = pair - 1
                _add_pair(
                    weight_RN[r0 + i0, j0 : j0 + tile],
                    weight_RN[r0 + i0 + other, j0 : j0 + tile],
                    segment_PT[0],
                    segment_PT[other],
                    value_NV[j0 : j0 + tile],
                    sum_PSV[0],
                    sum_PSV[1],
                    lanes,
                )
                for p in range(pair):
                    for s in range(segments_C[i0 + p]):
                        for v in range(width):
                            output_CSV[i0 + p, s, v] += sum_PSV[p, s, v]

        for i in range(here):
            r = r0 + i
            segments = segments_C[i]
            mass_S = np.zeros(segments)
            square_S = np.zeros(segments)
            largest_S = np.zeros(segments)
            _settle(
                weight_RN[r],
                count_RB[r],
                mass_RB[r],
                square_RB[r],
                value_NV,
                start_CS[i],
                segment_CB[i],
                held_H[held_from_C[i] : held_from_C[i + 1]],
                lanes,
                mass_S,
                square_S,
                largest_S,
                output_CSV[i],
            )
            _measure(
                start_CS[i], segments, mass_S, square_S, largest_S, output_CSV[i], total_R[r], k_RW[r], measure_RWM[r]
            )
            norm = 0.0
            for v in range(width):
                x = 0.0
                for s in range(segments - 1, -1, -1):
                    x += output_CSV[i, s, v]
                norm += x * x
            output_R[r] = norm / (total_R[r] * total_R[r])


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def _settle(
    weight_N,
    count_B,
    mass_B,
    square_B,
    value_NV,
    start_S,
    segment_B,
    held_H,
    lanes,
    mass_S,
    square_S,
    largest_S,
    output_SV,
):
    """Put the held keys, whose rank decides, into their segments, and add up the bins that need no deciding."""
    segments = mass_S.shape[0]
    rank, h, s = 0, 0, 0
    for b in range(count_B.shape[0] - 1, -1, -1):
        if count_B[b] == 0:
            continue
        if segment_B[b] != MIXED:
            s = segment_B[b]
            mass_S[s] += mass_B[b]
            square_S[s] += square_B[b]
            rank += count_B[b]
            continue
        held_H[h : h + count_B[b]].sort()
        for _ in range(count_B[b]):
            while s + 1 < segments and start_S[s + 1] <= rank:
                s += 1
            j = np.int64(held_H[h] & np.uint64(0xFFFFFFFF))
            w = np.float64(weight_N[j])
            if rank == start_S[s]:
                largest_S[s] = w
            mass_S[s] += w
            square_S[s] += w * w
            for v in range(LANES * len(lanes)):
                output_SV[s, v] += w * value_NV[j, v]
            rank += 1
            h += 1


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def _measure(start_S, segments, mass_S, square_S, largest_S, output_SV, total, k_W, measure_WM):
    """Turn segments into measures; theory.md [T1]-[T6], as `sparse.measure` does for the reference path."""
    width = output_SV.shape[1]
    order_W = np.argsort(k_W)
    kept_S = np.empty(segments)  # mass and squares of segments 0 .. s-1
    kept_square_S = np.empty(segments)
    kept, kept_square = 0.0, 0.0
    for s in range(segments):
        kept_S[s] = kept
        kept_square_S[s] = kept_square
        kept += mass_S[s]
        kept_square += square_S[s]
    head_SV = np.zeros((segments, width))
    for s in range(1, segments):
        for v in range(width):
            head_SV[s, v] = head_SV[s - 1, v] + output_SV[s - 1, v]
    tail_V = np.zeros(width)
    dropped, dropped_square = 0.0, 0.0
    w = k_W.shape[0] - 1
    for s in range(segments - 1, 0, -1):
        dropped += mass_S[s]
        dropped_square += square_S[s]
        truncated, renormalised = 0.0, 0.0
        odds = dropped / kept_S[s]
        for v in range(width):
            tail_V[v] += output_SV[s, v]
            truncated += tail_V[v] ** 2
            renormalised += (tail_V[v] - odds * head_SV[s, v]) ** 2
        tau = dropped / total
        next_p, first_p = largest_S[s] / total, 1.0 / total
        while w >= 0 and k_W[order_W[w]] == start_S[s]:
            m = measure_WM[order_W[w]]
            m[0] = tau
            m[1] = tau
            m[2] = -math.log1p(-tau) if tau < 0.5 else -math.log(kept_S[s] / total)
            m[3] = next_p
            m[4] = max(next_p, first_p * odds)
            m[5] = math.sqrt(dropped_square) / total
            m[6] = math.sqrt(dropped_square + odds * odds * kept_square_S[s]) / total
            m[7] = truncated / (total * total)
            m[8] = renormalised / (total * total)
            w -= 1
