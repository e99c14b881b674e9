import numpy as np
import pandas as pd
import pytest

from analysis.statistics import fit
from analysis.statistics.closed_forms import count_above
from analysis.statistics.decay import ESTIMATES, decay_rates

SETTINGS = fit.Settings(
    etas=(0.1,), seed=0, resamples=300, confidence=0.95, min_lengths=3, at_one=0.5, at_n=0.1, clear_lead=2.0
)


def windows(rates, clusters=12, noise=0.1, lengths=(512, 1024, 2048, 4096), label="Model", seed=0):
    """Lines of one window whose error falls like n^rate, one rate per head."""
    draw = np.random.default_rng(seed)
    grid = pd.MultiIndex.from_product([range(len(rates)), range(clusters), lengths], names=["head", "sample", "length"])
    frame = grid.to_frame(index=False).assign(layer=0, label=label, rule="power", parameter=0.5, scale=1.0)
    frame["cluster"] = frame["sample"].astype(str)
    frame["k"], frame["n"] = frame["length"] ** 0.5, frame["length"]
    error = frame["length"] ** np.take(rates, frame["head"])
    return frame.assign(tv=error * np.exp(noise * draw.normal(size=len(frame))))


def test_a_known_rate_is_found_and_covered():
    found = pd.concat(decay_rates(windows([-0.4], label=str(i), seed=i), ["tv"], SETTINGS) for i in range(200))
    assert found["rate"].mean() == pytest.approx(-0.4, abs=0.01)
    assert 0.90 <= ((found["rate_low"] <= -0.4) & (found["rate_high"] >= -0.4)).mean() <= 0.985


def test_a_model_shows_its_median_head_and_how_many_fall():
    line = decay_rates(windows([-0.5, -0.3, 0.2], noise=0.0), ["tv"], SETTINGS).iloc[0]
    assert line["rate"] == pytest.approx(-0.3)
    assert line["falling"] == pytest.approx(2 / 3)
    assert (line["heads_low"], line["heads_high"]) == pytest.approx((-0.4, -0.05))
    assert line["rate_low"] < -0.3 < line["rate_high"]


def test_a_window_that_holds_the_whole_row_and_an_error_of_zero_are_left_out():
    frame = windows([-0.5], noise=0.0)
    frame.loc[frame["length"] == 512, "k"] = 512
    assert decay_rates(frame, ["tv"], SETTINGS)["lengths"].item() == 3
    frame.loc[frame["length"] == 1024, "tv"] = 0.0
    assert decay_rates(frame, ["tv"], SETTINGS).empty


@pytest.mark.filterwarnings("error")
def test_a_length_at_which_a_head_has_no_line_is_left_out():
    frame = windows([-0.5, -0.4], noise=0.0, lengths=(256, 512, 1024, 2048))
    frame = frame[(frame["head"] == 0) | (frame["length"] > 256)]
    assert decay_rates(frame, ["tv"], SETTINGS)["lengths"].item() == 3


def test_one_sample_has_a_rate_and_no_interval():
    line = decay_rates(windows([-0.5], clusters=1), ["tv"], SETTINGS).iloc[0]
    assert np.isnan(line["rate_low"])
    assert line["rate"] == pytest.approx(-0.5, abs=0.2)


def counts(sigma, lengths):
    """Lines of the number of entries above 0.001 by [G3], with a little noise; a row is a window of its own."""
    frame = windows([0.0], noise=0.02, lengths=lengths).assign(k=0)
    return frame.assign(count=frame["tv"] * count_above(1e-3, frame["n"].to_numpy(float), sigma))


LONG = (256, 1024, 4096, 16384, 65536, 262144)


def test_a_hump_falls_at_its_longest_lengths_whatever_a_line_through_it_says():
    line = decay_rates(counts(3.0, LONG), ["count"], SETTINGS, ESTIMATES).iloc[0]
    assert line["rate_low"] > 0
    assert line["late_high"] < 0
    two = count_above(1e-3, np.array(LONG[-2:], float), 3.0)
    assert line["late"] == pytest.approx(np.log(two[1] / two[0]) / np.log(4), abs=0.02)
    assert line["last"] == pytest.approx(two[1], rel=0.05)
    assert (line["falling"], line["falling_late"]) == (0, 1)


def test_what_still_grows_but_ever_more_slowly_decides_nothing():
    line = decay_rates(counts(4.0, LONG), ["count"], SETTINGS, ESTIMATES).iloc[0]
    assert line["late_low"] > 0
    assert line["bend_high"] < 0


def test_a_power_law_has_no_bend():
    table = pd.concat(
        decay_rates(windows([0.3], label=str(i), seed=i), ["tv"], SETTINGS, ESTIMATES) for i in range(100)
    )
    assert 0.88 <= ((table["bend_low"] <= 0) & (table["bend_high"] >= 0)).mean() <= 1
    assert 0.88 <= ((table["late_low"] <= 0.3) & (table["late_high"] >= 0.3)).mean() <= 1
    assert 0.88 <= ((table["last_low"] <= 4096**0.3) & (table["last_high"] >= 4096**0.3)).mean() <= 1


def test_two_of_the_longest_lengths_are_needed_for_their_slope():
    line = decay_rates(windows([-0.5], lengths=(16, 256, 4096, 65536)), ["tv"], SETTINGS, ESTIMATES).iloc[0]
    assert np.isnan(line["late"])
    assert line["rate"] == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize("heads", [12, 40])
def test_intervals_cover_the_median_of_a_population_of_heads_that_read_the_same_documents(heads):
    """Documents shift all heads alike, and heads differ: both are resampled, each apart."""
    hits, trials = {"rate": 0, "late": 0}, 80
    for trial in range(trials):
        draw = np.random.default_rng([trial, 7])
        frame = windows(draw.normal(-0.3, 0.15, heads), clusters=8, seed=trial)
        shared = draw.normal(0, 0.1, (8, 4))
        place = frame["sample"], frame["length"].map({512: 0, 1024: 1, 2048: 2, 4096: 3})
        frame["tv"] *= np.exp(shared[place])
        line = decay_rates(frame, ["tv"], SETTINGS, ("rate", "late")).iloc[0]
        for name in hits:
            hits[name] += line[f"{name}_low"] <= -0.3 <= line[f"{name}_high"]
    assert all(0.9 <= hit / trials <= 1 for hit in hits.values()), hits
