"""What methods lose inside a model, on made-up losses whose parts are known."""

import numpy as np
import pandas as pd
import pytest

from analysis.settings import Settings
from analysis.statistics import in_model

HOW = Settings(etas=(0.1,), seed=0, resamples=200, confidence=0.95, min_lengths=3, at_one=1.0, at_n=1.0, clear_lead=2.0)
LENGTHS, KEYS, SAMPLES, TOKENS = (256, 1024, 4096), (8, 32, 128, 512), 4, 6
EXPONENT, SLOPE, CHOICE = 0.5, 0.2, 0.3


def lines(run, selectors, label="Tiny", tokens=TOKENS, model="m", quality=True, rules=("fixed",)):
    """Return losses that fall linearly in ln k, from a number of keys that grows as n^C; a method loses CHOICE more."""
    draw = np.random.default_rng(3)
    parts = []
    for sample in range(SAMPLES):
        for n in LENGTHS:
            position = np.arange(n - tokens, n)
            dense = 2 + draw.normal(size=tokens)
            place = {"run": run, "label": label, "phase": "decode", "seed": 0, "model_hash": model, "design": run}
            place |= {"sample": sample, "length": n, "position": position}
            none = {"selector": "dense", "rule": "dense", "parameter": np.nan, "scale": np.nan, "keys": position + 1.0}
            parts.append(pd.DataFrame(place | none | {"loss": dense, "agreement": 1.0, "kl": 0.0}))
            for selector in selectors:
                for rule in rules:
                    for k in KEYS:
                        lost = SLOPE * np.log(10 * n**EXPONENT / k) + CHOICE * (selector != "oracle")
                        window = {
                            "selector": selector,
                            "rule": rule,
                            "parameter": float(k),
                            "scale": 1.0,
                            "keys": float(k),
                        }
                        measured = {"loss": dense + lost, "agreement": 1 - 0.1 * lost, "kl": 0.5 * lost}
                        parts.append(pd.DataFrame(place | window | measured))
    table = pd.concat(parts, ignore_index=True)
    return table if quality else table.drop(columns=["agreement", "kl"])


@pytest.fixture(scope="module")
def measured():
    return lines("a", ["oracle", "sinks"])


def test_a_loss_is_the_budgets_and_the_choices(measured):
    table = in_model.over_samples(in_model.by_sample(measured), HOW.confidence)
    sinks, oracle = (table[table["selector"] == name] for name in ("sinks", "oracle"))
    assert len(sinks) == len(oracle) == len(LENGTHS) * len(KEYS)
    np.testing.assert_allclose(sinks["choice"], CHOICE)
    np.testing.assert_allclose(oracle["choice"], 0, atol=1e-12)
    np.testing.assert_allclose(sinks["lost"], SLOPE * np.log(10 * sinks["length"] ** EXPONENT / sinks["keys"]) + CHOICE)
    np.testing.assert_allclose(sinks["lost"], sinks["budget"] + sinks["choice"])
    np.testing.assert_allclose(sinks["kl"], 0.5 * sinks["lost"])
    np.testing.assert_allclose(sinks["choice_high"], sinks["choice_low"], atol=1e-9)  # paired: samples do not differ
    np.testing.assert_allclose(sinks["share"], sinks["keys"] / sinks["length"])
    assert sinks["frontier"].all()
    assert not oracle["frontier"].any()
    assert (table["samples"] == SAMPLES).all()


def test_a_window_beyond_the_oracles_has_no_parts(measured):
    wide = (measured["selector"] == "sinks") & (measured["parameter"] == KEYS[-1])
    beyond = measured.assign(keys=measured["keys"].where(~wide, 600.0))
    table = in_model.over_samples(in_model.by_sample(beyond), HOW.confidence)
    assert table.loc[table["keys"] == 600, ["budget", "choice"]].isna().all(axis=None)
    assert table.loc[table["keys"] != 600, ["budget", "choice"]].notna().all(axis=None)


def test_a_window_that_loses_more_at_more_keys_is_off_the_frontier(measured):
    worse = measured.assign(loss=measured["loss"] + 2.0 * (measured["parameter"] == 128))
    table = in_model.over_samples(in_model.by_sample(worse), HOW.confidence)
    sinks = table[table["selector"] == "sinks"]
    assert (sinks["frontier"] == (sinks["parameter"] != 128)).all()


def test_another_run_of_the_same_text_shares_the_oracles_curve(measured):
    own = lines("b", ["sinks"], rules=("own_top_p",))
    table = in_model.over_samples(in_model.by_sample(pd.concat([measured, own])), HOW.confidence)
    np.testing.assert_allclose(table.loc[table["rule"] == "own_top_p", "choice"], CHOICE)


