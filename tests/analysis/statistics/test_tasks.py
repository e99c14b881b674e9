"""Paired differences, equal cost and the cost of one percent, from losses with a known answer."""

import numpy as np
import pandas as pd
import pytest

from analysis.statistics import tasks

LENGTHS = [512, 1024]


def losses(noise=0.0):
    """Dense loss 2 + sample; fixed k loses 1 / k, power windows of the same size half of that."""
    rng = np.random.default_rng(0)
    lines = []
    for sample in range(4):
        for length in LENGTHS:
            base = {"label": "m", "phase": "decode", "run": "r", "sample": sample, "length": length}
            lines.append(base | {"rule": "dense", "keys": length, "loss": 2.0 + sample})
            for k in (10, 100, 1000):
                for rule, parameter, share in (("fixed", k, 1.0), ("power", 0.5, 0.5)):
                    loss = 2.0 + sample + share / k + noise * rng.standard_normal()
                    lines.append(base | {"rule": rule, "parameter": parameter, "scale": k, "keys": k, "loss": loss})
    return pd.DataFrame(lines)


def mixed(table):
    return tasks.mixed(tasks.differences(table, "loss", ["length"]), {"log-uniform": 1.0})


def test_differences_are_paired_with_dense():
    told = tasks.differences(losses(), "loss", ["length"])
    fixed = told[told["family"] == "fixed"]
    np.testing.assert_allclose(fixed["difference"], 1 / fixed["keys"])
    assert set(told["family"]) == {"fixed", "power, C = 0.5"}


def test_mixes_weigh_lengths():
    table = losses()
    table.loc[(table["length"] == 1024) & (table["rule"] != "dense"), "loss"] += 3.0
    lines = tasks.differences(table, "loss", ["length"])
    for p, weight in ((1.0, 1 / 2), (0.0, 2 / 3), (2.0, 1 / 3)):
        fixed = tasks.mixed(lines, {"mix": p}).query("family == 'fixed' and keys == 100")
        np.testing.assert_allclose(fixed["difference"], 0.01 + 3 * weight)


def test_the_contest_at_equal_cost_is_in_favour_of_the_better():
    told = tasks.contest(mixed(losses()), [100.0], 0.95)
    (line,) = told.to_dict("records")
    assert line["family"] == "power, C = 0.5"
    assert line["difference"] == pytest.approx(-0.005)
    assert line["difference_low"] == pytest.approx(line["difference_high"])
    assert (line["rule"], line["reference"]) == ("power", "fixed")


def test_noise_opens_the_interval():
    (line,) = tasks.contest(mixed(losses(noise=0.1)), [100.0], 0.95).to_dict("records")
    assert line["difference_low"] < 0 < line["difference_high"]
    assert line["samples"] == 4


def test_each_heads_law_is_also_compared_with_a_fixed_window_of_each_heads_own():
    lines = losses()
    of_heads = lines[lines["rule"] == "power"].assign(rule="budget", loss=lambda x: x["loss"] - 0.002)
    level = of_heads.assign(rule="head_fixed", loss=of_heads["loss"] + 0.001)
    told = tasks.contest(mixed(pd.concat([lines, of_heads, level])), [100.0], 0.95)
    found = told.set_index(["family", "reference"])["difference"]
    assert found["each head's C", "each head's k"] == pytest.approx(-0.001)
    assert found["each head's C", "fixed"] == pytest.approx(-0.007)
    assert found["each head's k", "fixed"] == pytest.approx(-0.006)
    assert ("power, C = 0.5", "each head's k") not in found.index


def test_two_budget_files_are_each_compared_with_the_fixed_windows_of_their_own():
    lines, parts = losses(), []
    for file, gain in (("a", 0.001), ("b", 0.003)):
        of_heads = lines[lines["rule"] == "power"].assign(rule=f"budget ({file})", loss=lambda x: x["loss"] - 0.002)
        parts += [of_heads, of_heads.assign(rule=f"head_fixed ({file})", loss=of_heads["loss"] + gain)]
    told = tasks.contest(mixed(pd.concat([lines, *parts])), [100.0], 0.95)
    found = told[told["reference"] == "each head's k"].set_index("family")["difference"]
    assert found.to_dict() == pytest.approx({"each head's C (a)": -0.001, "each head's C (b)": -0.003})
    assert set(told.loc[told["reference"] == "each head's k", "rule"]) == {"budget"}


