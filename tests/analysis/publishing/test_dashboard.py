"""The workspace as code: without a login a specification and a run to sync; with one, saved and later updated."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import wandb

from analysis import save, settings
from analysis.publishing import dashboard, ledger
from analysis.publishing.dashboard import main
from analysis.records.evidence import Records
from analysis.records.load import complete_runs
from analysis.studies import provenance
from tests.analysis.synthetic import law, write_run
from tests.tracking.test_weights_and_biases import read_back

workspaces = pytest.importorskip(
    "wandb_workspaces.workspaces", reason="no wandb-workspaces: pip install '.[dashboard]'"
)
ASK = ("--entity", "someone", "--project", "keys")


@pytest.fixture(autouse=True)
def offline(monkeypatch, outputs):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(outputs / "wandb"))


@pytest.fixture
def outputs(tmp_path):
    """Return outputs with one drawn figure and the tables, as an analysis leaves them."""
    from PIL import Image

    (tmp_path / "figures").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "figures" / "regimes.png")
    write_run(tmp_path, "r1", "G", law(np.sqrt, clusters=1), s=0.5)
    fits = pd.DataFrame({"label": ["G"], "C": [0.61803398875]})
    records = Records(complete_runs(tmp_path))
    save.write_csv(fits.iloc[:0], tmp_path / "tables", "claims")
    for study in ("exponents", "keys"):
        config = settings.study(study)
        for name in config.tables:
            save.write_csv(fits if name == "fits_pooled" else fits.iloc[:0], tmp_path / "tables", name)
        made = provenance.stamp_of(study, config, records)
        made.write(provenance.stamp_path(study, tmp_path), provenance.files(config, tmp_path))
    ledger.write(tmp_path / "tables", ledger.current_tables(tmp_path, records))
    return tmp_path


def test_without_a_login_it_writes_the_specification_and_says_what_to_do(outputs, capsys):
    assert main([*ASK, "--outputs", str(outputs)]) == 0
    said = capsys.readouterr().out
    assert "wandb login" in said
    assert "wandb sync" in said
    written = json.loads((outputs / "wandb" / "workspace.json").read_text())
    assert written["url"] is None
    assert written["workspace"]["entity"] == "someone"
    text = json.dumps(written["workspace"])
    assert all(
        name in text
        for name in (
            "mean_window/0.1",
            "typical_head/0.1",
            "dropped_mass/power_0.5",
            "figures/regimes",
            "tables/claims",
        )
    )


def test_the_specification_is_one_that_the_library_reads_back():
    view = dashboard.workspace("someone", "keys")
    again = workspaces.Workspace._from_model(view._to_model())
    assert [section.name for section in again.sections] == [section.name for section in view.sections]
    assert again.sections[0].panels[0].x.name == "length"


def test_the_analysis_run_holds_figures_and_tables(outputs):
    assert main([*ASK, "--outputs", str(outputs)]) == 0
    wandb.teardown()
    (run,) = (outputs / "wandb").glob("offline-run-*")
    records = list(read_back(next(run.glob("*.wandb"))))
    info = next(record.run for record in records if record.HasField("run"))
    assert (info.entity, info.project, info.run_group, info.job_type) == ("someone", "keys", "analysis", "analysis")
    media = run / "files" / "media"
    assert len(list((media / "images" / "figures").glob("regimes_*.png"))) == 1
    (path,) = (media / "table" / "tables").glob("fits_pooled_*.json")
    assert json.loads(path.read_text())["data"] == [["G", 0.61803398875]]


def test_a_table_that_was_edited_is_not_published(outputs, capsys):
    path = outputs / "tables" / "fits_pooled.csv"
    path.write_text(path.read_text().replace("0.618", "0.918"))
    assert main([*ASK, "--outputs", str(outputs)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "fits_pooled.csv: not the table that was written" in line


def test_with_a_login_it_is_saved_and_then_updated(outputs, monkeypatch, capsys):
    saved = []

    class View:
        def __init__(self, url, sections):
            self.url, self.sections = url, sections

        def save(self):
            saved.append(self)
            return self

        def _to_model(self):
            return dashboard_workspace("someone", "keys")._to_model()

        @classmethod
        def from_url(cls, url):
            return cls(url, [])

    dashboard_workspace = dashboard.workspace
    monkeypatch.setattr(dashboard, "logged_in", lambda: True)
    monkeypatch.setattr(dashboard, "log_analysis", lambda *asked: "")
    monkeypatch.setattr(dashboard, "workspace", lambda entity, project: View(f"https://wandb.ai/{project}", ["new"]))
    for _ in range(2):
        assert main([*ASK, "--outputs", str(outputs)]) == 0
        assert "https://wandb.ai/keys" in capsys.readouterr().out
    assert [view.sections for view in saved] == [["new"], ["new"]]
    assert json.loads((outputs / "wandb" / "workspace.json").read_text())["url"] == "https://wandb.ai/keys"


def test_before_any_analysis_it_says_what_to_run(tmp_path, capsys):
    assert main([*ASK, "--outputs", str(tmp_path / "nothing")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "python -m analysis" in line


def test_a_folder_that_cannot_be_written_is_one_line(outputs, capsys):
    (outputs / "wandb").write_text("")
    assert main([*ASK, "--outputs", str(outputs)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {outputs / 'wandb'}: ")
    assert len(said.splitlines()) == 1


def test_without_the_extra_it_says_how_to_install_it(outputs, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "wandb_workspaces.workspaces", None)
    assert main([*ASK, "--outputs", str(outputs)]) == 1
    assert "pip install '.[dashboard]'" in capsys.readouterr().err


def test_each_claim_has_a_section_and_each_chart_finds_what_runs_log():
    view = dashboard.workspace("someone", "keys")
    names = [section.name for section in view.sections]
    assert all(any(name.startswith(f"Claim {i}") for name in names) for i in range(1, 6))
    window, two = ("power_0.5", "fixed_64", "log_1_x4", "linear_0.1"), ("oracle/power_0.5", "sinks/power_0.5")
    logged = [*(f"{mean}/0.1" for mean in dashboard.MEANS), "mean_window_of_layer/0.1/07"]
    logged += [f"{measure}/{name}" for measure in dashboard.ERRORS for name in (*window, *two)]
    logged += ["loss/fixed_64", "agreement/fixed_64", "kl/fixed_64", "log_prob/dense", "exact/dense"]
    logged += ["dense_seconds/fixed_64"]
    patterns = [p.metric_regex for s in view.sections for p in s.panels if getattr(p, "metric_regex", None)]
    assert len(patterns) == len(set(patterns)) == 14  # one chart per question
    for pattern in patterns:
        assert any(re.fullmatch(pattern, name) for name in logged), pattern
    shown = {key for s in view.sections for p in s.panels for key in getattr(p, "media_keys", [])}
    assert {f"figures/{name}" for name in settings.figures()} <= shown


def test_heads_of_models_are_a_table_of_their_own(outputs):
    head = {"label": "TinyLM", "kind": "real", "variant": "plain", "eta": 0.1, "law": "power", "layer": 1, "head": 2}
    numbers = {"k_longest": 9.0, "n_longest": 99.0, "C": 0.5, "C_low": 0.4, "C_high": 0.6}
    lines = [head | numbers, head | numbers | {"law": "log"}, head | numbers | {"kind": "gaussian"}]
    found = dashboard.of_heads(pd.DataFrame(lines), 0.1)
    assert found.to_dict("records") == [{name: (head | numbers)[name] for name in dashboard.HEADS}]
