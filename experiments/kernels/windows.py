"""Compiled kernels of the quick path: every window of a row without sorting all of it.

A weight w = exp(logit - max) is a positive float, so its bit pattern grows with it. Pattern and key index, packed into
one integer, order a row with its ties; the top bits of the pattern are a bin. One pass counts the keys of each bin, a
second puts each packed key into its bin, and the row is ranked bin by bin. Only bins in which something is decided,
where a window ends or a tolerance is crossed, are ever sorted. Windows cut the ranked row into segments; one more pass
over the keys adds w_j v_j into the segment of key j, and sums over segments, from the tail for what is dropped and from
the head for what is kept, give every window at once.

Ranks count from the most probable key; indices count from the least probable one, the order in which rows are stored.

Shape letters: R rows, N keys, V value dimension, B bins, W windows, S segments, E tolerances, T keys of a tile. Kernels
run in parallel over rows; no result depends on how many threads or rows there are.
"""

import numba
import numpy as np

# What is more than 48 octaves (33 nats) below the row's largest weight shares the lowest bin.
OCTAVES = 48

TILE = 1024  # keys whose values stay in the cache while a chunk of rows reads them
MANY = 2 * TILE  # keys of a segment above which float32 would not do to add them up
CHUNK = 16  # rows that share them
LANES = 16  # values added at once
FEW = 24  # keys up to which insertion is the quickest sort
STRIDE = 256  # keys whose masses are added up at once in search of a tolerance
MEASURES = 9  # columns of `sparse`, in the order of quick.MEASURED

_compiled = numba.njit(parallel=True, cache=True, error_model="numpy", fastmath={"contract"})
_helper = numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
_sum = numba.njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})  # written to be vectorised


@_sum
def _moments(logits_N, weight_N, highest, moment_6):
    """Fill in n, and the sums of t, t^2, w t, w and w^2 over visible keys, t = logit - max."""
    n, first, second, product, total, squares = 0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(logits_N.shape[0]):
        seen = logits_N[j] > -np.inf
        t = np.float64(logits_N[j]) - highest if seen else 0.0  # in float64: a mean near 0 is a small difference
        w = np.float64(weight_N[j])
        n += seen
        first += t
        second += t * t
        product += w * t
        total += w
        squares += w * w
    moment_6[0], moment_6[1], moment_6[2] = n, first, second
    moment_6[3], moment_6[4], moment_6[5] = product, total, squares


@_helper
def _rank(bits_N, shift, lowest, start_B, ranked_N):
    """Put a row's keys into bins, least probable bin first; keys of equal weight lie by falling index."""
    keys, bins = bits_N.shape[0], start_B.shape[0] - 1
    next_B = np.zeros(bins, np.int32)
    for j in range(keys):
        next_B[max((bits_N[j] >> shift) - lowest, 0)] += 1
    index = 0
    for b in range(bins):
        start_B[b] = index
        index += next_B[b]
        next_B[b] = start_B[b]
    start_B[bins] = keys
    # Indices are unsigned here and below: signed ones are checked for counting from the end, which doubles the time.
    for i in range(keys):
        j = np.uint32(keys - 1 - i)
        b = (bits_N[j] >> shift) - lowest
        u = np.uint32(b if b > 0 else 0)
        ranked_N[np.uint32(next_B[u])] = (np.uint64(bits_N[j]) << np.uint64(32)) | np.uint64(~j)
        next_B[u] += 1


@_helper
def _sort(ranked_N):
    """Sort the keys of a bin; most are few, or sorted already."""
    if ranked_N.shape[0] <= FEW:
        for i in range(1, ranked_N.shape[0]):
            x = ranked_N[i]
            h = i - 1
            while h >= 0 and ranked_N[h] > x:
                ranked_N[h + 1] = ranked_N[h]
                h -= 1
            ranked_N[h + 1] = x
        return
    for i in range(1, ranked_N.shape[0]):
        if ranked_N[i] < ranked_N[i - 1]:
            ranked_N.sort()
            return