def test_nothing_is_read_off_beyond_what_was_measured():
    assert tasks.contest(mixed(losses()), [5000.0], 0.95).empty


def test_the_cost_of_one_percent_is_interpolated():
    curves = tasks.over_samples(mixed(losses()), ["label", "phase", "mix", "family", "scale"], 0.95)
    found = tasks.cost_within(curves).set_index("family")
    log_cost = np.interp(tasks.ONE_PERCENT, [0.001, 0.01, 0.1], np.log([1000, 100, 10]))
    assert found.loc["fixed", "keys_one_percent"] == pytest.approx(np.exp(log_cost))
    assert found.loc["power, C = 0.5", "keys_one_percent"] < found.loc["fixed", "keys_one_percent"]
    assert np.isnan(tasks.cost_within(curves, most=1e-6)["keys_one_percent"]).all()
    assert tasks.cost_within(curves, most=1.0)["at_most"].all()


def test_the_fullest_design_speaks_for_its_label_and_phase():
    facts = {"seed": 0, "design": "whole"}
    small = losses().query("sample == 0").assign(run="trial", seed=0, design="trial")
    more = losses().query("parameter == 0.5").assign(run="more", **facts)
    every = pd.concat([small, losses().assign(**facts), more])
    assert set(tasks.fullest_design(every)["run"]) == {"r", "more"}


def test_the_cost_of_one_percent_has_an_interval_that_covers():
    """Loss over dense 1 / k: the truth is k = 1 / ln 1.01; samples err by a tenth of it and more."""
    keys, true = np.geomspace(20, 500, 12), 1 / tasks.ONE_PERCENT
    place = {"label": "m", "phase": "decode", "mix": "all", "family": "fixed"}
    hits = []
    for trial in range(200):
        draw = np.random.default_rng(trial)
        tilt = draw.normal(1, 0.3, 8)
        lines = pd.DataFrame([place | {"scale": k, "keys": k, "difference": t / k} for t in tilt for k in keys])
        (told,) = tasks.cost_within(tasks.over_samples(lines, [*place, "scale"], 0.95)).to_dict("records")
        hits.append(told["keys_one_percent_low"] <= true <= told["keys_one_percent_high"])
        assert told["keys_one_percent_low"] <= told["keys_one_percent"] <= told["keys_one_percent_high"]
    assert 0.91 <= np.mean(hits) <= 0.985
    wide = tasks.over_samples(lines.assign(difference=lines["difference"] * 5), [*place, "scale"], 0.95)
    (told,) = tasks.cost_within(wide).to_dict("records")
    assert np.isinf(told["keys_one_percent_high"])
    single = tasks.over_samples(lines.iloc[:12], [*place, "scale"], 0.95)
    assert np.isnan(tasks.cost_within(single)["keys_one_percent_high"].item())


def test_samples_of_all_texts_of_a_model_are_added_together():
    facts = {"seed": 0, "design": "d", "model_hash": "x"}
    first = losses().assign(**facts)
    second = losses().assign(label="m, King James Bible", **facts)
    second["loss"] += 0.5 * (second["rule"] != "dense")
    second = second[~((second["rule"] == "fixed") & (second["keys"] == 1000))]
    both = tasks.with_all_texts(pd.concat([first, second], ignore_index=True))
    pooled = both[both["label"] == "m, 2 texts"]
    assert pooled["sample"].nunique() == 8
    assert not ((pooled["rule"] == "fixed") & (pooled["keys"] == 1000)).any()  # one text alone has it
    told = tasks.over_samples(mixed(pooled), ["family", "scale"], 0.95).set_index(["family", "scale"])
    assert told.loc[("fixed", 10), "difference"] == pytest.approx(0.1 + 0.25)
    assert (told["samples"] == 8).all()
    pd.testing.assert_frame_equal(tasks.with_all_texts(first), first)
