import numpy as np
import pytest

from analysis.statistics import closed_forms as cf

C = np.array([0.2, 0.4, 0.6, 0.8, 0.9])
# theory.md section 3: n, s, measured dropped mass and [G1] at each C, [G3] at eps = 1e-3
TABLE = [
    (16384, 0.4, [0.982, 0.934, 0.787, 0.428, 0.174], [0.982, 0.934, 0.787, 0.428, 0.174], 34.5, 33.9),
    (16384, 0.8, [0.815, 0.612, 0.332, 0.078, 0.015], [0.800, 0.601, 0.326, 0.077, 0.014], 149.0, 146.5),
    (16384, 1.2, [0.469, 0.221, 0.062, 0.005, 0.000], [0.343, 0.161, 0.045, 0.004, 0.000], 91.2, 72.6),
    (262144, 0.4, [0.993, 0.967, 0.854, 0.490, 0.197], [0.993, 0.967, 0.854, 0.490, 0.197], 0.12, 0.44),
    (262144, 0.8, [0.862, 0.666, 0.361, 0.076, 0.012], [0.857, 0.667, 0.360, 0.075, 0.012], 98.3, 93.8),
    (262144, 1.2, [0.489, 0.212, 0.049, 0.003, 0.000], [0.365, 0.163, 0.038, 0.002, 0.000], 100.3, 78.2),
]


@pytest.mark.parametrize(("n", "s", "measured", "form", "count", "count_form"), TABLE)
def test_table_of_the_theory(n, s, measured, form, count, count_form):
    sigma = cf.deviation(n, s=s)
    tau = cf.dropped_mass(np.ceil(n**C), n, sigma)
    np.testing.assert_allclose(tau, form, atol=2e-3)
    assert cf.count_above(1e-3, n, sigma) == pytest.approx(count_form, abs=0.06)
    if s <= 0.8:
        np.testing.assert_allclose(tau, measured, atol=0.03)


@pytest.fixture(scope="module")
def simulated():
    """Sorted probabilities of 64 rows, drawn here and now, at n = 2^14 and sigma = 0.4 sqrt(ln n)."""
    n = 2**14
    sigma = 0.4 * np.sqrt(np.log(n))
    p = np.exp(sigma * np.random.default_rng(1).normal(size=(64, n)))
    return n, sigma, -np.sort(-p / p.sum(1, keepdims=True), axis=1)


def test_dropped_mass_and_its_inverse_agree_with_simulation(simulated):
    n, sigma, p = simulated
    tail = 1 - np.cumsum(p, 1)
    for k in (128, 1024, 8192):
        assert tail[:, k - 1].mean() == pytest.approx(float(cf.dropped_mass(k, n, sigma)), abs=0.01)
    for eta in (0.5, 0.1, 0.01):
        k_min = (tail > eta).sum(1) + 1
        k = float(cf.smallest_window(eta, n, sigma))
        assert k_min.mean() == pytest.approx(k, rel=0.03)
        assert float(cf.dropped_mass(k, n, sigma)) == pytest.approx(eta, rel=1e-9)


def test_count_agrees_with_simulation(simulated):
    n, sigma, p = simulated
    assert (p > 1e-3).sum(1).mean() == pytest.approx(float(cf.count_above(1e-3, n, sigma)), rel=0.1)


def test_squares_and_output_error_agree_with_simulation(simulated):
    n, sigma, p = simulated
    k = 2048
    square = p**2
    share = (square[:, k:].sum(1) / square.sum(1)).mean()
    assert share == pytest.approx(float(cf.dropped_square(k, n, sigma)), abs=0.02)
    draw = np.random.default_rng(2)
    whole, truncated, renormalised = 0.0, 0.0, 0.0
    for row in p[:16]:
        values = draw.normal(size=(n, 32))
        o, kept = row @ values, row[:k] @ values[:k]
        whole += (o**2).sum()
        truncated += ((o - kept) ** 2).sum()
        renormalised += ((o - kept / row[:k].sum()) ** 2).sum()
    assert np.sqrt(truncated / whole) == pytest.approx(float(cf.output_error_truncated(k, n, sigma)), rel=0.1)
    expected = float(cf.output_error_renormalised(k, n, sigma))
    assert np.sqrt(renormalised / whole) == pytest.approx(expected, rel=0.1)


def test_critical_exponent_is_that_of_the_random_energy_model():
    np.testing.assert_allclose(cf.critical_exponent([0.0, 1.0, np.sqrt(2), 3.0]), [1, 0.5, 0, 0], atol=1e-12)


def test_local_exponent_is_the_derivative_of_the_window():
    for s, n, eta in ((0.3, 2**10, 0.5), (0.8, 2**20, 0.1), (1.0, 2**14, 0.05)):
        step = 1e-4
        k = [cf.smallest_window(eta, m, cf.deviation(m, s=s)) for m in np.exp(np.log(n) + np.array([-step, step]))]
        slope = np.diff(np.log(k)).item() / (2 * step)
        assert float(cf.local_exponent_growing(eta, n, s)) == pytest.approx(slope, abs=1e-6)
    assert float(cf.local_exponent_growing(0.1, 2**20, 0.8)) == pytest.approx(0.77, abs=0.005)
    assert float(cf.local_exponent(0.1, 2.0, 0.0)) == 1.0


def test_local_exponent_survives_a_deep_tail():
    assert np.isfinite(cf.local_exponent(0.1, 60.0, 0.1))


def test_deviation_takes_one_of_two():
    assert float(cf.deviation(100, sigma=2.0)) == 2.0
    for both in ({}, {"s": 1.0, "sigma": 1.0}):
        with pytest.raises(ValueError, match="exactly one"):
            cf.deviation(100, **both)
