"""Budget files: laws recovered from rows made of known ones, the promise, the round trip, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.budget import budget, main
from experiments.errors import UserError
from experiments.launch import configure
from experiments.windows.head_laws import read_budget
from tests.analysis.synthetic import ETAS, write_run

LENGTHS = [256, 512, 1024, 2048, 4096]
LAWS = {(0, 0): (2.0, 0.5), (0, 1): (0.5, 0.8), (1, 0): (9.0, 0.2)}
ROWS, SAMPLES = 12, 8


def model_rows(noise=0.05, bend=1.0, seed=0):
    """Rows whose windows at a dropped mass of 0.05 follow LAWS, times `bend` at the longest length alone."""
    rng = np.random.default_rng(seed)
    lines = []
    for (layer, head), (alpha, c) in LAWS.items():
        for length in LENGTHS:
            for sample in range(SAMPLES):
                n = np.arange(length - ROWS + 1, length + 1)
                k = alpha * n**c * np.exp(noise * rng.standard_normal(ROWS)) * (bend if length == LENGTHS[-1] else 1)
                columns = {"layer": layer, "head": head, "sample": sample, "length": length, "position": n - 1, "n": n}
                columns |= {"variant": "plain", "logit_std": 1.0}
                lines.append(pd.DataFrame(columns | {f"k_min_{eta}": np.ceil(k).astype(int) for eta in ETAS}))
    return pd.concat(lines, ignore_index=True)


@pytest.fixture
def outputs(tmp_path):
    return tmp_path


def written(outputs, **how):
    write_run(outputs, "run", "tiny-model", model_rows(**how), source="checkpoint")
    return outputs


def make(outputs, asked=(), cost=None, extrapolate=False, coverage=0.9, eta=0.05, model="tiny"):
    return budget(outputs, model, eta, coverage, cost, asked, extrapolate)


def test_laws_are_found_and_the_promise_is_kept(outputs):
    content = make(written(outputs))
    for line in content["heads"]:
        alpha, c = LAWS[line["layer"], line["head"]]
        assert line["C"] == pytest.approx(c, abs=0.04)
        assert line["C_low"] <= c <= line["C_high"] or line["C"] == pytest.approx(c, abs=0.02)
        n = 4096.0
        assert line["alpha"] * n ** line["C"] == pytest.approx(alpha * n**c * np.exp(0.05 * 1.28), rel=0.1)
    assert [line["length"] for line in content["promise"]] == LENGTHS
    assert all(line["rows"] >= 0.88 for line in content["promise"])
    assert set(content["fitted"]["samples"]).isdisjoint(content["held_out"]["samples"])
    assert LENGTHS[-1] not in content["fitted"]["lengths"]
    assert content["supported_length"] == LENGTHS[-1] ** 2 // LENGTHS[-2]
    for line in content["heads"]:
        far = line["keys"][-1]
        assert (far["length"], far["extrapolation"]) == (10 * LENGTHS[-2], True)
        assert far["high"] / far["low"] > line["keys"][-2]["high"] / line["keys"][-2]["low"]  # less sure, further out


def test_a_promise_that_is_broken_is_said_to_be(outputs):
    content = make(written(outputs, bend=3.0))
    assert content["held_out"]["foretold"] < 0.8
    assert content["promise"][-1]["rows"] < 0.1
    assert content["supported_length"] == LENGTHS[-1]


def test_lengths_beyond_the_evidence_are_refused_unless_told(outputs):
    written(outputs)
    with pytest.raises(UserError, match="add --extrapolate"):
        make(outputs, asked=[40960])
    content = make(outputs, asked=[40960], extrapolate=True)
    assert content["extrapolated"]
    for line in content["heads"]:
        told = {point["length"]: point for point in line["keys"]}
        assert told[40960]["extrapolation"]
        assert not told[2048]["extrapolation"]
        assert told[40960]["low"] <= told[40960]["k"] <= told[40960]["high"]


def test_what_is_asked_is_printed(outputs, capsys):
    place = ["--model", "tiny", "--outputs", str(written(outputs))]
    assert main([*place, "--lengths", "3000", "40960", "--extrapolate"]) == 0
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if "40960" in line)
    assert "extrapolated" in line
    assert "extrapolated" not in next(line for line in printed.splitlines() if "3000" in line)
    assert f"wrote {outputs / 'budgets' / 'tiny.json'}" in printed
    assert main([*place, "--cost", "40"]) == 0
    assert "no longer a promise" in capsys.readouterr().out


def test_a_cost_is_met_over_all_contexts(outputs):
    content = make(written(outputs), cost=40)
    n = np.arange(1, LENGTHS[-1] + 1, dtype=float)
    spent = np.mean([np.clip(line["alpha"] * n ** line["C"], 1, n).mean() for line in content["heads"]])
    assert spent == pytest.approx(40, rel=1e-3)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"model": "other"}, "measured are: tiny-model"),
        ({"eta": 0.3}, "recorded are 0.5, 0.2"),
        ({"cost": 1e6}, "--cost"),
    ],
)
def test_what_cannot_be_answered_is_refused(outputs, how, message):
    with pytest.raises(UserError, match=message):
        make(written(outputs), **how)


@pytest.mark.parametrize("arguments", [["--tolerance", "kl=1"], ["--coverage", "2"], ["--name", "../x"]])
def test_bad_arguments_end_in_one_line(outputs, capsys, arguments):
    assert main(["--model", "tiny", "--outputs", str(written(outputs)), *arguments]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_file_is_read_by_the_windows_it_is_for(outputs, capsys):
    assert main(["--model", "tiny", "--outputs", str(written(outputs)), "--name", "mine"]) == 0
    path = outputs / "budgets" / "mine.json"
    advised = capsys.readouterr().out.split("python run.py ")[1].split()
    assert configure(*advised).windows.file == str(path)
    content = read_budget(str(path))
    windows = configure("windows=budget", f"windows.file={path}").windows
    rows = type("Rows", (), {"n_R": torch.tensor([100, 4000])})
    for line in content["heads"]:
        k = windows.at(4096).of_head(line["layer"], line["head"]).keys(rows)[:, 0].numpy()
        np.testing.assert_array_equal(k, np.ceil(line["alpha"] * np.array([100.0, 4000.0]) ** line["C"] * (1 - 1e-9)))
    assert windows.at(4096).columns()["rule"] == ["budget"]
    with pytest.raises(UserError, match="no law of layer 7"):
        windows.at(4096).of_head(7, 0)
    with pytest.raises(UserError, match="holds up to"):
        windows.at(100_000)
    source = type("Source", (), {"hashes": lambda self: {"model": "x" * 64}, "name": "a", "label": "another"})
    with pytest.raises(UserError, match="made for tiny-model"):
        windows.check_source(source())


def test_equal_cost_takes_the_heads_laws_at_its_budgets(outputs):
    main(["--model", "tiny", "--outputs", str(written(outputs)), "--name", "mine"])
    path = outputs / "budgets" / "mine.json"
    windows = configure("windows=equal_cost", "windows.budgets=[20]", f"windows.file={path}").windows
    asked = windows.at(2048)
    columns = asked.columns()
    n = torch.arange(1, 2049)
    rows = type("Rows", (), {"n_R": n})
    kept = {}
    for rule in ("budget", "head_fixed"):
        (index,) = [i for i, name in enumerate(columns["rule"]) if name == rule]
        kept[rule] = {place: asked.only(index).of_head(*place).keys(rows)[:, 0].double() for place in LAWS}
        # a window is rounded up
        assert np.mean([k.mean().item() for k in kept[rule].values()]) == pytest.approx(20, abs=0.6)
    for place, k in kept["head_fixed"].items():
        own = next(line for line in read_budget(str(path))["heads"] if (line["layer"], line["head"]) == place)
        wide = k.max().item()  # a short row keeps all it has
        assert (k == n.clamp(max=int(wide))).all()
        others = [read for read in read_budget(str(path))["heads"] if read is not own]
        for other in others:
            ratio = np.mean(own["alpha"] * n.numpy() ** own["C"]) / np.mean(other["alpha"] * n.numpy() ** other["C"])
            theirs = kept["head_fixed"][other["layer"], other["head"]].max().item()
            assert wide / theirs == pytest.approx(ratio, rel=0.25)  # of whole numbers of keys
    pooled = json.loads(path.read_text())["pooled"]["C"]
    assert pooled in columns["parameter"]


def test_the_content_of_the_file_is_part_of_the_run_id(outputs):
    main(["--model", "tiny", "--outputs", str(written(outputs)), "--name", "mine"])
    path = outputs / "budgets" / "mine.json"
    windows = configure("windows=budget", f"windows.file={path}").windows
    before = windows.identity()
    content = json.loads(path.read_text())
    content["runs"] = {name: "0" * 64 for name in content["runs"]}  # as if each record had been measured again
    path.write_text(json.dumps(content))
    assert windows.identity() == before
    content["heads"][0]["alpha"] *= 2
    path.write_text(json.dumps(content))
    assert windows.identity() != before


@pytest.mark.parametrize("text", ["", "{}", '{"format": 99}', "[1]"])
def test_a_damaged_file_is_refused(outputs, text):
    path = outputs / "b.json"
    path.write_text(text)
    with pytest.raises(UserError, match="write it with python"):
        read_budget(str(path))
