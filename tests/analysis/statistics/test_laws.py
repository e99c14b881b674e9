import numpy as np
import pytest
from scipy.optimize import least_squares
from statsmodels.tools.eval_measures import aicc

from analysis.statistics.laws import LAWS, Kept, information

LAW = {law.name: law for law in LAWS}
N = np.array([512.0, 1024, 2048, 4096, 8192])
X = np.log(N)
EVERY = np.ones(5, dtype=bool)
TRUE = {
    "constant": (np.log([40.0]), 40 + 0 * N),
    "log": ([-50.0, 20.0], -50 + 20 * X),
    "power": ([np.log(3.0), 0.6], 3 * N**0.6),
    "linear": (np.log([0.1]), 0.1 * N),
    "affine": ([30.0, 0.05], 30 + 0.05 * N),
    "power_log": ([np.log(2.0), 0.3], 2 * N**0.3 * X),
}


@pytest.mark.parametrize("name", list(TRUE))
def test_each_law_recovers_itself(name):
    parameters, k = TRUE[name]
    fitted = LAW[name].fit(np.log(k)[None], X, EVERY[None])
    np.testing.assert_allclose(fitted[0], parameters, rtol=1e-6)
    np.testing.assert_allclose(LAW[name].log_k(fitted, X)[0], np.log(k), rtol=1e-7)


@pytest.mark.parametrize("name", list(TRUE))
def test_each_fit_is_the_least_squares_fit_of_scipy(name):
    law, draw = LAW[name], np.random.default_rng(3)
    for mask in (EVERY, np.array([True, False, True, True, True])):
        for other in TRUE:
            y = np.log(TRUE[other][1]) + 0.3 * draw.normal(size=5)
            ours = law.fit(y[None], X, mask[None])
            best = least_squares(
                lambda p, y=y, mask=mask: np.nan_to_num(law.log_k(p, X) - y, neginf=-1e3)[mask],
                np.array(ours[0]) + 1e-2 * np.abs(ours[0]),
                x_scale=np.abs(ours[0]) + 1e-3,
                xtol=1e-14,
                ftol=1e-14,
            )
            error = law.squared_error(y[None], X, mask[None], ours)[0]
            assert error <= 2 * best.cost * (1 + 1e-6)


def test_the_logarithm_fits_a_batch_as_it_fits_one_by_one():
    y = np.random.default_rng(4).normal(4, 1, size=(7, 11, 5))
    mask = np.broadcast_to(np.random.default_rng(5).random((11, 5)) < 0.9, y.shape).copy()
    mask[..., 0] = mask[..., 2] = mask[..., 4] = True
    together = LAW["log"].fit(y, X, mask)
    alone = LAW["log"].fit(y[3, 5][None], X, mask[3, 5][None])
    np.testing.assert_allclose(together[3, 5], alone[0])


def test_a_logarithm_that_falls_is_fitted_too():
    k = 100 - 8 * X
    np.testing.assert_allclose(LAW["log"].fit(np.log(k)[None], X, EVERY[None])[0], [100, -8], rtol=1e-6)


def test_a_logarithm_predicts_no_keys_where_it_crosses_zero():
    assert LAW["log"].log_k(np.array([-50.0, 10.0]), np.array([4.0, 6.0])).tolist() == [-np.inf, np.log(10)]


def test_aicc_is_that_of_statsmodels_up_to_a_constant():
    for law in LAWS:
        m, rss = 9, 0.7
        likelihood = -m / 2 * (np.log(2 * np.pi * rss / m) + 1)
        theirs = aicc(likelihood, m, len(law.parameters) + 1) - m * (np.log(2 * np.pi) + 1)
        assert information(np.array([rss]), np.array([m]), law)[0] == pytest.approx(theirs)


def test_aicc_is_undefined_with_too_few_lengths():
    scores = {law.name: information(np.array([0.1]), np.array([4]), law)[0] for law in LAWS}
    assert {name for name, score in scores.items() if np.isnan(score)} == {"log", "power", "affine", "power_log"}


def test_fits_that_are_asked_for_again_are_kept_up_to_a_number_of_bytes():
    kept, made = Kept(most=100), []

    def result(name):
        return kept.get(name, lambda: made.append(name) or np.zeros(5))

    for name in (b"a", b"b", b"a", b"c", b"a", b"b"):
        result(name)
    assert made == [b"a", b"b", b"c", b"b"]  # c puts out b, which was asked for longer ago than a
    assert kept.bytes <= 100
    with pytest.raises(ValueError, match="read-only"):
        result(b"a")[0] = 1


def test_only_the_same_points_have_the_same_fit():
    y = np.log(2 + 3 * X)[None] + np.linspace(0, 0.1, len(X))
    few = EVERY.copy()
    few[-1] = False
    first = LAW["log"].fit(y, X, EVERY[None])
    np.testing.assert_array_equal(LAW["log"].fit(y.copy(), X, EVERY[None]), first)
    for other in ((y + 0.1 * X, X, EVERY[None]), (y, X * 1.1, EVERY[None]), (y, X, few[None])):
        assert not np.allclose(LAW["log"].fit(*other), first, rtol=1e-6)
