"""The exponents of what is lost at a n^C keys are those that the losses were made by."""

import numpy as np
import pytest

from analysis.settings import Settings
from analysis.statistics import in_model
from analysis.statistics.loss_at_power import laws
from tests.analysis.synthetic import powers

HOW = Settings(etas=(0.1,), seed=0, resamples=200, confidence=0.95, min_lengths=3, at_one=1.0, at_n=1.0, clear_lead=2.0)


def lines_of(**changed):
    losses = powers((256, 512, 1024)).assign(label="m", run="r", seed=0, model_hash="h", **changed)
    return in_model.by_sample(losses).query("rule == 'power'")


def test_exponents_are_those_of_the_losses():
    table = laws(lines_of(), HOW).set_index(["parameter", "scale"])
    assert len(table) == 4
    for (power, _), line in table.iterrows():
        assert line["kl_exponent"] == pytest.approx(-power)
        assert line["lost_exponent"] == pytest.approx(-power / 2)
        # samples differ by a factor alone, so that every resample has the same slope
        assert line["kl_exponent_low"] == pytest.approx(-power) == pytest.approx(line["kl_exponent_high"])
        assert line["entropy_law"] == power - 1
    assert set(table["samples"]) == set(table["lengths"]) == {3}


def test_an_interval_holds_what_scatters_and_needs_samples():
    lines = lines_of()
    noise = np.random.default_rng(0).lognormal(0, 0.3, len(lines))
    for _, line in laws(lines.assign(kl=lines["kl"] * noise), HOW).iterrows():
        assert line["kl_exponent_low"] < -line["parameter"] < line["kl_exponent_high"]
    alone = laws(lines[lines["sample"] == 0], HOW)
    assert alone["kl_exponent_low"].isna().all()


def test_a_gain_over_dense_has_no_exponent_and_two_lengths_no_law():
    lines = lines_of()
    gained = lines["lost"].where((lines["length"] != 512) | (lines["sample"] != 1), -5.0)
    table = laws(lines.assign(lost=gained), HOW)
    assert table["lost_exponent"].isna().all()
    assert table["kl_exponent"].notna().all()
    sometimes = lines["lost"].where((lines["length"] != 512) | (lines["sample"] != 1), -lines["lost"])
    bounds = laws(lines.assign(lost=sometimes), HOW)
    assert bounds["lost_exponent"].notna().all()
    assert bounds["lost_exponent_low"].isna().all()
    assert laws(lines[lines["length"] < 1024], HOW).empty
