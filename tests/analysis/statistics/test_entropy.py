"""Growth of entropy and of keys, of heads whose growth is known."""

import numpy as np
import pytest

from analysis import settings
from analysis.statistics.entropy import growth
from tests.analysis.synthetic import crossed

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
