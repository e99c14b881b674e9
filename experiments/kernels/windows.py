"""Compiled kernels of the quick path: every window of a row without sorting all of it.

A weight w = exp(logit - max) is a positive float, so its bit pattern grows with it. Pattern and key index, packed into
one integer, order a row with its ties; the top bits of the pattern are a bin. One pass counts the keys of each bin, a
second puts each packed key into its bin, and the row is ranked bin by bin. Only bins in which something is decided,
where a window ends or a tolerance is crossed, are ever sorted. Windows cut the ranked row into segments.

A segment is a run of keys, and the sum of w_j v_j over a run stays in registers. Where the values are more than an
outer cache holds, the row is first dealt, in rank order, into tiles of keys whose values fit a nearer one; some rows
use a tile before the next one is read. Sums over segments, from the tail for what is dropped and from the head for what
is kept, give every window at once. No more of a ranked row is held than a thread works on.

Ranks count from the most probable key; indices count from the least probable one, the order in which rows are stored.

Shape letters: T threads, C rows of a chunk, R rows, N keys, V value dimension, B bins, W windows, S segments,
E tolerances, P thresholds, L tiles, M measures. Kernels run in parallel over chunks of rows; no result depends on how
many threads or rows there are.
"""

import numba
import numpy as np

from experiments.kernels.add_run import LANES, add_run

# What is more than 48 octaves (33 nats) below the row's largest weight shares the lowest bin.
OCTAVES = 48

LARGEST_VALUES = 1 << 23  # bytes of values that an outer cache holds; more of them are read tile by tile
CHUNK = 4  # rows that use a tile one after the other
TILE_BYTES = 1 << 20  # of values: a second-level cache
MOST = 2048  # keys that float32 adds up before float64 takes over
FEW = 24  # keys up to which insertion is the quickest sort
STRIDE = 256  # keys whose masses are added up at once in search of a tolerance
MOMENTS = 8  # columns of `moment_RM`, see `_moments`
MEASURES = 9  # columns of `measure_RWM`, in the order of quick_rows.MEASURED

_compiled = numba.njit(parallel=True, cache=True, error_model="numpy", fastmath={"contract"})
_helper = numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
_sum = numba.njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})  # written to be vectorised


@_sum
def _moments(logits_N, weight_N, highest, learned_sink, moment_M):
    """Fill in n, and the sums of t, t^2, w t, w, w^2, w t^2 and sqrt(w) over visible keys, t = logit - max.

    Those of w t, w and w^2 count a learned sink of this weight too, 0 for none; beside one the last two are NaN, for
    [G8] describes keys that have all of the mass.
    """
    n, first, second, product, total, squares, spread, roots = 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
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
        spread += w * t * t
        roots += np.float64(np.sqrt(weight_N[j]))  # in float32: as exact as the weight, and twice as quick
    if learned_sink > 0:
        product += learned_sink * np.log(learned_sink)
        total += learned_sink
        squares += learned_sink * learned_sink
        spread, roots = np.nan, np.nan
    moment_M[0], moment_M[1], moment_M[2], moment_M[3] = n, first, second, product
    moment_M[4], moment_M[5], moment_M[6], moment_M[7] = total, squares, spread, roots


@_sum
def _least(bits_N):
    """Return the smallest bit pattern."""
    least = bits_N[0]
    for j in range(bits_N.shape[0]):
        least = min(least, bits_N[j])
    return least


