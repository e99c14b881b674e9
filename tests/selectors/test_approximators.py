"""The special cases in which each approximator is exact, and what its theorem promises."""

import itertools
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ive

from experiments.cache import Earlier
from experiments.errors import UserError
from experiments.selectors.conv_basis import Asked, ConvBasis, OfHead, best_starts, copied_row
from experiments.selectors.coreset import Coreset, Weighted, pivots
from experiments.selectors.logit_sketch import LogitSketch
from experiments.selectors.low_rank import LowRank
from experiments.selectors.mean_value import MeanValue
from experiments.selectors.moment_tail import MomentTail, features, log_mean_exp
from experiments.selectors.oracle import Oracle
from experiments.selectors.polynomial import (
    Polynomial,
    chebyshev,
    num_features,
    sums_of_monomials,
    taylor,
)
from experiments.selectors.shared import Shared
from experiments.selectors.sinks import Sinks
from experiments.selectors.tail_state import RunningSums
from experiments.selectors.verified import Verified
from experiments.sources.gaussian import Gaussian
from experiments.sources.tensor import Triples, pairs
from tests.selectors.test_sinks import rows_at


def drawn(rows=3, keys=256, dims=16, deviation=1.0, seed=0):
    """Return rows of the last position, with Gaussian logits of a deviation, and what was asked before them."""
    generator = torch.manual_seed(seed)
    base = rows_at([keys - 1] * rows, keys)
    key_ND, value_NV, query_ND = (torch.randn(keys, dims, generator=generator) for _ in range(3))
    query_RD = torch.nn.functional.normalize(torch.randn(rows, dims, generator=generator), dim=-1) * deviation

    def logits(start, stop):
        hidden_TN = torch.arange(stop) > torch.arange(start, stop)[:, None]
        return (query_ND[start:stop] @ key_ND[:stop].T).masked_fill(hidden_TN, -torch.inf)[None]

    earlier = Earlier(logits, lambda start, stop: query_ND[None, start:stop])
    return replace(base, key_ND=key_ND, value_NV=value_NV, query_RD=query_RD, earlier=earlier)


def estimated(method, rows, k):
    """Return w [R, N] of a method within k keys, and the exact probabilities."""
    logsumexp_R = torch.logsumexp(rows.logits().double(), -1)
    answer = method.prepare(rows.cache())(rows.questions())
    w_RN = answer.row(torch.full((len(rows),), k), logsumexp_R)
    return w_RN, (rows.logits().double() - logsumexp_R[:, None]).exp()


def total_variation(w_RN, p_RN):
    return (w_RN / w_RN.sum(-1, keepdim=True) - p_RN).abs().sum(-1) / 2


# moment_tail


def test_gaussian_logits_have_the_normaliser_of_their_moments():
    for deviation, bound in ((0.3, 0.01), (0.8, 0.06)):
        rows = drawn(rows=6, keys=8192, deviation=deviation)
        w_RN, _ = estimated(MomentTail(), rows, 40)
        assert float(w_RN.sum(-1).log().abs().max()) < bound


@pytest.mark.parametrize("degree", [0, 2])
def test_equal_keys_in_the_tail_are_one_key(degree):
    rows = drawn()
    key_ND = rows.key_ND.clone()
    key_ND[4:-8] = key_ND[4]
    w_RN, p_RN = estimated(MomentTail(degree=degree), replace(rows, key_ND=key_ND), 40)
    torch.testing.assert_close(w_RN, p_RN, rtol=1e-4, atol=1e-9)


