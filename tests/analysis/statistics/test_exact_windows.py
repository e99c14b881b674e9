"""Windows of exactly so many keys: a power law whose slope is known, where whole keys mislead."""

import numpy as np
import pandas as pd
import pytest

from analysis.statistics.decay import decay_rates
from analysis.statistics.exact_windows import at_exact
from tests.analysis.statistics.test_decay import SETTINGS

LENGTHS = (512, 768, 1152, 1728, 2592, 3888, 5632, 8192)
GRID = sorted({int(np.floor(2 ** (i / 4) + 0.5)) for i in range(53)})


def power_law(error, windows, clusters=3, heads=2, per_octave=GRID):
    """Lines of windows and of the grid, of an error `error(k, n)` times one factor per head and cluster."""
    lines = []
    for n in LENGTHS:
        asked = [("grid", float(k), 1.0, k) for k in per_octave if k <= n]
        asked += [(*window, int(np.ceil(real(*window, n) * (1 - 1e-9)))) for window in windows]
        for head, cluster in np.ndindex(heads, clusters):
            facts = {
                "label": "Model",
                "layer": 0,
                "head": head,
                "sample": cluster,
                "cluster": str(cluster),
                "length": n,
            }
            for rule, parameter, scale, k in asked:
                line = facts | {"n": n, "rule": rule, "parameter": parameter, "scale": scale, "k": k}
                lines.append(line | {"tv": error(k, n) * (1 + head + cluster) if k < n else 0.0})
    return pd.DataFrame(lines)


def real(rule, parameter, scale, n):
    return {"power": scale * n**parameter, "log": scale * np.log(n) ** parameter, "fixed": parameter}[rule]


@pytest.mark.parametrize(("window", "slope"), [(("power", 0.1, 1.0), 0.1), (("power", 0.3, 2.0), 0.3)])
def test_the_rate_of_exactly_n_to_the_c_keys_is_exact_where_whole_keys_mislead(window, slope):
    lines = power_law(lambda k, n: k**-0.5, [window])
    rounded = decay_rates(lines[lines["rule"] != "grid"], ["tv"], SETTINGS)["rate"].item()
    exact = decay_rates(at_exact(lines, ["tv"]), ["tv"], SETTINGS)["rate"].item()
    assert exact == pytest.approx(-0.5 * slope, abs=1e-9)
    if slope == 0.1:  # two to four keys: rounded up they grow faster
        assert rounded == pytest.approx(-0.5 * 0.147, abs=1e-3)


def test_a_log_window_has_exactly_its_keys():
    window = ("log", 1.0, 1.0)
    table = at_exact(power_law(lambda k, n: 0.1 / k, [window], heads=1, clusters=1), ["tv"])
    assert (table["rule"] == "log").all()
    np.testing.assert_allclose(table["k"], np.log(LENGTHS))
    np.testing.assert_allclose(table["tv"], 0.1 / np.log(LENGTHS))


def test_fixed_windows_and_what_has_no_grid_stay_as_recorded():
    lines = power_law(lambda k, n: 1 / k, [("fixed", 16.0, 1.0), ("power", 0.1, 1.0)])
    fixed = at_exact(lines, ["tv"]).query("rule == 'fixed'")
    pd.testing.assert_frame_equal(fixed, lines[lines["rule"] == "fixed"], check_dtype=False)
    without = lines[lines["rule"] != "grid"]
    pd.testing.assert_frame_equal(at_exact(without, ["tv"]), without)


def test_beyond_the_grid_a_window_stays_as_recorded():
    lines = power_law(lambda k, n: 1 / k, [("power", 0.9, 1.0)], per_octave=[1, 2, 4])
    table = at_exact(lines, ["tv"])
    assert table["tv"].tolist() == lines.loc[lines["rule"] == "power", "tv"].tolist()


def test_beside_a_window_that_loses_nothing_the_error_is_linear():
    lines = power_law(lambda k, n: 1.0, [("power", 0.9, 1.0)], heads=1, clusters=1, per_octave=[1, 200_000])
    lines.loc[lines["parameter"] > 100_000, "tv"] = 0.0
    extra = lines[lines["parameter"] == 1].assign(parameter=200_000.0, tv=0.0)
    table = at_exact(pd.concat([lines, extra]), ["tv"])
    np.testing.assert_allclose(table["tv"], 1 - 0.9 * np.log(LENGTHS) / np.log(200_000))