@_helper
def _rank(bits_N, shift, lowest, start_B, next_B, ranked_N):
    """Put a row's keys into bins, least probable bin first; keys of equal weight lie by falling index."""
    keys, bins = bits_N.shape[0], start_B.shape[0] - 1
    first = max((_least(bits_N) >> shift) - lowest, 0)  # bins below it are empty
    start_B[:first] = 0
    next_B[first:] = 0
    for j in range(keys):
        next_B[max((bits_N[j] >> shift) - lowest, 0)] += 1
    index = 0
    for b in range(first, bins):
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
def _resolve(ranked_N, start_B, shift, lowest, total, limit_E, epsilon_P, k_E, above_P):
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
    for i in range(epsilon_P.shape[0]):
        nearest = (np.float32(total * epsilon_P[i]).view(np.int32) >> shift) - lowest
        nearest = min(max(nearest, 0), bins - 1)
        first, last = start_B[max(nearest - 1, 0)], start_B[min(nearest + 2, bins)]
        above = keys - last
        for index_near in range(first, last):
            above += _weight(ranked_N[index_near]) / total > epsilon_P[i]
        above_P[i] = above


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
def _cut(k_W, order_W, ranked_N, start_B, shift, lowest, first_S, mass_S, square_S, largest_S):
    """Cut a row where windows end; return the number of segments.

    Segment s has the ranks first_S[s] .. first_S[s + 1] - 1, a mass, a sum of squares and a largest weight.
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
        last = keys - first_S[s]
        mass_S[s], square_S[s] = _mass_and_squares(ranked_N[keys - first_S[s + 1] : last])
        largest_S[s] = _weight(ranked_N[last - 1]) if last else 0.0
    return segments


@_helper
def _deal(first_S, segments, ranked_N, tile_bits, next_L, runs_L, dealt_N, run_N):
    """Deal a ranked row into tiles of 1 << tile_bits keys, segment after segment.

    Tile l has the places from l << tile_bits on: of dealt_N for its keys, and of run_N for its runs_L[l] runs. A run is
    its segment, in the upper half of an integer, and the place where it stops.
    """
    keys, tiles = ranked_N.shape[0], next_L.shape[0]
    for tile in range(tiles):
        next_L[tile] = tile << tile_bits
        runs_L[tile] = 0
    for s in range(segments):
        for index in range(keys - first_S[s + 1], keys - first_S[s]):
            packed = ranked_N[np.uint32(index)]
            of_key = np.uint64(~np.uint32(packed & np.uint64(0xFFFFFFFF))) >> np.uint64(tile_bits)
            dealt_N[np.uint64(next_L[of_key])] = packed
            next_L[of_key] += 1
        for tile in range(tiles):
            first, runs = tile << tile_bits, runs_L[tile]
            before = _stop(run_N[first + runs - 1]) if runs else first
            if next_L[tile] > before:
                run_N[first + runs] = (np.uint64(s) << np.uint64(32)) | np.uint64(next_L[tile])
                runs_L[tile] += 1


@_helper
def _stop(run):
    """Return the place where a run stops."""
    return np.int64(run & np.uint64(0xFFFFFFFF))


@_helper
def _add(packed_N, start, stop, values, sum_V, lanes):
    """Add w v of the keys at places start .. stop - 1 to sums; float64 takes over from float32 after MOST keys."""
    packed, sums = np.int64(packed_N.ctypes.data), np.int64(sum_V.ctypes.data)
    for place in range(start, stop, MOST):
        add_run(packed + 8 * place, min(MOST, stop - place), values, sums, lanes)


@_helper
def _add_tile(run_N, runs, first, dealt_N, values, sum_SV, lanes):
    """Add the runs of a row's tile, whose places begin at `first`, to the sums of their segments."""
    start = first
    for i in range(first, first + runs):
        stop = _stop(run_N[i])
        _add(dealt_N, start, stop, values, sum_SV[np.int64(run_N[i] >> np.uint64(32))], lanes)
        start = stop


@_helper
def _windows(given_W, source_W, k_E, above_P, n, k_W):
    """Fill in the keys that each window keeps: as given, or those of a tolerance, or those above a threshold."""
    tolerances = k_E.shape[0]
    for w in range(k_W.shape[0]):
        if source_W[w] < 0:
            k_W[w] = given_W[w]
        elif source_W[w] < tolerances:
            k_W[w] = min(max(k_E[source_W[w]], 1), n)
        else:
            k_W[w] = min(max(above_P[source_W[w] - tolerances], 1), n)


