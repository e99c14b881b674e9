import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.statistics import fit
from analysis.statistics.cost_curves import hermite, read, slopes
from analysis.statistics.equal_cost import Contest, choose, contest, mix_weights, scale_for

SETTINGS = fit.Settings(
    etas=(0.1,), seed=0, resamples=50, confidence=0.95, min_lengths=3, at_one=0.5, at_n=0.1, clear_lead=2.0
)
LENGTHS = (128, 256, 512, 1024)
EXPONENTS = tuple(np.linspace(0, 1, 51))
HOW = Contest((16.0, 48.0), {"log-uniform": 1.0, "mostly short": 2.0}, EXPONENTS, 3.0, 0.5)
THRESHOLDS = np.geomspace(0.1, 1e-7, 40)


def softmax_rows(rows=6, samples=4, heads=2, seed=0):
    """Sorted probabilities (heads, samples, rows, n) per length, with deviations that differ from row to row."""
    draw = np.random.default_rng(seed)
    found = {}
    for n in LENGTHS:
        logits = draw.normal(size=(heads, samples, rows, n)) * draw.uniform(1.5, 3, size=(heads, samples, rows, 1))
        p = np.exp(logits)
        found[n] = -np.sort(-p / p.sum(-1, keepdims=True))
    return found


def records(rows):
    """Windows of the records, by brute force from sorted rows."""
    lines = []
    for n, p in rows.items():
        tail = 1 - np.concatenate([np.zeros((*p.shape[:-1], 1)), np.cumsum(p, -1)], -1)  # by number of keys kept
        grid = [k for k in sorted({round(2 ** (i / 4)) for i in range(64)}) if k <= n]
        asked = [("grid", k, np.full(p.shape[:-1], k)) for k in grid]
        asked += [("threshold", eps, np.maximum((p > eps).sum(-1), 1)) for eps in THRESHOLDS]
        asked += [("top_p", eta, (tail > eta).sum(-1)) for eta in np.geomspace(0.9, 1e-3, 30)]
        for rule, parameter, k in asked:
            dropped = np.maximum(np.take_along_axis(tail, k[..., None], -1)[..., 0], 0)
            for head, sample in np.ndindex(p.shape[:2]):
                line = {"layer": 0, "head": head, "sample": sample, "length": n, "rule": rule, "parameter": parameter}
                line |= {"k": k[head, sample].mean(), "dropped_mass": dropped[head, sample].mean()}
                lines.append(line | {"output_error_renormalised": line["dropped_mass"], "scale": 1.0})
    return of_label(pd.DataFrame(lines))


def of_label(frame, label="made up"):
    return frame.assign(
        n=frame["length"],
        label=label,
        kind="gaussian",
        s=1.0,
        sigma=np.nan,
        cluster="run:" + frame["sample"].astype(str),
    )


def exact_floor(rows, weights, budget):
    """Keep the largest probabilities of all rows, weighted by the mix, one key per row at least."""
    share = np.concatenate([np.full(p.size, w / p[..., 0].size) for p, w in zip(rows.values(), weights, strict=True)])
    every = np.concatenate([p.ravel() for p in rows.values()])
    first = np.concatenate([(np.arange(p.size) % n == 0) for n, p in rows.items()])
    order = np.lexsort((-every, ~first))
    spent = np.cumsum(share[order])
    kept = np.clip((budget - (spent - share[order])) / share[order], 0, 1)
    return 1 - (kept * share[order] * every[order]).sum()


@pytest.fixture(scope="module")
def rows():
    return softmax_rows()


@pytest.fixture(scope="module")
def table(rows):
    return contest(records(rows), HOW, SETTINGS).set_index(["mix", "budget", "rule"])


@pytest.mark.parametrize(("mix", "p"), HOW.mixes.items())
@pytest.mark.parametrize("budget", HOW.budgets)
def test_the_floor_is_that_of_brute_force_and_no_rule_is_below_it(table, rows, mix, p, budget):
    exact = exact_floor(rows, mix_weights(np.array(LENGTHS, float), p), budget)
    at = table.loc[mix, budget]
    assert at.loc["floor", "dropped_mass"] == pytest.approx(exact, rel=2e-3)
    assert (at["dropped_mass"] >= exact * (1 - 2e-3)).all()
    assert (at["ratio"] >= 1 - 2e-3).all()
    assert (at.drop("floor")["cost_for_floor"] > 1).all()