@_helper
def _bin_at(index, ranked_N, shift, lowest):
    """Return the bin whose keys lie around an index."""
    return max(np.int64(ranked_N[index] >> np.uint64(32 + shift)) - lowest, 0)


@_helper
def _weight(packed):
    """Return the weight in a packed key."""
    return np.float64(np.uint32(packed >> np.uint64(32)).view(np.float32))


@_sum
def _mass(ranked_N):
    """Return the mass of some keys."""
    mass = 0.0
    for i in range(ranked_N.shape[0]):
        mass += _weight(ranked_N[i])
    return mass


@_sum
def _mass_and_squares(ranked_N):
    """Return the mass of some keys, and the sum of their squared weights."""
    mass, squares = 0.0, 0.0
    for i in range(ranked_N.shape[0]):
        w = _weight(ranked_N[i])
        mass += w
        squares += w * w
    return mass, squares


@_helper
def _resolve(ranked_N, start_B, shift, lowest, total, limit_E, epsilon_T, k_E, above_T):
    """Fill in the smallest k of each tolerance, and the count above each threshold, of one row; see `resolve`."""
    keys, bins = ranked_N.shape[0], start_B.shape[0] - 1
    index, tail = 0, 0.0
    for i in range(limit_E.shape[0]):
        limit = limit_E[i] * total
        while index < keys:
            more = _mass(ranked_N[index : index + STRIDE])
            if tail + more > limit:
                break
            tail += more
            index = min(index + STRIDE, keys)
        if index == keys:
            k_E[i] = 1
            continue
        b = _bin_at(index, ranked_N, shift, lowest)
        tail -= _mass(ranked_N[start_B[b] : index])
        while b < bins - 1:
            more = _mass(ranked_N[start_B[b] : start_B[b + 1]])
            if tail + more > limit:
                break
            tail += more
            b += 1
        index = start_B[b]
        below = tail
        _sort(ranked_N[start_B[b] : start_B[b + 1]])
        dropped = index
        while dropped < start_B[b + 1]:
            below += _weight(ranked_N[dropped])
            if below > limit:
                break
            dropped += 1
        k_E[i] = max(keys - dropped, 1)
    for i in range(epsilon_T.shape[0]):
        nearest = (np.float32(total * epsilon_T[i]).view(np.int32) >> shift) - lowest
        nearest = min(max(nearest, 0), bins - 1)
        first, last = start_B[max(nearest - 1, 0)], start_B[min(nearest + 2, bins)]
        above = keys - last
        for index_near in range(first, last):
            above += _weight(ranked_N[index_near]) / total > epsilon_T[i]
        above_T[i] = above


@_compiled
def rank(
    logits_RN,
    highest_R,
    weight_RN,
    bits_RN,
    shift,
    lowest,
    start_RB,
    ranked_RN,
    moment_R6,
    limit_E,
    epsilon_T,
    k_RE,
    above_RT,
):
    """Put each row's keys into bins, add up its moments, and answer what is asked while the row is in the cache.

    The bin of a weight is its bit pattern without the last `shift` bits, less `lowest`; `start_RB` has one entry more
    than there are bins.
    """
    for r in numba.prange(weight_RN.shape[0]):
        _rank(bits_RN[r], shift, lowest, start_RB[r], ranked_RN[r])
        _moments(logits_RN[r], weight_RN[r], np.float64(highest_R[r]), moment_R6[r])
        _resolve(
            ranked_RN[r],
            start_RB[r],
            shift,
            lowest,
            moment_R6[r, 4],
            limit_E,
            epsilon_T,
            k_RE[r],
            above_RT[r],
        )


@_compiled
def resolve(ranked_RN, start_RB, shift, lowest, total_R, limit_E, epsilon_T, k_RE, above_RT):
    """Fill k_RE with the smallest k of each tolerance, and above_RT with #{j: w_j / total > eps}.

    `limit_E` rises. Invisible keys count as keys of weight 0.
    """
    for r in numba.prange(ranked_RN.shape[0]):
        _resolve(
            ranked_RN[r],
            start_RB[r],
            shift,
            lowest,
            total_R[r],
            limit_E,
            epsilon_T,
            k_RE[r],
            above_RT[r],
        )