def test_what_was_read_by_fewer_methods_gives_way(measured):
    longer = lines("b", ["oracle"], tokens=2 * TOKENS)
    table = in_model.by_sample(pd.concat([measured, longer]))
    assert set(table["tokens"]) == {TOKENS}


def test_lengths_that_another_reading_has_alone_stay(measured):
    longer = lines("b", ["oracle", "sinks", "h2o"])
    table = in_model.by_sample(
        pd.concat([measured[measured["length"] < LENGTHS[-1]], longer[longer["length"] > LENGTHS[0]]])
    )
    sinks = table[table["selector"] == "sinks"]
    assert set(sinks["length"]) == set(LENGTHS)
    assert set(sinks.loc[sinks["length"] > LENGTHS[0], "longest"]) == {LENGTHS[-1]}  # read by more methods
    assert set(sinks.loc[sinks["length"] == LENGTHS[0], "longest"]) == {LENGTHS[-2]}


def test_texts_of_a_model_are_put_together(measured):
    both = in_model.by_sample(pd.concat([measured, lines("b", ["oracle", "sinks"], label="Tiny, other")]))
    counts = both.groupby("label")["sample"].nunique()
    assert counts.to_dict() == {"Tiny": SAMPLES, "Tiny, other": SAMPLES, "Tiny, 2 texts": 2 * SAMPLES}


def test_keys_for_a_quality_grow_by_the_law_they_were_made_by(measured):
    targets = {"lost": [0.2, -5.0, 5.0], "agreement": [0.97]}
    table = in_model.keys_for(in_model.by_sample(measured), targets, HOW)
    at = table[(table["selector"] == "oracle") & (table["target"] == 0.2)].set_index("length")
    np.testing.assert_allclose(at["k"], 10 * at.index.to_numpy() ** EXPONENT * np.exp(-0.2 / SLOPE))
    np.testing.assert_allclose(at[["exponent", "exponent_low", "exponent_high"]], EXPONENT)
    assert not at["at_most"].any()
    never = table[table["target"] == -5.0]
    assert never[["k", "exponent"]].isna().all(axis=None)
    always = table[table["target"] == 5.0]
    np.testing.assert_allclose(always["k"], KEYS[0])
    assert always["at_most"].all()
    assert always["exponent"].isna().all()
    agreed = table[(table["selector"] == "oracle") & (table["quality"] == "agreement")].set_index("length")
    np.testing.assert_allclose(agreed["k"], 10 * agreed.index.to_numpy() ** EXPONENT * np.exp(-0.3 / SLOPE))


def test_resamples_that_need_more_keys_than_were_measured_widen_an_interval(measured):
    """Half of the samples do not keep the target with the most keys; together they just do."""
    off = {0: 0.2, 1: 0.2, 2: -0.2, 3: -0.2}
    noisy = measured.assign(loss=measured["loss"] + measured["sample"].map(off) * (measured["rule"] != "dense"))
    at_longest = SLOPE * np.log(10 * LENGTHS[-1] ** EXPONENT / KEYS[-1])  # lost with the most keys, on average
    table = in_model.keys_for(in_model.by_sample(noisy), {"lost": [at_longest + 0.01]}, HOW)
    at = table[table["selector"] == "oracle"].set_index("length")
    assert at.loc[LENGTHS[-1], "k_high"] == pytest.approx(LENGTHS[-1])  # all keys, and no more
    assert at.loc[LENGTHS[-1], "k_low"] < at.loc[LENGTHS[-1], "k"] < KEYS[-1]
    assert at.loc[LENGTHS[0], "k_high"] < LENGTHS[0]
    np.testing.assert_allclose(at["exponent"], EXPONENT, atol=0.01)
    x = np.log(LENGTHS) - np.log(LENGTHS).mean()
    steepest = EXPONENT + x[-1] * (np.log(LENGTHS[-1]) - np.log(at.loc[LENGTHS[-1], "k"])) / (x @ x)
    assert at["exponent_high"].iloc[0] > steepest - 0.2  # a resample of poor samples: all keys of the longest
    assert (at["exponent_low"] <= at["exponent"]).all()


def test_records_without_agreement_have_no_keys_for_it():
    table = in_model.by_sample(lines("a", ["oracle", "sinks"], quality=False))
    assert table[["agreement", "kl"]].isna().all(axis=None)
    keys = in_model.keys_for(table, {"lost": [0.2], "agreement": [0.97]}, HOW)
    assert set(keys["quality"]) == {"lost"}