@_compiled
def resolve(
    logits_RN,
    highest_R,
    learned_sink_R,
    weight_RN,
    bits_RN,
    shift,
    lowest,
    limit_E,
    epsilon_P,
    start_TB,
    next_TB,
    ranked_TN,
    moment_RM,
    k_RE,
    above_RP,
):
    """Fill in the moments of each row, the smallest k of each tolerance, and #{j: w_j / total > eps}.

    `limit_E` rises. Invisible keys count as keys of weight 0. `learned_sink_R` are the
    weights of learned sinks, which are no keys; 0 for none. The bin of a weight is its bit pattern without the last
    `shift` bits, less `lowest`. `start_TB`, with one entry more than there are bins, and `ranked_TN` are scratch of
    each thread.
    """
    (rows, keys), threads = weight_RN.shape, ranked_TN.shape[0]
    for t in numba.prange(threads):
        ranked_N, start_B = ranked_TN[t, :keys], start_TB[t]
        for r in range(t, rows, threads):
            _rank(bits_RN[r], shift, lowest, start_B, next_TB[t], ranked_N)
            _moments(logits_RN[r], weight_RN[r], np.float64(highest_R[r]), learned_sink_R[r], moment_RM[r])
            _resolve(ranked_N, start_B, shift, lowest, moment_RM[r, 4], limit_E, epsilon_P, k_RE[r], above_RP[r])


@_compiled
def measure(
    logits_RN,
    highest_R,
    learned_sink_R,
    weight_RN,
    bits_RN,
    shift,
    lowest,
    limit_E,
    epsilon_P,
    start_TB,
    next_TB,
    ranked_TN,
    moment_RM,
    k_RE,
    above_RP,
    value_NV,
    given_RW,
    source_W,
    tile_bits,
    dealt_TCN,
    run_TCN,
    sum_TCSV,
    lanes,
    k_RW,
    measure_RWM,
    output_R,
):
    """Do what `resolve` does; fill in k and the measures of every window, and the squared norm of the exact output.

    Window w keeps given_RW[r, w] keys if source_W[w] < 0, else those of tolerance source_W[w], or, from the number of
    tolerances on, those above a threshold; within [1, n]. `dealt_TCN`, `run_TCN` and `sum_TCSV` are scratch; S is one
    more than there are windows. V is a multiple of LANES, and `lanes` a tuple of V / LANES zeros: its length is a
    constant to the compiler.
    """
    rows, keys = weight_RN.shape
    windows, (threads, chunk) = k_RW.shape[1], dealt_TCN.shape[:2]
    tiles = (keys + (1 << tile_bits) - 1) >> tile_bits
    for t in numba.prange(threads):
        ranked_N, start_B = ranked_TN[t, :keys], start_TB[t]
        first_CS = np.empty((chunk, windows + 2), np.int64)
        segments_C = np.empty(chunk, np.int64)
        order_CW = np.empty((chunk, windows), np.int64)
        mass_CS = np.empty((chunk, windows + 1))
        square_CS = np.empty((chunk, windows + 1))
        largest_CS = np.empty((chunk, windows + 1))
        next_L = np.empty(tiles, np.int64)
        runs_CL = np.empty((chunk, tiles), np.int64)
        values = np.int64(value_NV.ctypes.data)
        output_V = np.empty(value_NV.shape[1])
        order_CW[chunk - 1] = np.arange(windows)
        for r0 in range(t * chunk, rows, threads * chunk):
            num_rows = min(chunk, rows - r0)
            for i in range(num_rows):
                r = r0 + i
                _rank(bits_RN[r], shift, lowest, start_B, next_TB[t], ranked_N)
                _moments(logits_RN[r], weight_RN[r], np.float64(highest_R[r]), learned_sink_R[r], moment_RM[r])
                _resolve(ranked_N, start_B, shift, lowest, moment_RM[r, 4], limit_E, epsilon_P, k_RE[r], above_RP[r])
                _windows(given_RW[r], source_W, k_RE[r], above_RP[r], np.int64(moment_RM[r, 0]), k_RW[r])
                order_CW[i] = order_CW[i - 1]  # of the row before: nearly right
                _rising(k_RW[r], order_CW[i])
                segments_C[i] = _cut(
                    k_RW[r],
                    order_CW[i],
                    ranked_N,
                    start_B,
                    shift,
                    lowest,
                    first_CS[i],
                    mass_CS[i],
                    square_CS[i],
                    largest_CS[i],
                )
                sum_TCSV[t, i, : segments_C[i]] = 0
                if tiles == 1:
                    for s in range(segments_C[i]):
                        start, stop = keys - first_CS[i, s + 1], keys - first_CS[i, s]
                        _add(ranked_N, start, stop, values, sum_TCSV[t, i, s], lanes)
                else:
                    dealt_N, run_N = dealt_TCN[t, i], run_TCN[t, i]
                    _deal(first_CS[i], segments_C[i], ranked_N, tile_bits, next_L, runs_CL[i], dealt_N, run_N)
            for tile in range(tiles if tiles > 1 else 0):
                for i in range(num_rows):
                    dealt_N, run_N, first = dealt_TCN[t, i], run_TCN[t, i], tile << tile_bits
                    _add_tile(run_N, runs_CL[i, tile], first, dealt_N, values, sum_TCSV[t, i], lanes)
            for i in range(num_rows):
                r = r0 + i
                segments, total = segments_C[i], moment_RM[r, 4]
                sum_SV = sum_TCSV[t, i, :segments]
                output_R[r] = _total(sum_SV, output_V, lanes) / (total * total)
                _measure(
                    first_CS[i],
                    mass_CS[i, :segments],
                    square_CS[i, :segments],
                    largest_CS[i, :segments],
                    sum_SV,
                    output_V,
                    total,
                    learned_sink_R[r],
                    k_RW[r],
                    order_CW[i],
                    lanes,
                    measure_RWM[r],
                )


