"""Every method in every runner and phase: what runs, what is refused, and what must be equal.

`python -m tests.models.test_methods` writes docs/methods.md from the same trials.
"""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import torch

from experiments.errors import UserError
from experiments.launch import configure
from experiments.records.folder import Record
from tests.models import small
from tests.selectors.test_selectors import NAMES, ORDERED, selector

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"
WAYS = {
    "rows": ["runner=approximation"],
    "language, prefill": ["runner=language", "runner.phase=prefill"],
    "language, decode": ["runner=language", "runner.phase=decode", "runner.decode_tokens=8"],
    "retrieval, prefill": ["runner=retrieval", "runner.phase=prefill", "runner.depths=[0.5]"],
    "retrieval, decode": ["runner=retrieval", "runner.phase=decode", "runner.depths=[0.5]"],
    "decoding": ["runner=decoding", "runner.repeats=1"],
}
MODEL_WAYS = [way for way in WAYS if way.startswith(("language", "retrieval"))]
# both runners of a model read by the same attention: of retrieval a few methods are enough for a quick run
QUICK = ("oracle", "sinks", "h2o", "snap_kv_prompt", "magic_pig", "mean_value", "coreset", "quest")
WEIGHTED = ("uniform_columns", "magic_pig", "verified")
NO_OUTPUT = ("conv_basis", "coreset", "logit_sketch")
WINDOWS = ["windows/rules=[fixed]", "windows.fixed=[48,10000]"]
SOURCE = ["source=checkpoint", "source.lengths=[72]", "source.rows=3", "source.samples=1", "source.keep_layers=1"]
TABLES = {"approximation": "windows", "language": "losses", "retrieval": "retrieval", "decoding": "decoding"}


@cache
def checkpoint():
    """Return a small model of two KV heads, for as long as this process lives."""
    folder = Path(tempfile.mkdtemp())
    small.save("llama", folder, num_hidden_layers=1)
    (folder / "text.txt").write_text(small.text())
    return folder


@cache
def job_of(way):
    """Return a job of a runner and phase, of the oracle."""
    model = checkpoint()
    return configure(*SOURCE, f"source.model={model}", f"source.text={model / 'text.txt'}", *WINDOWS, *WAYS[way])


@cache
def trial(name, way):
    """Return the table that a method's record has, or the words in which it is refused."""
    job = replace(job_of(way), selector=selector(name))
    machine = type("Machine", (), {"device": torch.device("cpu"), "memory_bytes": 10**9})
    with tempfile.TemporaryDirectory() as folder:
        record = Record(Path(folder), job.runner.tables)
        calls = []
        try:
            job.runner.check(job.source, job.selector, job.windows)
            job.runner.run(job.source, job.selector, job.windows, machine, 0, record, lambda: calls.append(1))
        except UserError as error:
            return str(error)
        assert len(calls) == job.runner.groups(job.source, job.selector, job.windows)
        record.close("", dict)
        return pd.read_parquet(Path(folder) / f"{TABLES[job.runner.name]}.parquet")


def refusal(name, way):
    """Return words of the message with which a method is refused; None if it runs."""
    traits = selector(name).traits
    if way == "rows":
        return None
    if traits.sees_ahead:
        return "a floor made from the rows to come"
    if traits.layers_below:
        return "no attention of its own" if way == "decoding" else "name the layers that share in runner.layers"
    if traits.frozen and way.endswith("prefill"):
        return "chooses at the end of a prompt"
    return "without an output of its own" if way == "decoding" and name in NO_OUTPUT else None


def pairs(names, ways):
    """Return the pairs of methods and ways, those that take long marked."""
    slow = pytest.mark.long
    return [
        pytest.param(name, way, marks=slow if way.startswith("retrieval") and name not in QUICK else ())
        for name in names
        for way in ways
    ]


