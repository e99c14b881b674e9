import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from analysis import settings
from analysis.__main__ import main
from analysis.publishing import ledger
from experiments.errors import UserError
from experiments.records.folder import seal
from tests.analysis.synthetic import gaussian, law, write_run

ROOT = Path(__file__).parents[2]
REAL_ONLY = (
    "entropy",
    "heads",
    "maps",
    "models",
    "attention",
    "tenfold",
    "unions",
)  # of the demo's records, these rest on the real model's alone
# their records are those of other runners
MODEL_RUN = (
    "columns",
    "cost",
    "coverage",
    "distance",
    "gains",
    "language",
    "loss_at_power",
    "methods",
    "pruning",
    "retrieval",
    "sketches",
    "support",
    "tasks",
)


def run(outputs, *arguments):
    return main(["--outputs", str(outputs), *arguments])


def statuses(text, kind="figure"):
    """Return the statuses of all figures, or with `tables` of all studies, by name."""
    lines = [line.split(maxsplit=3) for line in text.splitlines()]
    return {line[1]: line[2] for line in lines if len(line) > 2 and line[0] == kind}


def times(outputs):
    drawn = [path for folder in ("figures", "tables") for path in (outputs / folder).iterdir()]
    return {path.name: path.stat().st_mtime_ns for path in drawn}


@pytest.mark.parametrize(("folder", "names"), [("figures", settings.figures), ("studies", settings.studies)])
def test_every_script_has_its_yaml_and_the_other_way_round(folder, names):
    scripts = {path.stem for path in (ROOT / "analysis" / folder).glob("[!_]*.py")} - {"provenance"}
    assert scripts == set(names())


def test_everything_is_made_and_the_last_line_is_the_report(outputs, capsys):
    assert run(outputs) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith(str(outputs / "report" / "index.html"))
    for name in settings.figures():
        for suffix in ("pdf", "svg", "png", "json"):
            assert (outputs / "figures" / f"{name}.{suffix}").stat().st_size > 0
    for name in settings.studies():
        for table in settings.study(name).tables:
            for suffix in ("csv", "tex"):
                assert (outputs / "tables" / f"{table}.{suffix}").stat().st_size > 0


def test_a_second_run_draws_nothing(outputs, capsys):
    before = times(outputs)
    assert run(outputs) == 0
    printed = capsys.readouterr().out
    assert set(statuses(printed).values()) == set(statuses(printed, "tables").values()) == {"fresh"}
    assert times(outputs) == before


@pytest.mark.long
def test_force_redraws_all_and_to_the_last_byte_alike(outputs, capsys):
    before = {path: path.read_bytes() for path in (outputs / "figures").iterdir()}
    before |= {path: path.read_bytes() for path in (outputs / "tables").iterdir()}
    assert run(outputs, "--force") == 0
    printed = capsys.readouterr().out
    assert set(statuses(printed).values()) == {"drawn"}
    assert set(statuses(printed, "tables").values()) == {"made"}
    assert [path.name for path, old in before.items() if path.read_bytes() != old] == []


@pytest.mark.usefixtures("unsaved")
def test_only_the_tables_of_a_changed_record_are_made_and_equal_tables_redraw_nothing(outputs, capsys):
    path = outputs / "runs" / "gaussian0" / "manifest.json"
    seal(path.parent, json.loads(path.read_text()) | {"created": "2025-02-02T00:00:00"})
    assert run(outputs) == 0
    printed = capsys.readouterr().out
    fresh = dict.fromkeys([*REAL_ONLY, *MODEL_RUN], "fresh")
    assert statuses(printed, "tables") == dict.fromkeys(settings.studies(), "made") | fresh
    assert set(statuses(printed).values()) == {"fresh"}


def test_a_changed_style_or_size_redraws_its_figure_alone_and_runs_no_study(outputs, capsys, monkeypatch):
    plain = settings.figure
    changed = {"windows": {"curves": 2}}
    monkeypatch.setattr(settings, "figure", lambda name: OmegaConf.merge(plain(name), changed.get(name, {})))
    monkeypatch.setattr("analysis.pipeline.gather", lambda *_: pytest.fail("a study was run"))
    assert run(outputs) == 0
    printed = capsys.readouterr().out
    figures = statuses(printed)
    assert figures.pop("windows") == "drawn"
    assert set(figures.values()) == set(statuses(printed, "tables").values()) == {"fresh"}


