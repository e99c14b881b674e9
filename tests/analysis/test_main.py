import json
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from analysis import figures, settings
from analysis.__main__ import main
from experiments.records.folder import seal

ROOT = Path(__file__).parents[2]
REAL_ONLY = ("exponents", "heads", "models", "attention")  # of the demo's records, these rest on the real model's alone
MODEL_RUN = ["cost", "language", "retrieval"]  # their records are those of other runners


def run(outputs, *arguments):
    return main(["--outputs", str(outputs), *arguments])


def statuses(text):
    lines = [line.split(maxsplit=2) for line in text.splitlines()]
    return {line[0]: line[1] for line in lines if len(line) > 1 and line[0] in {*figures.names(), "fits"}}


def times(outputs):
    drawn = [path for folder in ("figures", "tables") for path in (outputs / folder).iterdir()]
    return {path.name: path.stat().st_mtime_ns for path in drawn}


def test_every_script_has_its_yaml_and_the_other_way_round():
    assert figures.names() == sorted(path.stem for path in (settings.CONF / "figure").glob("*.yaml"))


def test_everything_is_made_and_the_last_line_is_the_report(outputs, capsys):
    assert run(outputs) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith(str(outputs / "report" / "index.html"))
    for name in figures.names():
        for suffix in ("pdf", "svg", "png", "json"):
            assert (outputs / "figures" / f"{name}.{suffix}").stat().st_size > 0
        for suffix in ("csv", "tex"):
            assert (outputs / "tables" / f"{name}.{suffix}").stat().st_size > 0
    for name in ("fits", "fits_pooled", "laws"):
        assert (outputs / "tables" / f"{name}.csv").stat().st_size > 0


def test_a_second_run_draws_nothing(outputs, capsys):
    before = times(outputs)
    assert run(outputs) == 0
    assert set(statuses(capsys.readouterr().out).values()) == {"fresh"}
    assert times(outputs) == before


def test_force_redraws_all_and_to_the_last_byte_alike(outputs, capsys):
    before = {path: path.read_bytes() for path in (outputs / "figures").iterdir()}
    before |= {path: path.read_bytes() for path in (outputs / "tables").iterdir()}
    assert run(outputs, "--force") == 0
    assert set(statuses(capsys.readouterr().out).values()) == {"made", "drawn"}
    assert [path.name for path, old in before.items() if path.read_bytes() != old] == []


def test_only_the_figures_of_a_changed_record_are_redrawn(outputs, capsys):
    path = outputs / "runs" / "gaussian0" / "manifest.json"
    seal(path.parent, json.loads(path.read_text()) | {"created": "2025-02-02T00:00:00"})
    assert run(outputs) == 0
    assert statuses(capsys.readouterr().out) == {
        "fits": "made",
        **dict.fromkeys(figures.names(), "drawn"),
        **dict.fromkeys([*REAL_ONLY, *MODEL_RUN], "fresh"),
    }


def test_a_changed_yaml_redraws_its_figure_alone(outputs, capsys, monkeypatch):
    plain = settings.figure
    changed = {"windows": {"curves": 2}}
    monkeypatch.setattr(settings, "figure", lambda name: OmegaConf.merge(plain(name), changed.get(name, {})))
    assert run(outputs) == 0
    found = statuses(capsys.readouterr().out)
    assert found.pop("windows") == "drawn"
    assert set(found.values()) == {"fresh"}


def test_a_lost_file_is_drawn_again(outputs, capsys):
    (outputs / "figures" / "attention.svg").unlink()
    assert run(outputs) == 0
    assert statuses(capsys.readouterr().out)["attention"] == "drawn"


def test_a_spoilt_stamp_counts_as_none(outputs, capsys):
    (outputs / "figures" / "attention.json").write_text("{")
    assert run(outputs) == 0
    assert statuses(capsys.readouterr().out)["attention"] == "drawn"


def test_only_leaves_the_other_figures_alone(outputs, capsys):
    (outputs / "figures" / "attention.svg").unlink()
    (outputs / "figures" / "windows.svg").unlink()
    assert run(outputs, "--only", "windows") == 0
    assert statuses(capsys.readouterr().out)["windows"] == "drawn"
    assert not (outputs / "figures" / "attention.svg").exists()


def test_the_stamp_names_the_records_and_the_command(analysed):
    stamp = json.loads((analysed / "figures" / "exponents.json").read_text())
    assert list(stamp["records"]) == ["real"]
    assert stamp["command"] == "python -m analysis --only exponents --force"
    assert stamp["config"]["eta"] == 0.1


def test_a_figure_without_records_is_skipped_with_its_reason_and_its_old_files_go(outputs, capsys):
    for manifest in (outputs / "runs").glob("*real*/manifest.json"):
        manifest.unlink()
    assert run(outputs) == 0
    printed = capsys.readouterr().out
    assert statuses(printed) == {
        "fits": "made",
        **dict.fromkeys(figures.names(), "drawn"),
        **dict.fromkeys(REAL_ONLY, "skipped"),
        **dict.fromkeys(MODEL_RUN, "fresh"),
    }
    assert "no real model has been measured" in printed
    assert "no run recorded attention matrices" in printed
    assert not list((outputs / "figures").glob("exponents.*"))
    assert "no real model has been measured" in (outputs / "report" / "index.html").read_text()


def test_an_unknown_figure_is_one_line_with_the_names(outputs, capsys):
    assert run(outputs, "--only", "regimes", "nonsense") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no figure named nonsense: choose from ")
    assert all(name in error for name in figures.names())
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("torn", ["rows.parquet", "attention.safetensors"])
def test_a_torn_record_is_one_line(outputs, capsys, torn):
    path = outputs / "runs" / "real" / torn
    path.write_bytes(path.read_bytes()[:100])
    assert run(outputs) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: cannot read ")
    assert torn in error
    assert len(error.splitlines()) == 1


def test_without_records_the_command_ends_in_one_line(tmp_path):
    command = [sys.executable, "-m", "analysis", "--outputs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no complete records")
    assert len(done.stderr.splitlines()) == 1


def test_a_figure_that_fails_harms_no_other(outputs, capsys, monkeypatch):
    def fail(evidence, config):
        raise ZeroDivisionError("of a kind that nobody thought of")

    monkeypatch.setattr("analysis.figures.regimes.draw", fail)
    assert run(outputs, "--only", "regimes", "windows", "--force") == 1
    captured = capsys.readouterr()
    told = statuses(captured.out)
    assert (told["regimes"], told["windows"]) == ("failed", "drawn")
    assert captured.err.count("\n") == 1
    assert "figure regimes failed: ZeroDivisionError: of a kind" in captured.err
    assert "Traceback" in (outputs / "figures" / "regimes.log").read_text()
    assert (outputs / "report" / "index.html").exists()
    monkeypatch.undo()
    assert run(outputs, "--only", "regimes") == 0
    assert not (outputs / "figures" / "regimes.log").exists()
