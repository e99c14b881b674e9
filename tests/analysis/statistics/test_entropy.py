"""Growth of entropy and of keys, of heads whose growth is known."""

import numpy as np
import pytest

from analysis import settings
from analysis.statistics.entropy import growth
from tests.analysis.synthetic import ETAS, crossed, law

HOW = settings.fits(settings.analysis())


def test_exponents_of_entropy_and_of_keys_are_those_made():
    exponents = np.linspace(0.2, 0.6, 30)
    rows = crossed(exponents, own=0.02, shared=0.02)
    rows["entropy"] = 1 + 0.5 * exponents[rows["head"]] * np.log(rows["n"])  # half of what the keys grow by
    rows = rows.assign(p_max=0.1, log_p_variance=1.0, kind="real", s=np.nan, sigma=np.nan, label="m", design="d")
    table, summary = growth(rows.assign(seed=0, run="r", cluster=rows["sample"]), 0.1, HOW)
    line = summary.iloc[0]
    assert line["heads"] == len(table) >= 25
    np.testing.assert_allclose(table["alpha"], exponents[table["head"]] / 2, atol=1e-9)
    np.testing.assert_allclose(table["C"], exponents[table["head"]], atol=0.05)
    assert line["alpha_mean"] == pytest.approx(exponents[table["head"]].mean() / 2)
    assert line["C_typical"] == pytest.approx(table["C"].mean())
    assert line["C_mean"] > line["C_typical"]  # heads that grow most weigh most
    assert line["beyond_low"] > 0.1
    assert line["gap"] == pytest.approx(0.2, abs=0.04)
    assert line["rank"] > 0.9


def test_the_exponent_of_the_mean_keys_is_that_of_lengths_at_which_rows_do_not_need_them_all():
    rows = law(lambda n: 22 * n**0.5, lengths=[2**i for i in range(6, 14)], heads=4, noise=0.005)
    for eta in ETAS:
        rows[f"k_min_{eta}"] = rows[f"k_min_{eta}"].clip(upper=rows["n"])  # up to 256 keys, all
    rows = rows.assign(entropy=np.log(rows["n"]), p_max=0.1, log_p_variance=1.0, kind="real", s=np.nan, sigma=np.nan)
    rows = rows.assign(label="m", design="d", seed=0, run="r", cluster=rows["sample"])
    line = growth(rows, 0.1, HOW)[1].iloc[0]
    assert line["C_mean"] == pytest.approx(0.5, abs=0.01)
    assert line["C_mean"] == pytest.approx(line["C_typical"], abs=0.01)
    assert line["C_mean_low"] <= line["C_mean"] <= line["C_mean_high"] < 0.55
    assert line["beyond"] == pytest.approx(-0.5, abs=0.01)