@_sum
def _take(tail_V, sum_V, output_V, odds, lanes):
    """Add a segment to the tail; return the squared norms of tail and of tail - odds x (output - tail)."""
    truncated, renormalised = 0.0, 0.0
    for v in range(LANES * len(lanes)):
        tail = tail_V[v] + sum_V[v]
        tail_V[v] = tail
        truncated += tail * tail
        difference = tail - odds * (output_V[v] - tail)
        renormalised += difference * difference
    return truncated, renormalised


@_sum
def _total(output_SV, output_V, lanes):
    """Fill in the sum over segments; return its squared norm."""
    output_V[:] = 0
    for s in range(output_SV.shape[0] - 1, -1, -1):
        for v in range(LANES * len(lanes)):
            output_V[v] += output_SV[s, v]
    return (output_V * output_V).sum()


@_helper
def _measure(
    first_S, mass_S, square_S, largest_S, output_SV, output_V, total, learned_sink, k_W, order_W, lanes, measure_WM
):
    """Turn segments into measures; theory.md [T1]-[T6], as `experiments.reference.subset` does.

    A learned sink is kept by every window: its weight is part of `total`.
    """
    segments, width = mass_S.shape[0], output_SV.shape[1]
    kept_S = np.empty(segments)  # mass and squares of segments 0 .. s-1
    kept_square_S = np.empty(segments)
    kept, kept_square = learned_sink, learned_sink * learned_sink
    for s in range(segments):
        kept_S[s] = kept
        kept_square_S[s] = kept_square
        kept += mass_S[s]
        kept_square += square_S[s]
    tail_V = np.zeros(width)
    dropped, dropped_square = 0.0, 0.0
    w = k_W.shape[0] - 1
    for s in range(segments - 1, 0, -1):
        dropped += mass_S[s]
        dropped_square += square_S[s]
        odds = dropped / kept_S[s]
        truncated, renormalised = _take(tail_V, output_SV[s], output_V, odds, lanes)
        tau = dropped / total
        next_p, first_p = largest_S[s] / total, max(1.0, learned_sink) / total
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