def test_the_sum_of_weights_is_frozen_where_no_gaussian_reaches_it():
    log_n = torch.tensor(math.log(1000.0))
    assert log_mean_exp(torch.tensor(2.0), log_n) == 1.0
    at = 2 * log_n
    assert float(log_mean_exp(at * 0.999, log_n)) == pytest.approx(float(log_mean_exp(at * 1.001, log_n)), rel=1e-2)
    assert float(log_mean_exp(torch.tensor(400.0), log_n)) == pytest.approx(
        20 * math.sqrt(2 * float(log_n)) - float(log_n), rel=1e-5
    )


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), min_size=2, max_size=6), degree=st.sampled_from([0, 2]))
def test_sums_over_a_moving_range_are_those_of_the_range(cuts, degree):
    key_ND, value_NV = torch.randn(60, 5, generator=torch.manual_seed(3)), torch.randn(60, 3)
    sums = RunningSums(key_ND, value_NV, partial(features, key_ND[0].double(), degree))
    for start, stop in itertools.pairwise(cuts):
        low, high = sorted((start, stop))
        expected = features(key_ND[0].double(), degree, key_ND[low:high].double(), value_NV[low:high].double())
        for found, part in zip(sums.between(low, high), expected, strict=True):
            torch.testing.assert_close(found, part, rtol=1e-9, atol=1e-9)


