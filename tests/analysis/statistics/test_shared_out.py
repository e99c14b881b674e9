"""Keys shared out inside the model: differences from keys alike, and which text was held out."""

import numpy as np
import pandas as pd
import pytest

from analysis.statistics.shared_out import in_model, in_tasks

ABOUT = {"label": "m", "phase": "decode", "selector": "snap", "design": "d", "model_hash": "h", "text_hash": "t"}


def losses(windows, samples=(4, 5, 6, 7), length=512, seed=1):
    """Sample s loses dense 2 + s nats; `windows` map rule and cost to the keys kept, and KL and loss over dense."""
    lines = []
    for sample in samples:
        place = {**ABOUT, "sample": sample, "length": length, "seed": seed}
        none = {"rule": "dense", "parameter": np.nan, "scale": np.nan}
        for position, tilt in ((510, -0.5), (511, 0.5)):
            dense = 2.0 + sample + tilt
            lines.append({**place, **none, "selector": "dense", "position": position, "loss": dense, "kl": np.nan})
            for (rule, cost), (keys, kl, lost) in windows.items():
                window = {"rule": rule, "parameter": cost, "scale": 1.0, "keys": keys, "kl": kl * sample}
                lines.append({**place, **window, "position": position, "loss": dense + lost})
    return pd.DataFrame(lines)


def gains(samples=(0, 1, 2, 3), length=512, design="g"):
    return pd.DataFrame({**ABOUT, "design": design, "sample": s, "length": length, "seed": 0} for s in samples)


WINDOWS = {
    ("budget_uniform", 32.0): (32.0, 0.4, 0.3),
    ("budget_uniform", 128.0): (128.0, 0.2, 0.1),
    ("budget_gains", 32.0): (32.4, 0.1, 0.05),  # keys of a head are rounded up
    ("budget (b)", 0.05): (64.0, 0.5, 0.6),
    ("budget", 0.05): (300.0, 0.1, 0.1),
    ("fixed", 32.0): (32.0, 0.1, 0.1),
}


def table(**changes):
    return in_model(losses(WINDOWS, **changes), gains(), 0.95).set_index(["by", "file", "cost"])


def test_a_factor_on_the_windows_is_compared_at_as_many_keys():
    """A budget times a half is another window than the keys alike of the same file times one."""
    lines = losses(WINDOWS)
    half = (lines["rule"] == "budget_gains").to_numpy()
    lines = lines.assign(keys=lines["keys"].mask(half, 64.0), scale=lines["scale"].mask(half, 2.0))
    found = in_model(lines, gains(), 0.95).set_index(["by", "file", "cost"])
    assert found.loc[("gains", "", 32), "difference"] == pytest.approx((0.1 - 0.3) * 5.5)  # halfway in ln k
    scaled = lines[lines["rule"] == "budget_uniform"].assign(scale=2.0, keys=lambda table: 2 * table["keys"])
    assert in_model(pd.concat([lines, scaled]), gains(), 0.95)["difference"].notna().sum() >= 4


def test_differences_are_from_keys_alike_at_as_many_keys():
    found = table()
    of_needs = {("needs", "b", 0.05), ("needs", "", 0.05)}
    assert set(found.index) == {("uniform", "", 32), ("uniform", "", 128), ("gains", "", 32)} | of_needs
    assert found.loc[("uniform", "", 32), "difference"] == 0
    assert found.loc[("gains", "", 32), "difference"] == pytest.approx(-0.3 * 5.5)  # the mean sample is 5.5
    assert found.loc[("gains", "", 32), "kl"] == pytest.approx(0.1 * 5.5)
    assert found.loc[("gains", "", 32), "lost_difference"] == pytest.approx(-0.25)
    assert found.loc[("gains", "", 32), "lost_difference_low"] == pytest.approx(-0.25)
    reach = 3.1824463 * 0.3 * np.std([4, 5, 6, 7], ddof=1) / 2  # Student's quantile of three degrees of freedom
    assert found.loc[("gains", "", 32), "difference_high"] == pytest.approx(-0.3 * 5.5 + reach)
    # 64 keys lie halfway between 32 and 128 in ln k
    assert found.loc[("needs", "b", 0.05), "difference"] == pytest.approx((0.5 - 0.3) * 5.5)
    assert np.isnan(found.loc[("needs", "", 0.05), "difference"])  # beyond what was measured alike
    assert (found["samples"] == 4).all()