@_helper
def _rising(k_W, order_W):
    """Put the windows of a row in rising order; that of the row before is nearly right."""
    for i in range(1, k_W.shape[0]):
        w = order_W[i]
        h = i - 1
        while h >= 0 and k_W[order_W[h]] > k_W[w]:
            order_W[h + 1] = order_W[h]
            h -= 1
        order_W[h + 1] = w


@_helper
def _cut(k_W, order_W, ranked_N, start_B, shift, lowest, first_S, segment_N):
    """Cut a row where windows end; return the number of segments.

    Segment s has the ranks first_S[s] .. first_S[s + 1] - 1; segment_N is the segment of each key.
    """
    keys, segments = ranked_N.shape[0], 1
    first_S[0] = 0
    for w in order_W:
        k = k_W[w]
        if k > first_S[segments - 1]:
            if k < keys:
                b = _bin_at(keys - k - 1, ranked_N, shift, lowest)
                _sort(ranked_N[start_B[b] : start_B[b + 1]])
            first_S[segments] = k
            segments += 1
    first_S[segments] = keys
    for s in range(segments):
        for index in range(keys - first_S[s + 1], keys - first_S[s]):
            segment_N[~np.uint32(ranked_N[np.uint32(index)] & np.uint64(0xFFFFFFFF))] = s
    return segments


@_helper
def _add(weight_T, segment_T, value_L, sum_L, lanes):
    """Add w v into the segments of a row; values and sums are flat, which leaves the compiler one plain product."""
    width = np.uint64(LANES * len(lanes))
    for t in range(weight_T.shape[0]):
        w, first, key = weight_T[t], np.uint64(segment_T[t]) * width, np.uint64(t) * width
        for v in range(width):
            sum_L[first + v] += w * value_L[key + v]


@_helper
def _begin(first_S, sum_SV, output_SV, lanes):
    """Clear the sums of a row's segments."""
    for s in range(first_S.shape[0] - 1):
        for v in range(LANES * len(lanes)):
            sum_SV[s, v] = 0
            output_SV[s, v] = 0


@_helper
def _fold(first_S, least, sum_SV, output_SV, lanes):
    """Move the sums of segments of `least` keys or more from float32 to float64."""
    for s in range(first_S.shape[0] - 1):
        if first_S[s + 1] - first_S[s] >= least:
            for v in range(LANES * len(lanes)):
                output_SV[s, v] += sum_SV[s, v]
                sum_SV[s, v] = 0