@pytest.mark.usefixtures("unsaved")
def test_what_figures_show_changes_no_verdict(outputs, capsys, monkeypatch):
    plain, before = settings.figure, (outputs / "tables" / "claims.csv").read_bytes()
    less = {"gaussians": 2, "shows": {"s": [0.3, None]}}
    monkeypatch.setattr(settings, "figure", lambda name: OmegaConf.merge(plain(name), less))
    assert run(outputs) == 0
    assert "failed" not in statuses(capsys.readouterr().out).values()
    assert (outputs / "tables" / "claims.csv").read_bytes() == before
    verdicts = pd.read_csv(outputs / "tables" / "claims.csv")
    assert {f"Gaussian, s = {s}" for s in (0.3, 0.5, 0.8)} <= set(verdicts["source"])


@pytest.mark.usefixtures("unsaved")
def test_every_measured_setting_and_window_is_judged(tmp_path):
    """Seven logit scales and two fixed windows: claims 1, 2 and 3 speak of all of them."""
    for i in range(7):
        rows, windows = gaussian((256, 512, 1024, 2048), 4, 3, s=0.2 + 0.1 * i, seed=i)
        write_run(tmp_path, f"g{i}", f"Gaussian, s = {0.2 + 0.1 * i:g}", rows, windows, s=round(0.2 + 0.1 * i, 1))
    assert run(tmp_path, "--only", "decay_rates", "log_window", "collapse") == 0
    verdicts = claims_of(tmp_path)
    for claim in (1, 2, 3):
        assert verdicts[verdicts["claim"] == claim]["source"].nunique() == 7
    assert set(verdicts.loc[verdicts["claim"] == 2, "lines"]) == {1}  # fixed 64 and 4 ln n: 256 keys are no o(log n)


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


def test_the_stamps_name_records_tables_and_commands(analysed):
    stamp = json.loads((analysed / "figures" / "exponents.json").read_text())
    assert list(stamp["inputs"]) == ["fits", "fits_pooled", "fits_sources", "local_exponents", "truths_summary"]
    assert stamp["command"] == "python -m analysis --only exponents --force"
    assert stamp["config"]["eta"] == 0.1
    stamp = json.loads((analysed / "tables" / "heads.json").read_text())
    assert list(stamp["inputs"]) == [
        "real",
        "real_approximators",
        "real_long",
        "real_own",
        "real_shared",
        "real_thresholds",
        "several_real_None",
    ]
    assert stamp["config"]["eta"] == 0.1


@pytest.mark.usefixtures("unsaved")
def test_a_figure_without_records_is_skipped_with_its_reason_and_its_old_files_go(outputs, capsys):
    for manifest in (outputs / "runs").glob("*real*/manifest.json"):
        manifest.unlink()
    assert run(outputs) == 0
    printed = capsys.readouterr().out
    none = dict.fromkeys([*REAL_ONLY, "approximators", "own_windows", "shared", "thresholds"], "skipped")
    fresh = dict.fromkeys(MODEL_RUN, "fresh")
    fresh |= {"triples": "fresh"}  # of drawn rows alone
    assert statuses(printed, "tables") == dict.fromkeys(settings.studies(), "made") | none | fresh
    assert statuses(printed) == dict.fromkeys(settings.figures(), "drawn") | none | fresh | {"exponents": "skipped"}
    assert "no real model has been measured" in printed
    assert "no run recorded attention matrices" in printed
    assert not list((outputs / "figures").glob("exponents.*"))
    assert "no real model has been measured" in (outputs / "report" / "index.html").read_text()


def test_an_unknown_figure_is_one_line_with_the_names(outputs, capsys):
    assert run(outputs, "--only", "regimes", "nonsense") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no figure named nonsense: choose from ")
    assert all(name in error for name in settings.figures())
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


