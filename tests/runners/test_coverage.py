"""The coverage runner on Gaussian rows, through the command."""

import pandas as pd
import pytest

from experiments.errors import UserError
from experiments.launch import configure

SMALL = ["runner=coverage", "source.lengths=[256,512]", "source.rows=64", "source.samples=2", "tracking=disabled"]


def test_better_exact_keys_keep_the_promise_more_often_from_a_smaller_sample(main, tmp_path):
    arguments = [*SMALL, "selector=exact_sets", "source.s=1.1", "runner.exact=32", f"outputs={tmp_path}"]
    assert main(arguments) == 0
    (table,) = tmp_path.glob("runs/*/coverage.parquet")
    lines = pd.read_parquet(table)
    assert set(lines["selector"]) == {"sinks", "h2o", "oracle"}
    assert len(lines) == 3 * 2 * 2 * 2
    at = lines[(lines["length"] == 512) & (lines["base"] == 0.01)].groupby("selector")[["covered", "sampled"]].mean()
    assert at.loc["oracle", "covered"] > at.loc["sinks", "covered"]
    at = lines[(lines["length"] == 512) & (lines["base"] == 0.05)].groupby("selector")[["covered", "sampled"]].mean()
    assert at.loc["oracle", "sampled"] < at.loc["sinks", "sampled"]


def test_a_method_without_keys_has_no_exact_ones():
    job = configure(*SMALL, "selector=mean_value")
    with pytest.raises(UserError, match="keeps no keys"):
        job.runner.check(job.source, job.selector, job.windows)


def test_a_method_that_weighs_its_keys_is_refused_in_one_line(main, tmp_path, capsys):
    assert main([*SMALL, "selector=magic_pig", f"outputs={tmp_path}"]) == 1
    assert "chooses keys without weights" in capsys.readouterr().err