@pytest.mark.parametrize(
    ("samples", "length", "held_out"),
    [
        ((4, 5), 512, [True, True]),
        ((3, 4), 512, [False, True]),
        ((2, 3), 1024, [True, True]),
        ((1, 2), 1024, [False, True]),
        ((7,), 256, [False]),
    ],
)
def test_samples_that_gains_were_measured_on_stand_apart(samples, length, held_out):
    found = table(samples=samples, length=length).reset_index()
    for of_kind, lines in found.groupby("held_out"):
        assert (lines["samples"] == held_out.count(of_kind)).all()
        at = lines[(lines["by"] == "gains") & (lines["cost"] == 32)]
        own = [sample for sample, kind in zip(samples, held_out, strict=True) if kind == of_kind]
        assert at["kl"].item() == pytest.approx(0.1 * np.mean(own))
    assert set(found["held_out"]) == set(held_out)


def test_another_text_or_model_is_held_out():
    own, changed = losses(WINDOWS, samples=(0, 1)), gains()
    assert not in_model(own, changed, 0.95)["held_out"].any()
    for name in ("text_hash", "model_hash"):
        assert in_model(own, changed.assign(**{name: "other"}), 0.95)["held_out"].all()


def test_answers_to_tasks_are_compared_task_by_task():
    one = losses(WINDOWS)
    answers = pd.concat(
        one.assign(log_prob=-factor * one["loss"].astype(float), exact=one["rule"] == "dense", task=task)
        for task, factor in (("needle", 1.0), ("words", 2.0))
    )
    answers = answers.drop(columns="loss").reset_index(drop=True)
    found = in_tasks(answers, gains(), 0.95).set_index(["task", "by", "file", "cost"]).sort_index()
    of_text = in_model(one, gains(), 0.95).set_index(["by", "file", "cost"]).sort_index()
    for task, factor in (("needle", 1.0), ("words", 2.0)):
        np.testing.assert_allclose(found.loc[task, "lost_difference"], factor * of_text["lost_difference"], atol=1e-12)
        np.testing.assert_allclose(found.loc[task, "difference"], of_text["difference"])
    assert (found["dense_exact"] == 1).all()
    assert (found["exact"] == 0).all()


def test_keys_alike_of_one_cost_say_nothing_of_another():
    windows = {window: values for window, values in WINDOWS.items() if window != ("budget_uniform", 128.0)}
    found = in_model(losses(windows), gains(), 0.95).set_index(["by", "file", "cost"])
    assert np.isnan(found.loc[("needs", "b", 0.05), "difference"])
    assert found.loc[("gains", "", 32), "difference"] == pytest.approx(-0.3 * 5.5)


def test_without_keys_alike_nothing_is_compared():
    columns = list(in_model(losses(WINDOWS), gains(), 0.95).columns)
    nothing = in_model(pd.DataFrame(), gains(), 0.95)
    assert (nothing.empty, list(nothing.columns)) == (True, columns)  # a table without columns could not be read again
    of_tasks = in_tasks(pd.DataFrame(), gains(), 0.95)
    assert (of_tasks.empty, set(of_tasks.columns)) == (True, {*columns, "task", "exact", "dense_exact"})
    of_needs = {window: values for window, values in WINDOWS.items() if window[0] != "budget_uniform"}
    assert in_model(losses(of_needs), gains(), 0.95).empty
    assert in_model(losses({("fixed", 32.0): (32.0, 0.1, 0.1)}), gains(), 0.95).empty
