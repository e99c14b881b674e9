"""The figure that compares models and texts, and which records the other figures leave to it."""

import numpy as np
import pytest

import analysis
from analysis import settings, tables
from analysis.figures import models
from analysis.records.evidence import gather
from analysis.records.load import complete_runs
from tests.analysis.synthetic import crossed, write_run

LONG, SHORT = (512, 1024, 2048, 4096, 8192, 16384), (512, 1024, 2048, 4096, 8192)


def write(outputs, name, label, exponent, lengths=SHORT, **keys):
    spread = np.random.default_rng(1).normal(exponent, 0.1, 12)
    rows = crossed(spread, lengths=lengths, clusters=6, shared=0.02, own=0.05)
    write_run(outputs, name, label, rows, source="smollm2", **keys)


@pytest.fixture
def evidence(tmp_path):
    def of(figure="models"):
        runs = complete_runs(tmp_path)
        rows, windows = analysis.load(tmp_path)
        fits = tables.fits(rows, runs, tmp_path / "tables", settings.analysis(), force=True)
        return gather(settings.figure(figure), rows, windows, fits, runs)[0]

    return of


def test_each_text_has_its_line_and_the_same_lengths(tmp_path, evidence):
    write(tmp_path, "prose", "Tiny", 0.3, LONG)
    write(tmp_path, "code", "Tiny, source code", 0.4, text="python:code")
    write(tmp_path, "mixed", "Tiny, shuffled tokens", 0.5, shuffle=True)
    drawing = models.draw(evidence(), settings.figure("models"))
    table = drawing.table
    assert set(table["longest"]) == {8192}
    exponents = table[table["quantity"] == "exponent C"].set_index("label")
    expected = {"Tiny": 0.3, "Tiny, source code": 0.4, "Tiny, shuffled tokens": 0.5}
    for label, exponent in expected.items():
        line = exponents.loc[label]
        assert line["pooled"] == pytest.approx(exponent, abs=0.08)
        assert line["q05"] < line["q25"] < line["median"] < line["q75"] < line["q95"]
        assert line["low"] < line["pooled"] < line["high"]
    shares = table[table["quantity"].str.startswith("share won")].groupby("label")["share"].sum()
    assert shares.to_numpy() == pytest.approx(1)
    errors = table[table["quantity"] == "ln k error, power"]
    assert (errors["pooled"].abs() < 0.15).all()


def test_other_figures_leave_comparisons_out_beside_a_main_text(tmp_path, evidence):
    write(tmp_path, "prose", "Tiny", 0.5)
    write(tmp_path, "own", "Tiny, diary", 0.5, text="my/diary.txt")
    write(tmp_path, "code", "Tiny, source code", 0.4, text="python:code")
    write(tmp_path, "mixed", "Tiny, shuffled tokens", 0.5, shuffle=True)
    assert set(evidence("exponents").rows["label"]) == {"Tiny", "Tiny, diary"}
    assert evidence("models").rows["label"].nunique() == 4


def test_a_model_that_has_read_only_code_is_in_every_figure(tmp_path, evidence):
    write(tmp_path, "code", "Tiny, source code", 0.4, text="python:code")
    assert set(evidence("exponents").rows["label"]) == {"Tiny, source code"}


def test_models_without_common_lengths_keep_their_own(tmp_path, evidence):
    write(tmp_path, "prose", "Tiny", 0.5, (100, 200, 400, 800, 1600))
    write(tmp_path, "code", "Tiny, source code", 0.5, text="python:code")
    table = models.draw(evidence(), settings.figure("models")).table
    assert set(table["longest"]) == {1600, 8192}