@_compiled
def sparse(
    weight_RN,
    ranked_RN,
    start_RB,
    segment_RN,
    sum_RSV,
    output_RSV,
    shift,
    lowest,
    total_R,
    value_NV,
    k_RW,
    lanes,
    measure_RWM,
    output_R,
):
    """Fill measure_RWM with every measure of every window, and output_R with the squared norm of the exact output.

    `segment_RN`, `sum_RSV` and `output_RSV` are scratch; it is quickest if vectors begin with a line of the cache. V is
    a multiple of LANES, and `lanes` a tuple of V / LANES zeros: its length is a constant to the compiler, which the
    inner loops need to be quick.
    """
    rows, keys = weight_RN.shape
    windows = k_RW.shape[1]
    for c in numba.prange((rows + CHUNK - 1) // CHUNK):
        r0 = c * CHUNK
        here = min(CHUNK, rows - r0)
        first_CS = np.empty((CHUNK, windows + 2), np.int64)
        segments_C = np.empty(CHUNK, np.int64)
        order_CW = np.empty((CHUNK, windows), np.int64)
        for i in range(here):
            r = r0 + i
            order_CW[i] = order_CW[i - 1] if i else np.arange(windows)
            _rising(k_RW[r], order_CW[i])
            segments_C[i] = _cut(
                k_RW[r], order_CW[i], ranked_RN[r], start_RB[r], shift, lowest, first_CS[i], segment_RN[r]
            )
            _begin(first_CS[i, : segments_C[i] + 1], sum_RSV[r], output_RSV[r], lanes)

        for j0 in range(0, keys, TILE):
            j1 = min(j0 + TILE, keys)
            value_L = value_NV[j0:j1].reshape(-1)
            for i in range(here):
                r = r0 + i
                _add(weight_RN[r, j0:j1], segment_RN[r, j0:j1], value_L, sum_RSV[r].reshape(-1), lanes)
                _fold(first_CS[i, : segments_C[i] + 1], MANY, sum_RSV[r], output_RSV[r], lanes)

        for i in range(here):
            r = r0 + i
            segments = segments_C[i]
            _fold(first_CS[i, : segments + 1], 0, sum_RSV[r], output_RSV[r], lanes)
            mass_S = np.empty(segments)
            square_S = np.empty(segments)
            largest_S = np.empty(segments)
            for s in range(segments):
                last = keys - first_CS[i, s]
                mass_S[s], square_S[s] = _mass_and_squares(ranked_RN[r, keys - first_CS[i, s + 1] : last])
                largest_S[s] = _weight(ranked_RN[r, last - 1]) if last else 0.0
            _measure(
                first_CS[i],
                mass_S,
                square_S,
                largest_S,
                output_RSV[r],
                total_R[r],
                k_RW[r],
                order_CW[i],
                lanes,
                measure_RWM[r],
            )
            output_R[r] = _total(output_RSV[r, :segments], lanes) / (total_R[r] * total_R[r])


@_sum
def _norms(tail_V, head_V, odds, lanes):
    """Return the squared norms of tail and of tail - odds x head."""
    truncated, renormalised = 0.0, 0.0
    for v in range(LANES * len(lanes)):
        truncated += tail_V[v] * tail_V[v]
        difference = tail_V[v] - odds * head_V[v]
        renormalised += difference * difference
    return truncated, renormalised


@_sum
def _total(output_SV, lanes):
    """Return the squared norm of the sum over segments."""
    total_V = np.zeros(LANES * len(lanes))
    for s in range(output_SV.shape[0] - 1, -1, -1):
        for v in range(LANES * len(lanes)):
            total_V[v] += output_SV[s, v]
    return (total_V * total_V).sum()


@_helper
def _measure(first_S, mass_S, square_S, largest_S, output_SV, total, k_W, order_W, lanes, measure_WM):
    """Turn segments into measures; theory.md [T1]-[T6], as `experiments.reference.subset` does."""
    segments, width = mass_S.shape[0], output_SV.shape[1]
    kept_S = np.empty(segments)  # mass and squares of segments 0 .. s-1
    kept_square_S = np.empty(segments)
    kept, kept_square = 0.0, 0.0
    for s in range(segments):
        kept_S[s] = kept
        kept_square_S[s] = kept_square
        kept += mass_S[s]
        kept_square += square_S[s]
    head_SV = np.empty((segments, width))
    head_SV[0] = 0
    for s in range(1, segments):
        for v in range(LANES * len(lanes)):
            head_SV[s, v] = head_SV[s - 1, v] + output_SV[s - 1, v]
    tail_V = np.zeros(width)
    dropped, dropped_square = 0.0, 0.0
    w = k_W.shape[0] - 1
    for s in range(segments - 1, 0, -1):
        dropped += mass_S[s]
        dropped_square += square_S[s]
        odds = dropped / kept_S[s]
        for v in range(LANES * len(lanes)):
            tail_V[v] += output_SV[s, v]
        truncated, renormalised = _norms(tail_V, head_SV[s], odds, lanes)
        tau = dropped / total
        next_p, first_p = largest_S[s] / total, 1.0 / total
        while w >= 0 and k_W[order_W[w]] == first_S[s]:
            m = measure_WM[order_W[w]]
            m[0] = tau
            m[1] = tau
            m[2] = kept_S[s] / total
            m[3] = next_p
            m[4] = max(next_p, first_p * odds)
            m[5] = dropped_square / (total * total)
            m[6] = (dropped_square + odds * odds * kept_square_S[s]) / (total * total)
            m[7] = truncated / (total * total)
            m[8] = renormalised / (total * total)
            w -= 1