def test_a_fixed_window_loses_what_brute_force_says(table, rows):
    weights = mix_weights(np.array(LENGTHS, float), 1.0)
    lost = [1 - p[..., :48].sum(-1).mean() for p in rows.values()]
    line = table.loc["log-uniform", 48.0, "fixed"]
    assert line["parameter"] == pytest.approx(48)
    assert line["dropped_mass"] == pytest.approx(weights @ lost, rel=2e-3)
    assert line["worst_dropped_mass"] == pytest.approx(max(lost), rel=2e-3)


def test_every_rule_of_n_spends_the_budget(table):
    blind = table.drop(["top_p", "floor"], level="rule")
    np.testing.assert_allclose(blind["spent"], blind.index.get_level_values("budget"))
    np.testing.assert_allclose(table["spent"], table.index.get_level_values("budget"), rtol=0.3)


def test_differences_are_those_of_the_columns(table):
    fixed = table.xs("fixed", level="rule")["dropped_mass"]
    power = table.xs("power", level="rule")
    np.testing.assert_allclose(power["versus_fixed"], power["dropped_mass"] - fixed)
    np.testing.assert_allclose(power["ratio_fixed"], power["dropped_mass"] / fixed)
    same = table.xs("fixed", level="rule")
    assert (same[["versus_fixed", "versus_fixed_low", "versus_fixed_high"]] == 0).all(axis=None)
    assert (power["dropped_mass_low"] <= power["dropped_mass"]).all()


def test_equal_records_give_equal_tables(rows):
    frame = records(rows)
    mixed = frame.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(contest(frame, HOW, SETTINGS), contest(mixed, HOW, SETTINGS))


def power_law(exponent, samples=4, seed=1):
    """Dropped mass proportional to n^C exp(-k / n^C), a little different from sample to sample."""
    lines = []
    draw = np.random.default_rng(seed)
    for sample in range(samples):
        level = 1 + 0.01 * draw.normal()
        for n in (1024, 2048, 4096, 8192, 16384):
            unit = n**exponent
            for k in sorted({round(2 ** (i / 4)) for i in range(64)}):
                if k <= n:
                    lost = level * unit * np.exp(-k / unit) / 16384
                    line = {"layer": 0, "head": 0, "sample": sample, "length": n, "rule": "grid", "parameter": k}
                    lines.append(line | {"k": k, "dropped_mass": lost, "output_error_renormalised": lost, "scale": 1.0})
    return of_label(pd.DataFrame(lines))


@pytest.mark.parametrize("exponent", [0.4, 0.6, 0.8])
def test_where_a_power_is_right_it_is_found_and_nothing_blind_is_better(exponent):
    # d/dk of n^C exp(-k / n^C) is a function of k / n^C alone, so equal marginal mass means k = alpha n^C exactly
    frame = power_law(exponent)
    budget = float(np.mean([2 * n**exponent for n in (1024, 2048, 4096, 8192, 16384)]))
    how = Contest((budget,), {"log-uniform": 1.0}, EXPONENTS, 3.0, 0.9)
    table = contest(frame, how, SETTINGS).set_index("rule")
    assert table.loc["power", "parameter"] == pytest.approx(exponent, abs=0.021)
    assert table.loc["power", "scale"] == pytest.approx(2, rel=0.2)
    lost = table["dropped_mass"]
    assert lost["power"] == pytest.approx(lost["free"], rel=3e-3)
    assert (lost.drop(["power", "free"]) > lost["power"]).all()
    assert table.loc["power", "versus_fixed_high"] < 0


@pytest.mark.parametrize("rule", ["power", "power_worst", "free"])
def test_what_is_chosen_never_sees_the_judged_half(rows, rule):
    frame = records(rows)
    weights = mix_weights(np.array(LENGTHS, float), 1.0)
    poisoned = frame.copy()
    late = poisoned["sample"] >= 2
    poisoned.loc[late, "dropped_mass"] = (poisoned["length"] / 1024 * np.exp(-poisoned["k"] / 8))[late]
    chosen = []
    for part in (frame, poisoned):
        curves = read(part)
        first, second = curves.halves()
        assert not set(first) & set(second)
        window = choose(rule, curves, first, weights, 32.0, EXPONENTS)
        chosen.append([*window.at(32.0), window.parameter, window.scale])
    np.testing.assert_array_equal(*chosen)
    other = choose(rule, read(poisoned), second, weights, 32.0, EXPONENTS)
    assert not np.allclose(other.at(32.0), chosen[0][:-2])


