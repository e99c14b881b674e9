"""The study that compares models and texts, and which records the other studies leave to it."""

import numpy as np
import pytest

from analysis import settings
from analysis.figures.page.shown import sources_shown
from analysis.records.evidence import Records, gather
from analysis.records.load import complete_runs
from analysis.studies import exponents, models
from tests.analysis.synthetic import crossed, write_run

LONG, SHORT = (512, 1024, 2048, 4096, 8192, 16384), (512, 1024, 2048, 4096, 8192)


def write(outputs, name, label, exponent, lengths=SHORT, **keys):
    spread = np.random.default_rng(1).normal(exponent, 0.1, 12)
    rows = crossed(spread, lengths=lengths, clusters=6, shared=0.02, own=0.05)
    write_run(outputs, name, label, rows, source="smollm2", **keys)


@pytest.fixture
def evidence(tmp_path):
    return lambda name="models": gather(settings.study(name), Records(complete_runs(tmp_path)))


def study(evidence):
    how = settings.fits(settings.analysis())
    return models.study(evidence(), settings.study("models"), how)["models"]


def shown_exponents(evidence):
    how = settings.fits(settings.analysis())
    tables = exponents.study(evidence("exponents"), settings.study("exponents"), how)
    return set(sources_shown(tables["fits_sources"], settings.figure("exponents"))["label"])


def test_each_text_has_its_line_and_the_same_lengths(tmp_path, evidence):
    write(tmp_path, "prose", "Tiny", 0.3, LONG)
    write(tmp_path, "code", "Tiny, source code", 0.4, text="python:code")
    write(tmp_path, "mixed", "Tiny, shuffled tokens", 0.5, shuffle=True)
    table = study(evidence)
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


def test_other_studies_leave_comparisons_out_beside_a_main_text(tmp_path, evidence):
    write(tmp_path, "prose", "Tiny", 0.5)
    write(tmp_path, "own", "Tiny, diary", 0.5, text="my/diary.txt")
    write(tmp_path, "named", "Tiny, translation", 0.5, text="my/translation.txt")  # a name alone makes no control
    write(tmp_path, "code", "Tiny, source code", 0.4, text="python:code")
    write(tmp_path, "translated", "Tiny, Japanese Bible", 0.5, text="corpus:japanese_bible")
    write(tmp_path, "mixed", "Tiny, shuffled tokens", 0.5, shuffle=True)
    assert set(evidence("heads").rows["label"]) == {"Tiny", "Tiny, diary", "Tiny, translation"}
    assert shown_exponents(evidence) == {"Tiny", "Tiny, diary", "Tiny, translation"}
    assert evidence("models").rows["label"].nunique() == 6


def test_a_model_that_has_read_only_code_is_in_every_figure(tmp_path, evidence):
    write(tmp_path, "code", "Tiny, source code", 0.4, text="python:code")
    assert set(evidence("heads").rows["label"]) == shown_exponents(evidence) == {"Tiny, source code"}


def test_models_without_common_lengths_keep_their_own(tmp_path, evidence):
    write(tmp_path, "prose", "Tiny", 0.5, (100, 200, 400, 800, 1600))
    write(tmp_path, "code", "Tiny, source code", 0.5, text="python:code")
    table = study(evidence)
    assert set(table["longest"]) == {1600, 8192}