@pytest.mark.parametrize(("name", "way"), pairs(NAMES, WAYS))
def test_a_method_runs_wherever_it_has_a_meaning(name, way):
    result, words = trial(name, way), refusal(name, way)
    if words is not None:
        assert isinstance(result, str)
        assert words in result
        assert "\n" not in result
    else:
        assert not isinstance(result, str), result
        assert set(result["selector"]) - {"dense"} == {name}


def wide_names(result):
    """Return a name for the window of each line."""
    return result["rule"] + result["parameter"].map("{:g}".format)


@pytest.mark.parametrize(("name", "way"), pairs([name for name in ORDERED if name not in WEIGHTED], MODEL_WAYS))
def test_a_window_of_all_keys_is_dense_attention(name, way):
    if refusal(name, way) is not None:
        return
    result = trial(name, way)
    value = "loss" if "loss" in result else "log_prob"
    line = [column for column in ("sample", "length", "position", "depth") if column in result]
    wide = result.assign(window=wide_names(result)).pivot_table(value, line, "window")
    assert (wide["fixed10000"] - wide["densenan"]).abs().max() < 1e-4
    assert (wide["fixed48"] - wide["densenan"]).abs().max() > 1e-4
    near = result.assign(window=wide_names(result)).groupby("window")[["kl", "agreement"]]
    assert near.max().loc["fixed10000", "kl"] <= 1e-6
    assert near.mean().loc["fixed10000", "agreement"] >= 0.999
    assert near.mean().loc["fixed48", "kl"] > 1e-6


@pytest.mark.parametrize("way", MODEL_WAYS)
def test_a_model_reads_once_by_a_method_without_a_budget(way):
    for name in ("mean_value", "sharpened"):
        result = trial(name, way)
        assert set(result["rule"]) == {"dense", "any"}
        keys = result.set_index("rule")["keys"]
        assert (keys.loc[["any"]] == 0.5).all() == (name == "mean_value")


@pytest.mark.long
def test_the_page_is_what_the_trials_say():
    assert DOCS.read_text(encoding="utf-8") == page(), "run python -m tests.models.test_methods"


def page():
    """Return docs/methods.md."""
    refusals = []

    def cell(name, way):
        result = trial(name, way)
        if not isinstance(result, str):
            return "yes"
        words = result.split(": ", 1)[1].replace(f"parts.{name}", "parts.NAME")
        if words not in refusals:
            refusals.append(words)
        return f"no ({refusals.index(words) + 1})"

    lines = [f"| {' | '.join(cells)} |" for cells in ([_about(n), *(cell(n, w) for w in WAYS)] for n in NAMES)]
    return "\n".join(
        [
            "# Methods",
            "",
            "Which method runs in which runner and phase: `python run.py runner=RUNNER selector=METHOD`. The table is",
            "made by `python -m tests.models.test_methods`, which tries each on a small model; a test compares it.",
            "",
            "A method is **refreshed** by every key, so that a decode step gives the row that is measured at once, or",
            "**frozen** at the end of the prompt, with later keys kept. One that *looks back* goes by what was asked",
            "before. What does not look at the query is known before it comes, so that a decode step finds nothing.",
            "Methods that keep no keys have no budget: a model reads once by them, and the lines have the rule `any`;",
            "rows have the same errors in every window, for figures that compare methods.",
            "",
            "What methods claim, and what was measured of them: [choosing](choosing.md) and",
            "[approximators](approximators.md).",
            "",
            f"| method | prepares, looks at | {' | '.join(WAYS)} |",
            f"|---|---|{'---|' * len(WAYS)}",
            *lines,
            "",
            *(f"{i + 1}. {words}" for i, words in enumerate(refusals)),
            "",
        ]
    )


def _about(name):
    traits = selector(name).traits
    what = ["frozen" if traits.frozen else "refreshed"]
    what += ["looks back"] * traits.looks_back + ["the query"] * traits.looks_at_query
    return f"`{name}` | {', '.join(what)}{'' if traits.has_budget else '; keeps no keys'}"


if __name__ == "__main__":
    DOCS.write_text(page(), encoding="utf-8")