def test_one_sample_cannot_be_judged(rows):
    frame = records(rows)
    assert contest(frame[frame["sample"] == 0], HOW, SETTINGS).empty
    assert contest(frame[frame["rule"] != "grid"], HOW, SETTINGS).empty


def test_a_cluster_that_lacks_a_length_is_left_out(rows):
    frame = records(rows)
    lacking = frame[(frame["sample"] != 1) | (frame["length"] != 512)]
    assert read(lacking).clusters == 3
    assert read(frame).clusters == 4


def test_without_thresholds_there_is_no_regret(rows):
    frame = records(rows)
    table = contest(frame[frame["rule"] == "grid"], HOW, SETTINGS)
    assert set(table["rule"]) == {"fixed", "log", "log_squared", "power", "power_worst", "linear", "free"}
    assert "regret" not in table or table["regret"].isna().all()
    assert table["cost_for_floor"].isna().all()


@given(
    st.lists(st.floats(0.01, 100), min_size=4, max_size=4),
    st.floats(1, 480),
    st.sampled_from([0.0, 1.0, 2.0]),
)
def test_the_scale_spends_the_budget_whatever_the_shape(shape, budget, p):
    lengths = np.array(LENGTHS, float)
    weights = mix_weights(lengths, p)
    budget = min(budget, weights @ lengths)
    scale = scale_for(np.array(shape), lengths, weights, budget)
    assert np.clip(scale * np.array(shape), 1, lengths) @ weights == pytest.approx(budget)


@given(st.lists(st.floats(0.1, 3), min_size=3, max_size=8), st.floats(0, 1))
def test_a_parabola_is_read_off_exactly_between_inner_knots(steps, share):
    x = np.cumsum([0.0, *steps])
    at = x[1] + share * (x[-2] - x[1])
    assert hermite(x, x**2 - x, slopes(x, x**2 - x), at) == pytest.approx(at**2 - at, abs=1e-6)


def test_nothing_is_read_off_outside_the_records_or_across_a_gap():
    x = np.array([0.0, 1.0, 2.0, 5.0])
    read_off = [float(hermite(x, x, slopes(x, x), at, 2.0)) for at in (-0.1, 0.5, 5.1, 3.0)]
    np.testing.assert_array_equal(np.isnan(read_off), [True, False, True, True])


@pytest.mark.parametrize("rule", ["grid", "threshold"])
def test_further_windows_of_a_smaller_run_drop_no_cluster(rows, rule):
    every = records(rows)
    fewer = every[(every["cluster"] == "run:1") & (every["rule"] == rule) & (every["parameter"] != 1)]
    both = pd.concat([every, fewer.assign(parameter=1.03 * fewer["parameter"])], ignore_index=True)
    alone, together = read(every), read(both)
    assert together.clusters == alone.clusters == 4
    for one, other in zip(alone.grid, together.grid, strict=True):
        np.testing.assert_array_equal(other.knots, one.knots)
        np.testing.assert_array_equal(other.dropped, one.dropped)
    for name, line in alone.row_rules.items():
        np.testing.assert_array_equal(together.row_rules[name].parameters, line.parameters)
        np.testing.assert_array_equal(together.row_rules[name].dropped, line.dropped)


def test_further_samples_of_fewer_windows_narrow_no_curve(rows):
    """As many settings as possible, of as many samples as possible: neither is given up for a little of the other."""
    every = records(rows)
    alone = read(every)
    further = every[(every["cluster"] == "run:1") & (every["rule"] == "grid") & every["parameter"].isin([8, 64])]
    added = read(pd.concat([every, further.assign(cluster="run:9")], ignore_index=True))
    lacking = read(every[(every["cluster"] != "run:1") | (every["rule"] != "grid") | (every["parameter"] <= 8)])
    for other, clusters in ((added, 4), (lacking, 3)):
        assert other.clusters == clusters
        assert [len(curve.knots) for curve in other.grid] == [len(curve.knots) for curve in alone.grid]