# polynomial


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_sums_of_monomials_put_out_what_the_polynomial_of_the_logits_does(degree):
    rows = drawn(dims=4, keys=64)
    method = Polynomial(degree=degree, basis="taylor")
    k = 40 + num_features(degree, 4)
    rows = replace(rows, key_ND=rows.key_ND.repeat(4, 1), value_NV=rows.value_NV.repeat(4, 1))
    rows = replace(rows, position_R=torch.full((3,), 255), visible_RN=None, causal=True, length=256)
    answer = method.prepare(rows.cache())(rows.questions())
    w_RN, _ = estimated(method, rows, k)
    expected_RV = (w_RN / w_RN.sum(-1, keepdim=True)) @ rows.value_NV.double()
    torch.testing.assert_close(answer.output(torch.full((3,), k)), expected_RV, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("basis", ["taylor", "chebyshev"])
def test_a_high_degree_is_exact(basis):
    rows = drawn(dims=4, deviation=2.0)
    exact_RN = torch.ones_like(rows.logits(), dtype=torch.bool)
    function = taylor if basis == "taylor" else chebyshev
    log_unit_R1, weight_RN = function(rows.logits().double(), exact_RN, 40)
    torch.testing.assert_close(weight_RN * log_unit_R1.exp(), rows.logits().double().exp(), rtol=1e-9, atol=1e-9)


def test_the_state_is_of_one_size_whatever_n():
    sizes = set()
    for n in (256, 4096):
        key_ND = torch.randn(n, 4)
        sums = sums_of_monomials(key_ND.double(), key_ND.double(), 2)
        sizes.add(sum(part.numel() for part in sums))
    assert sizes == {num_features(2, 4) * 5 + 4}


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_small_logits_err_by_a_power_of_their_deviation(degree):
    errors = []
    for deviation in (0.02, 0.04):
        logits_RN = deviation * torch.randn(4, 4096, generator=torch.manual_seed(1), dtype=torch.float64)
        log_unit_R1, weight_RN = chebyshev(logits_RN, torch.ones_like(logits_RN, dtype=torch.bool), degree)
        w_RN = weight_RN * (log_unit_R1 - logits_RN.logsumexp(-1, keepdim=True)).exp()
        errors.append(float(total_variation(w_RN, torch.softmax(logits_RN, -1)).mean()))
    assert math.log2(errors[1] / errors[0]) == pytest.approx(degree + 1, abs=0.15)


def chebyshev_bound(half, degree):
    """Return the most that chebyshev's weights are off, relative to the largest: 2 sum of e^-a I_m(a) over m > g."""
    return float(2 * ive(np.arange(degree + 1, degree + 400), half).sum())


@pytest.mark.parametrize("half", [1.0, 5.0, 20.0, 50.0])
@pytest.mark.parametrize("epsilon", [1e-2, 1e-4, 1e-6])
def test_the_degree_of_the_theorem_is_enough(half, epsilon):
    degree = math.ceil(math.sqrt(2 * half * math.log(2 / epsilon))) + 3
    assert chebyshev_bound(half, degree) <= epsilon
    logits_RN = torch.linspace(-half, half, 501, dtype=torch.float64)[None]
    log_unit_R1, weight_RN = chebyshev(logits_RN, torch.ones_like(logits_RN, dtype=torch.bool), degree)
    off_RN = (weight_RN - (logits_RN - log_unit_R1).exp()).abs()
    assert float(off_RN.max()) <= chebyshev_bound(half, degree) + 1e-12


def test_a_polynomial_of_degree_two_is_refused_no_row_but_has_none_below_its_state():
    rows = drawn(dims=16, keys=256)
    w_RN, _ = estimated(Polynomial(degree=2), rows, 60)  # 81 keys' worth of sums
    assert w_RN.isnan().all()


# conv_basis


def of_lags(function, keys):
    """Return the columns of a matrix whose logits are a function of key and lag, with one-hot keys."""
    position_N = torch.arange(keys)
    lag_NN = position_N[:, None] - position_N
    return OfHead(function(lag_NN, position_N[None]).double(), torch.eye(keys).double())


def test_logits_of_the_distance_alone_are_one_base():
    columns = of_lags(lambda lag, key: torch.sin(0.3 * lag) - 0.01 * lag, 40)
    row_N = copied_row(columns, torch.tensor([0]), 39)
    torch.testing.assert_close(row_N, columns.query_ND[39])


def test_two_blocks_are_two_bases_and_the_search_finds_where_they_meet():
    def blocks(lag, key):
        return torch.where(key < 25, torch.sin(0.3 * lag), 2 * torch.cos(0.2 * lag)).expand(len(lag), -1)

    columns = of_lags(blocks, 60)
    earlier = Earlier(lambda start, stop: None, lambda start, stop: columns.query_ND[None, start:stop])
    cache = replace(rows_at([59], 60).cache(), key_GND=columns.key_ND[None], earlier=[earlier])
    starts_RB = Asked(cache, 0, 8).searched_starts(torch.tensor([0]), torch.tensor([60]), 3, 0.99)
    assert starts_RB[0, :2].tolist() == [0, 25]
    assert best_starts(columns, 2) == [0, 25]
    torch.testing.assert_close(copied_row(columns, torch.tensor([0, 25]), 59), columns.query_ND[59])


def convolved_output(columns, starts, value_NV):
    """Return the outputs of all rows [N, V] by one FFT per base, in O(b n V log n)."""
    n = len(value_NV)
    one_NX = torch.cat([value_NV.double(), torch.ones(n, 1, dtype=torch.float64)], dim=1)
    total_NX = torch.zeros_like(one_NX)
    for start, stop in zip(starts, [*starts[1:], n], strict=True):
        weight_T, part_NX = torch.zeros(2 * n).double(), torch.zeros(2 * n, one_NX.shape[1]).double()
        weight_T[: n - start] = columns.kernel(start).exp()
        part_NX[start:stop] = one_NX[start:stop]
        product = torch.fft.rfft(weight_T)[:, None] * torch.fft.rfft(part_NX, dim=0)
        total_NX += torch.fft.irfft(product, n=2 * n, dim=0)[:n]
    return total_NX[:, :-1] / total_NX[:, -1:]


def test_the_convolution_puts_out_what_the_rows_do():
    generator = torch.manual_seed(5)
    query_ND, key_ND = 2 * torch.randn(50, 6, generator=generator).double(), torch.randn(50, 6, generator=generator)
    value_NV, starts = torch.randn(50, 3, generator=generator), [0, 7, 8, 30]
    columns = OfHead(query_ND, key_ND.double())
    output_NV = convolved_output(columns, starts, value_NV)
    for own in (0, 6, 7, 20, 49):
        part = OfHead(query_ND[: own + 1], key_ND[: own + 1].double())
        row_N = copied_row(part, torch.tensor([start for start in starts if start <= own]), own)
        torch.testing.assert_close(
            output_NV[own], torch.softmax(row_N, 0) @ value_NV[: own + 1].double(), rtol=1e-9, atol=1e-9
        )


def test_a_base_of_every_key_is_exact_and_the_best_starts_beat_the_search():
    rows = drawn(keys=48, rows=1, deviation=2.0)
    exact = ConvBasis(mode="best")
    w_RN, p_RN = estimated(exact, rows, 48)
    torch.testing.assert_close(w_RN, p_RN, rtol=1e-5, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.floats(0.01, 0.5))
def test_logits_off_by_epsilon_err_as_promised(seed, size):
    generator = torch.manual_seed(seed)
    logits_N, value_NV = torch.randn(40, generator=generator).double(), torch.randn(40, 3, generator=generator).double()
    off_N = size * (2 * torch.rand(40, generator=generator).double() - 1)
    p_N, q_N = torch.softmax(logits_N, 0), torch.softmax(logits_N + off_N, 0)
    epsilon = float(off_N.abs().max())
    assert float((p_N - q_N).abs().sum()) / 2 <= math.expm1(2 * epsilon) / 2
    assert float(((p_N - q_N) @ value_NV).abs().max()) <= math.expm1(2 * epsilon) * float(value_NV.abs().max())


# logit_sketch


def test_as_many_orthogonal_projections_as_channels_are_exact():
    rows = drawn(deviation=3.0)
    w_RN, p_RN = estimated(LogitSketch(projections=16, kind="orthogonal"), rows, 1)
    torch.testing.assert_close(w_RN, p_RN, rtol=1e-4, atol=1e-9)


def test_a_sketched_logit_is_unbiased_and_varies_as_stated():
    generator = torch.manual_seed(2)
    q_D, k_D = torch.randn(32, generator=generator).double(), torch.randn(32, generator=generator).double()
    sketched = []
    for draw in range(4000):
        sketch_DM = LogitSketch(projections=8, draw=draw)._sketch(32)
        sketched.append(float((q_D @ sketch_DM) @ (k_D @ sketch_DM)))
    logit, found = float(q_D @ k_D), torch.tensor(sketched)
    variance = (float(q_D @ q_D) * float(k_D @ k_D) + logit**2) / 8
    assert float(found.mean()) == pytest.approx(logit, abs=4 * math.sqrt(variance / 4000))
    assert float(found.var()) == pytest.approx(variance, rel=0.1)


def test_where_the_theorem_holds_the_uniform_row_meets_it_too():
    """X of n = 64, d = 4096 with logits up to r = 0.1: every p_j lies within 2 r of 1 / n, whatever is sketched."""
    generator, r = torch.manual_seed(0), 0.1
    x_ND = torch.randn(64, 4096, generator=generator).double()
    x_ND *= (r / (x_ND @ x_ND.T).abs().max()).sqrt()
    p_NN = torch.softmax(x_ND @ x_ND.T, -1)
    uniform = float((p_NN - 1 / 64).abs().max())
    sketch_DM = torch.randn(4096, 64, generator=generator).double() / 8
    sketched = torch.softmax((x_ND @ sketch_DM) @ (x_ND @ sketch_DM).T, -1)
    assert uniform <= 2 * r / 64 * (1 + r)
    uniform_tv, sketched_tv = ((p_NN - part).abs().sum(-1).mean() / 2 for part in (1 / 64, sketched))
    assert sketched_tv > uniform_tv  # a sketch of m = n numbers is worse than none


# coreset and its floor


def test_a_coreset_of_all_keys_is_exact_whatever_its_coordinates():
    rows = drawn(keys=64, deviation=1.5)
    cache = rows.cache()
    key_PD, all_P = cache.key_GND[0].double(), torch.ones(64, dtype=torch.bool)
    query_RD = rows.query_RD.double()
    for factor in (0.5, 1.0, 2.0):
        coreset = Weighted.draw(key_PD, all_P, all_P, query_RD, factor, 64, 0)
        log_unit_R1, weight_RN = coreset.weights(query_RD, 64)
        torch.testing.assert_close(
            (weight_RN.log() + log_unit_R1).exp(), (query_RD @ key_PD.T).exp(), rtol=1e-3, atol=1e-6
        )


def test_one_of_equal_keys_stands_for_all():
    key_PD = torch.randn(5, 8, generator=torch.manual_seed(4)).double().repeat(20, 1)
    all_P, query_RD = torch.ones(100, dtype=torch.bool), torch.randn(3, 8).double()
    assert len(pivots(key_PD, 50, 0)) == 5
    coreset = Weighted.draw(key_PD, all_P, all_P, query_RD, 1.0, 50, 0)
    log_unit_R1, weight_RN = coreset.weights(query_RD, 100)
    torch.testing.assert_close(weight_RN * log_unit_R1.exp(), (query_RD @ key_PD.T).exp(), rtol=1e-5, atol=1e-8)


def test_no_coreset_has_a_smaller_error_than_the_floor_of_its_rank():
    positions = list(range(128, 192))
    base = rows_at(positions, 192)
    rows = replace(
        drawn(keys=192, rows=64, deviation=1.5, seed=2), position_R=base.position_R, visible_RN=base.visible_RN
    )
    common_N = torch.arange(192) < 129
    for k in (60, 100):
        w_RN, p_RN = estimated(
            Coreset(), replace(rows, position_R=torch.full((64,), 128), visible_RN=None, causal=True), k
        )
        floor_RN, _ = estimated(
            LowRank(), replace(rows, position_R=torch.full((64,), 128), visible_RN=None, causal=True), k
        )
        error, floor = ((part - p_RN)[:, common_N].norm() for part in (w_RN, floor_RN))
        assert error >= floor * (1 - 1e-9)


def test_the_floor_of_full_rank_is_exact_and_is_the_best_of_its_rank():
    rows = drawn(keys=96, rows=12, deviation=2.0)
    w_RN, p_RN = estimated(LowRank(), rows, 4)  # rank 4 * 32 // 18 = 7
    singular = torch.linalg.svdvals(p_RN)
    assert float((w_RN - p_RN).norm()) == pytest.approx(float(singular[7:].norm()), rel=1e-6)
    exact_RN, _ = estimated(LowRank(), rows, 40)
    torch.testing.assert_close(exact_RN, p_RN, rtol=1e-5, atol=1e-9)


# shared


def test_a_layer_that_asks_the_same_is_exact():
    rows = rows_at([20, 40], 64)
    rows = replace(rows, below=lambda layer, head_R, position_R: torch.softmax(rows.logits(), -1))
    for gap in (1,):
        w_RN, p_RN = estimated(Shared(gap=gap), rows, 1)
        torch.testing.assert_close(w_RN, p_RN, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(w_RN.sum(-1), torch.ones(2).double())
    none_RN, _ = estimated(Shared(gap=2), rows, 1)
    assert none_RN.isnan().all()


def test_the_best_head_below_is_the_one_nearest_on_earlier_rows():
    rows = rows_at([40, 50], 64)

    def below(layer, head_R, position_R):
        if int(head_R.max()) > 2:
            return None
        exact_TN = torch.softmax(rows.earlier.logits(0, 64)[0][position_R], -1)
        hidden_TN = torch.arange(64) > position_R[:, None]
        flat_TN = torch.softmax(torch.zeros_like(exact_TN).masked_fill(hidden_TN, -torch.inf), -1)
        return torch.where((head_R == 2)[:, None], exact_TN, flat_TN)

    rows = replace(rows, below=below)
    w_RN, _ = estimated(Shared(match="best"), rows, 1)
    expected_RN = below(0, torch.full((2,), 2), rows.position_R).double()
    torch.testing.assert_close(w_RN, expected_RN / expected_RN.sum(-1, keepdim=True))


def test_sharing_without_a_layer_below_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"source\.keep_layers=1"):
        Shared().prepare(replace(rows_at([9], 64), below=None).cache())


# verified


def test_a_verified_sample_is_unbiased_and_exact_where_the_tail_is_constant():
    rows = drawn(rows=2, keys=64, deviation=1.0)
    p_RN = torch.softmax(rows.logits().double(), -1)
    sums = []
    for draw in range(600):
        answer = Verified(exact=Sinks(), draw=draw).prepare(rows.cache())(rows.questions())
        order_RN, k_R = answer.order(), torch.full((2,), 20)
        kept_RN = torch.zeros(2, 64, dtype=torch.bool).scatter_(1, order_RN[:, :20], True)
        sums.append((answer.weight(k_R) * p_RN * kept_RN).sum(-1))
    sum_XR = torch.stack(sums)
    assert ((sum_XR.mean(0) - 1).abs() < 4 * sum_XR.std(0) / math.sqrt(600) + 0.01).all()
    flat = replace(rows, query_RD=torch.zeros_like(rows.query_RD))
    answer = Verified(exact=Sinks()).prepare(flat.cache())(flat.questions())
    kept_RN = torch.zeros(2, 64, dtype=torch.bool).scatter_(1, answer.order()[:, :20], True)
    torch.testing.assert_close((answer.weight(torch.full((2,), 20)) * kept_RN).sum(-1) / 64, torch.ones(2).double())


@pytest.mark.parametrize("exact", [Sinks(), Oracle()])
def test_half_of_a_verified_window_is_exact_and_all_of_a_whole_one(exact):
    rows = rows_at([30, 63], 64)
    answer = Verified(exact=exact).prepare(rows.cache())(rows.questions())
    weight_RN = answer.weight(torch.full((2,), 16))
    kept_RK = answer.order()[:, :16]
    certain_R = (weight_RN.gather(1, kept_RK) == 1).sum(-1)
    assert ((certain_R >= 8) & (certain_R <= 12)).all()
    assert (answer.weight(torch.tensor([31, 64])) == 1).all()


def test_what_keeps_no_keys_is_no_exact_part():
    with pytest.raises(UserError, match="keeps no keys"):
        Verified(exact=MeanValue())


# triples


def test_triples_with_ones_on_one_side_are_the_ordinary_keys():
    left_MD = torch.randn(6, 4)
    assert torch.equal(pairs(left_MD, torch.ones(1, 4)), left_MD)
    assert torch.equal(pairs(torch.ones(1, 4), left_MD), left_MD)
    right_MD = torch.randn(3, 4)
    assert sorted(map(tuple, pairs(left_MD, right_MD).tolist())) == sorted(
        map(tuple, pairs(right_MD, left_MD).tolist())
    )


def test_triples_have_the_logit_deviation_that_is_asked_for_and_are_no_gaussians():
    source = Triples(lengths=[65536], rows=64, samples=1, sigma=1.5)
    rows = source.draw(65536, 0, 0, torch.device("cpu"))
    logits_RN = rows.logits()
    assert float(logits_RN.std(-1).mean()) == pytest.approx(1.5, rel=0.1)
    standard_RN = (logits_RN - logits_RN.mean(-1, keepdim=True)) / logits_RN.std(-1, keepdim=True)
    excess = float((standard_RN**4).mean()) - 3
    ordinary = Gaussian(lengths=[65536], rows=64, samples=1, sigma=1.5).draw(65536, 0, 0, torch.device("cpu")).logits()
    ordinary = (ordinary - ordinary.mean(-1, keepdim=True)) / ordinary.std(-1, keepdim=True)
    assert excess > 0.05 > abs(float((ordinary**4).mean()) - 3)


def test_a_number_of_pairs_that_is_no_square_is_refused():
    with pytest.raises(UserError, match="give 961 or another square"):
        Triples(lengths=[1000], rows=1, samples=1)
