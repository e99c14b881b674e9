"""What `analysis` answers from Python, against the tables that it reads and laws that are known."""

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import keys, settings
from analysis.statistics.fit import fit_pooled
from experiments.errors import UserError
from tests.analysis import synthetic

LENGTHS = (512, 1024, 2048, 4096, 8192)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Outputs with two models of known power laws, of several heads, and a Gaussian source."""
    outputs = tmp_path_factory.mktemp("questions")
    for name, label, factor, seed in (("base", "Tiny-Base", 2.0, 1), ("chat", "Tiny-Chat", 3.0, 2)):
        rows = synthetic.law(lambda n, factor=factor: factor * n**0.5, LENGTHS, heads=4, noise=0.1, seed=seed)
        windows = synthetic.gaussian((512, 1024), 4, 2, s=0.5, places=((0, 0), (0, 1), (0, 2), (0, 3)), seed=seed)[1]
        synthetic.write_run(outputs, name, label, rows, windows, source="checkpoint", model=f"/models/{name}")
    rows, windows = synthetic.gaussian((256, 512, 1024, 2048), 8, 4, s=0.8)
    synthetic.write_run(outputs, "gauss", "Gaussian, s = 0.8", rows, windows, s=0.8)
    return outputs


def test_load_chooses_labels_and_lengths(records):
    every = analysis.load(records)
    chosen = analysis.load(records, label="chat", lengths=[512, 1024])
    for whole, part in zip(every, chosen, strict=True):
        expected = whole[(whole["label"] == "Tiny-Chat") & whole["length"].isin([512, 1024])]
        pd.testing.assert_frame_equal(part, expected)
    several, _ = analysis.load(records, ["n"], label=["Tiny-Base", "Gaussian"])
    assert list(several) == ["n"]
    assert len(several) == every[0]["label"].isin(["Tiny-Base", "Gaussian, s = 0.8"]).sum()


def test_fits_are_those_of_the_analysis(records):
    how = settings.fits(settings.analysis())
    expected = fit_pooled(analysis.load(records)[0], how)
    pd.testing.assert_frame_equal(analysis.fits(records), expected)
    some = analysis.fits(records, label="Tiny-Base", lengths=LENGTHS[:4], eta=0.05, heads=True)
    assert set(some["eta"]) == {0.05}
    assert set(some["lengths"]) == {4}
    assert some.groupby(["layer", "head"]).ngroups == 4
    power = some[some["law"] == "power"]
    assert power["C"].mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("mean", ["mean window", "typical head"])
def test_keys_needed_are_those_of_the_known_law(records, mean):
    n = np.array([512, 8192, 100_000])
    needed = analysis.k_min("Tiny-Base", n, 0.1, outputs=records, mean=mean, law="power")
    assert needed["k"].to_numpy() == pytest.approx(2 * n**0.5, rel=0.1)
    assert (needed["k_low"] < needed["k"]).all()
    assert (needed["k"] < needed["k_high"]).all()
    assert needed["extrapolated"].tolist() == [False, False, True]
    assert (np.diff(needed["k_high"] / needed["k_low"])[-1:] > 0).all()  # further away, less is known
    best = analysis.fits(records, label="Tiny-Base", eta=0.1)
    winner = best.loc[best["winner"].fillna(False).astype(bool), "law"].item()
    if mean == "typical head":
        assert set(analysis.k_min("Tiny-Base", 512, outputs=records, mean=mean)["law"]) == {winner}


def test_two_runs_are_compared_head_by_head(records):
    pair = analysis.compare("base", "Tiny-Chat", records)
    assert pair.settings.set_index("field").loc["source.model"].tolist() == ["/models/base", "/models/chat"]
    table = pair.keys[pair.keys["eta"] == 0.1]
    assert table["length"].tolist() == list(LENGTHS)
    assert table["ratio"].to_numpy() == pytest.approx(1.5, rel=0.1)
    assert ((table["ratio_low"] < 1.5) & (table["ratio_high"] > 1.5)).mean() >= 0.6
    assert table["second"].to_numpy() / table["first"].to_numpy() == pytest.approx(table["ratio"].to_numpy())
    windows = [analysis.load(records, label=label)[1] for label in ("Tiny-Base", "Tiny-Chat")]
    line = pair.windows[(pair.windows["rule"] == "fixed") & (pair.windows["length"] == 512)].iloc[0]
    for frame, side in zip(windows, ("first", "second"), strict=True):
        same = frame[(frame["rule"] == "fixed") & (frame["length"] == 512) & (frame["parameter"] == line["parameter"])]
        assert line[f"dropped_mass_{side}"] == pytest.approx(same["dropped_mass"].mean())


def test_a_run_beside_itself_is_refused_and_one_of_half_its_heads_is_not(records, tmp_path):
    rows = synthetic.law(lambda n: 2 * n**0.5, LENGTHS, heads=4, noise=0.1)
    windows = synthetic.gaussian((512,), 4, 2, s=0.5, places=((0, 0), (0, 1)))[1]
    for name, kept in (("whole", rows), ("half", rows[rows["head"] < 2])):
        synthetic.write_run(tmp_path, name, f"Tiny, {name}", kept, windows, source="checkpoint")
    pair = analysis.compare("half", "whole", tmp_path)
    assert pair.keys["ratio"].to_numpy() == pytest.approx(1.0)  # of the heads that both have
    with pytest.raises(UserError, match="half and Tiny, half are one run"):
        analysis.compare("half", "Tiny, half", tmp_path)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (
            lambda outputs: analysis.load(outputs, label="Tiny"),
            '"Tiny" is part of several labels: give one of "Tiny-Base", "Tiny-Chat"',
        ),
        (
            lambda outputs: analysis.load(outputs, label="GPT"),
            'no label has "GPT" in it: give one of "Gaussian, s = 0.8", "Tiny-Base"',
        ),
        (lambda outputs: analysis.load(outputs, experiment="heads"), "experiment='heads': choose one of"),
        (lambda outputs: analysis.k_min("Tiny-Base", 9, outputs=outputs, layer=0), "layer=0, head=None: give both"),
        (
            lambda outputs: analysis.k_min("Tiny-Base", 9, outputs=outputs, layer=0, head=7),
            "layer=0, head=7: give both, of a head of Tiny-Base that was measured; the last are 0 and 3",
        ),
        (lambda outputs: analysis.load(outputs, lengths=[300]), "no context length 300 was measured: choose among 256"),
        (lambda outputs: analysis.fits(outputs, eta=0.3), "eta=0.3: rows are measured for a dropped mass of 0.5"),
        (lambda outputs: analysis.k_min("Tiny-Base", 0, outputs=outputs), "n=0: give context lengths"),
        (lambda outputs: analysis.k_min("Tiny-Base", [9, np.nan], outputs=outputs), "give context lengths"),
        (lambda outputs: analysis.k_min("Tiny-Base", 9, outputs=outputs, law="cubic"), "law='cubic': choose one of"),
        (lambda outputs: analysis.k_min("Tiny-Base", 9, outputs=outputs, mean="median"), "mean='median': choose"),
        (
            lambda outputs: analysis.k_min("Tiny-Base", 9, outputs=outputs, lengths=[512, 1024]),
            "Tiny-Base: no law is fitted, fewer than 3 lengths",
        ),
        (lambda outputs: analysis.compare("base", "gpt", outputs), "gpt: no run of runner=approximation: name one of"),
    ],
)
def test_what_was_not_measured_is_named_with_what_was(records, ask, words):
    with pytest.raises(UserError) as refusal:
        ask(records)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_one_head_needs_what_its_own_rows_say(records, capsys):
    lines = analysis.k_min("Tiny-Base", [1024, 8192], outputs=records, law="power", layer=0, head=2)
    fitted = analysis.fits(records, label="Tiny-Base", eta=0.1, heads=True)
    own = fitted[(fitted["head"] == 2) & (fitted["law"] == "power")].iloc[0]
    assert lines["k"].to_numpy() == pytest.approx(own["a"] * np.array([1024, 8192]) ** own["C"], rel=0.02)
    assert (lines["k_low"] < lines["k"]).all()
    assert (lines["k"] < lines["k_high"]).all()
    words = ["--model", "base", "--n", "8192", "--layer", "0", "--head", "2", "--law", "power"]
    assert keys.main([*words, "--outputs", str(records)]) == 0
    assert f"n = 8,192: {lines['k'].iloc[1]:,.1f} keys [" in capsys.readouterr().out
    assert keys.main([*words, "--model", "Tiny", "--outputs", str(records)]) == 1
    assert capsys.readouterr().err.startswith('error: "Tiny" is part of several labels: ')


def test_a_label_of_several_configurations_is_said_once(tmp_path, capsys):
    windows = synthetic.gaussian((512,), 4, 2, s=0.5, places=((0, 0), (0, 1)))[1]
    for name, heads in (("few", 2), ("many", 4)):
        rows = synthetic.law(lambda n: 2 * n**0.5, LENGTHS, heads=heads, noise=0.1)
        source = {"source": "checkpoint", "heads": list(range(heads))}
        synthetic.write_run(tmp_path, name, "Tiny", rows, windows, experiment=name, **source)
    whole, _ = analysis.load(tmp_path, ["n"])
    assert list(whole) == ["n"]
    error = capsys.readouterr().err
    assert error.startswith("runs of several configurations bear one label: Tiny (few, many); a mean over all lines")
    assert error.count("\n") == 1
    one, _ = analysis.load(tmp_path, ["n"], experiment="few")
    assert 0 < len(one) < len(whole)
    assert capsys.readouterr().err == ""