@pytest.fixture
def small_files():
    """Let this process write no file beyond 50 kB, as a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("lost", ["report/index.html", "figures/keys.png", "tables/fits.csv"])
def test_a_full_disk_is_one_line_and_leaves_no_half_of_a_file(outputs, capsys, small_files, lost):
    (outputs / lost).unlink()
    assert main(["--outputs", str(outputs), "--only", "keys"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "free space" in said
    assert len(said.splitlines()) == 1
    assert not list(outputs.glob("*/.*"))


@pytest.mark.parametrize("folder", ["report", "figures", "tables"])
def test_a_folder_that_cannot_be_written_is_one_line(outputs, capsys, folder):
    shutil.rmtree(outputs / folder)
    (outputs / folder).write_text("")
    assert main(["--outputs", str(outputs), "--only", "keys"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1


def test_without_records_the_command_ends_in_one_line(tmp_path):
    command = [sys.executable, "-m", "analysis", "--outputs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no complete records")
    assert len(done.stderr.splitlines()) == 1


def test_a_figure_that_fails_harms_no_other(outputs, capsys, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("of a kind that nobody thought of")

    monkeypatch.setattr("analysis.figures.regimes.draw", fail)
    assert run(outputs, "--only", "regimes", "windows", "--force") == 1
    captured = capsys.readouterr()
    figures = statuses(captured.out)
    assert (figures["regimes"], figures["windows"]) == ("failed", "drawn")
    assert captured.err.count("\n") == 1
    assert "regimes failed: ZeroDivisionError: of a kind" in captured.err
    assert "Traceback" in (outputs / "figures" / "regimes.log").read_text()
    assert (outputs / "report" / "index.html").exists()
    monkeypatch.undo()
    assert run(outputs, "--only", "regimes") == 0
    assert not (outputs / "figures" / "regimes.log").exists()


def claims_of(outputs):
    return pd.read_csv(outputs / "tables" / "claims.csv")


@pytest.mark.usefixtures("unsaved")
def test_a_stale_table_gives_no_verdict_and_is_named(outputs, capsys):
    """After a further record only one figure is drawn: what the other tables say is of the records before."""
    before = claims_of(outputs)
    path = outputs / "runs" / "gaussian0" / "manifest.json"
    seal(path.parent, json.loads(path.read_text()) | {"created": "2025-02-02T00:00:00"})
    assert run(outputs, "--only", "attention") == 0
    printed = capsys.readouterr().out
    figures = statuses(printed)
    assert figures["attention"] == "fresh"
    assert (figures["decay_rates"], figures["heads"]) == ("stale", "not")
    line = next(line for line in printed.splitlines() if line.startswith("no verdict from the tables of"))
    assert "decay_rates" in line
    assert "python -m analysis makes all of them" in line
    after = claims_of(outputs)
    assert "decay_rates" in set(before["table"])
    # that of the extrapolation rests on the record too, and judges real models alone
    stale = {"decay_rates", "sufficient", "adaptive", "held_error", "log_window", "collapse_summary"}
    assert set(after["table"]) == set(before["table"]) - stale - {"extrapolation_summary"}
    page = (outputs / "report" / "index.html").read_text()
    assert "No verdict rests on the tables of" in page
    with pytest.raises(UserError, match=r"decay_rates\.csv: of other records, settings or code than now"):
        ledger.reader(outputs)("decay_rates")


def test_an_edited_table_gives_no_verdict(outputs, capsys):
    path, before = outputs / "tables" / "decay_rates.csv", claims_of(outputs)
    path.write_text(path.read_text().replace("-0.", "0."))
    assert run(outputs, "--only", "attention") == 0
    assert statuses(capsys.readouterr().out, "tables")["decay_rates"] == "damaged"
    assert set(claims_of(outputs)["table"]) == set(before["table"]) - {"decay_rates", "sufficient"}


@pytest.mark.parametrize("how", ["edited", "cut", "gone"])
def test_a_spoilt_table_is_not_quoted(outputs, how):
    path = outputs / "tables" / "decay_rates.csv"
    text = path.read_text()
    path.write_text({"edited": text.replace("-0.", "0."), "cut": text[: len(text) // 2]}.get(how, ""))
    if how == "gone":
        path.unlink()
    with pytest.raises(UserError, match=r"decay_rates\.csv: not the table that was written"):
        ledger.reader(outputs)("decay_rates")


def test_a_spoilt_fit_table_is_made_anew(outputs, capsys):
    path = outputs / "tables" / "fits.csv"
    text = path.read_text()
    path.write_text(text.replace("power", "log", 1))
    assert run(outputs, "--only", "attention") == 0
    assert statuses(capsys.readouterr().out, "tables")["exponents"] == "made"
    assert path.read_text() == text


def test_tables_of_other_records_are_not_quoted(outputs):
    assert len(ledger.reader(outputs)("claims"))
    shutil.rmtree(outputs / "runs" / "gaussian0")
    with pytest.raises(UserError, match=r"claims\.csv: of other records, settings or code"):
        ledger.reader(outputs)("claims")
    (outputs / "tables" / "claims.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="run python -m analysis"):
        ledger.reader(outputs)


def test_markup_in_labels_paths_and_reasons_is_plain_text(tmp_path, capsys):
    folder = tmp_path / "x[/y]"
    write_run(folder, "r1", "model [/y] $x_1", law(np.sqrt, clusters=1, heads=2), source="smollm2", model="m")
    assert run(folder, "--only", "exponents", "attention") == 0
    assert str(folder / "report" / "index.html") in capsys.readouterr().out
    assert set(pd.read_csv(folder / "tables" / "fits.csv")["label"]) == {"model [/y] $x_1"}


@pytest.mark.parametrize("lengths", [(16, 32, 64, 128), (64, 72, 80, 96), (8, 12, 16, 24)])
def test_few_lengths_and_samples_fail_no_figure(tmp_path, lengths):
    rows, windows = gaussian(lengths, 4, 2, s=0.3)
    # settings of the row rules that all keep the same: there is no curve of cost to read
    k = windows[windows["rule"] == "grid"].assign(k=1.0)
    same = [k.assign(rule=rule, parameter=p) for rule in ("threshold", "top_p") for p in (0.5, 0.4, 0.3)]
    same = [frame.drop_duplicates(["sample", "length"]) for frame in same]
    write_run(tmp_path, "r1", "G", rows, pd.concat([windows, *same], ignore_index=True), s=0.3)
    assert run(tmp_path, "--only", "adaptive") == 0


@pytest.mark.usefixtures("unsaved")
@pytest.mark.parametrize("shorter", [False, True])
def test_only_runs_of_another_design_are_said_to_be_left_out(tmp_path, capsys, shorter):
    """Runs that differ in windows alone have the same rows: each is kept once, and none of the runs is left out."""
    rows, windows = gaussian((64, 128, 256, 512), 4, 4, s=0.5)
    write_run(tmp_path, "a", "G", rows, windows, s=0.5)
    other = windows[windows["rule"] == "power"].assign(parameter=0.77)
    write_run(tmp_path, "b", "G", rows, other, s=0.5)
    if shorter:
        write_run(tmp_path, "c", "G", rows[rows["length"] < 200], windows[windows["length"] < 200], s=0.5, head_dim=8)
    assert run(tmp_path, "--only", "exponents") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert ("laws are fitted without 1 of 3 runs" in out) == shorter
    assert ("laws are fitted without" in out) == shorter


@pytest.mark.usefixtures("unsaved")
def test_two_models_of_one_name_are_both_in_every_table(tmp_path):
    for name in ("runA", "runB"):
        rows, windows = gaussian((64, 128, 256, 512), 4, 4, s=0.5 if name == "runA" else 0.9)
        folder = write_run(tmp_path, name, "checkpoint-500", rows, windows, source="checkpoint", model=f"{name}/ck")
        manifest = json.loads((folder / "manifest.json").read_text())
        seal(folder, manifest | {"hashes": {"model": name[-1] * 64, "text": "c" * 64}})
    assert run(tmp_path, "--only", "exponents", "adaptive", "decay_rates", "heads") == 0
    both = {"runA/checkpoint-500", "runB/checkpoint-500"}
    tables = {path.stem: pd.read_csv(path) for path in (tmp_path / "tables").glob("*.csv") if path.stem != "claims"}
    assert {"fits", "laws", "adaptive", "decay_rates", "heads_summary"} <= set(tables)
    assert {name: set(table["label"]) for name, table in tables.items()} == dict.fromkeys(tables, both)
    assert all(label in (tmp_path / "report" / "index.html").read_text() for label in both)
