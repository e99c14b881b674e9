"""Weights & Biases: each job is a run, offline unless the user asks otherwise; the records stay the truth."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from experiments.curves import ROW_COLUMNS, exponents
from experiments.errors import UserError
from experiments.known_models import known_as
from experiments.lazy import np, pd
from experiments.records.table_file import read
from experiments.tables.rows import ROWS

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # loading it takes longer than a small job

MODES = ("offline", "online", "disabled")
SWEEP = "WANDB_SWEEP_ID"  # what `wandb agent` sets
MATRICES_SHOWN = 4
IN_SUMMARY = ("run_id", "label", "seconds", "peak_rss_mb", "git_revision")
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # where libyaml is there, in a tenth of the time
PANEL = (0.14, 0.13, 0.82, 0.78)  # a layout solver would take longer than the drawing


@dataclass
class WeightsAndBiases:
    """Log one finished job: error-versus-length curves, a table, figures; config and provenance attached."""

    mode: str = "offline"
    project: str = "nc-sparse-attention"
    entity: str | None = None
    artifacts: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"tracking.mode={self.mode}: choose one of {', '.join(MODES)}")

    def logged(self, run_id: str, outputs: Path) -> bool:
        """Say whether there is nothing left to log of a record; an agent's sweep wants the numbers of every job."""
        return self.mode == "disabled" or (SWEEP not in os.environ and _mark(outputs, run_id).exists())

    def log(self, record: Path, curves: pd.DataFrame, *, group: str, outputs: Path) -> None:
        """Log the run whose files lie in `record`, under `outputs`/wandb, with the record's id as W&B's.

        So a record that is measured again takes its own place, and two people of one project share a run of theirs. An
        agent gives each run of its sweep an id. `curves` run over context length, the index, as the record's runner
        makes them. With `artifacts` the record itself goes along.
        """
        if self.mode == "disabled":
            return
        mark = _mark(outputs, record.name)
        for earlier in (outputs / "wandb").glob(f"offline-run-*-{record.name}"):
            shutil.rmtree(earlier, ignore_errors=True)
        manifest = json.loads((record / "manifest.json").read_text())
        manifest["label"] = known_as(manifest["label"])  # of records made before labels were
        config = yaml.load((record / "config.yaml").read_text(), Loader=YAML_LOADER)
        run = start(
            outputs,
            mode=self.mode,
            project=self.project,
            entity=self.entity,
            group=group,
            id=None if SWEEP in os.environ else record.name,
            job_type=config["runner"]["name"],
            name=f"{manifest['label']}{_told_apart(config, manifest)} {manifest['run_id'][:8]}",
            config=config | {"manifest": manifest},
        )
        failed = 1
        try:  # its own `with` would print the traceback of what fails within it
            import wandb

            run.define_metric("length")
            run.define_metric("*", step_metric="length")
            for length, values in curves.iterrows():
                run.log({"length": int(str(length)), **values.dropna().to_dict()})
            run.log({"curves": wandb.Table(dataframe=curves.reset_index())})
            rows = record / ROWS.file
            needed = exponents(read(rows, ROWS, ROW_COLUMNS)) if rows.exists() else pd.DataFrame()
            if len(needed):
                run.log({"exponents": wandb.Table(dataframe=needed)})
            if lines := _power_curves(curves):
                chart = wandb.plot.line_series(
                    [curves.index.tolist()] * len(lines),
                    list(lines.values()),
                    keys=list(lines),
                    title=f"dropped mass of k = n^C, {manifest['label']}",
                    xname="context length",
                )
                run.log({"error_against_length": chart})
            for name, matrix in _matrices(record / "attention.safetensors").items():
                run.log({f"attention/{name}": wandb.Image(_matrix_figure(matrix, name))})
            run.summary.update({name: manifest[name] for name in IN_SUMMARY})
            run.summary.update({"length": int(curves.index[-1]), **curves.iloc[-1].dropna().to_dict()})
            for line in needed.itertuples():
                exponent = {"mean_window": line.mean_window, "typical_head": line.typical_head}
                run.summary.update(
                    {f"exponent/{name}/{line.dropped_mass:g}": value for name, value in exponent.items()}
                )
            if self.artifacts:
                artifact = wandb.Artifact(f"record-{manifest['run_id']}", type="record", metadata=manifest["hashes"])
                artifact.add_dir(str(record))
                run.log_artifact(artifact)
            failed = 0
        finally:
            run.finish(failed)
        mark.parent.mkdir(exist_ok=True)
        mark.touch()


def _mark(outputs: Path, run_id: str) -> Path:
    """Return the empty file that says that a record has been logged to its end."""
    return outputs / "wandb" / "logged" / run_id


def start(outputs: Path, **about: Any) -> Any:
    """Start a quiet run whose every file lies under `outputs`/wandb; `about` goes to `wandb.init`."""
    folder = outputs / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        os.environ.setdefault(variable, str(folder.resolve()))
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb
    from wandb.sdk.wandb_run import Run

    Run._detect_and_apply_job_inputs = _no_job_inputs
    settings = wandb.Settings(
        silent=True, console="off", x_disable_stats=True, disable_git=True, save_code=False, x_save_requirements=False
    )
    return wandb.init(dir=str(outputs), reinit="create_new", settings=settings, **about)


def _no_job_inputs(run: Any) -> None:
    """Stage nothing: a job's inputs come from its configuration, and to look for others takes half a second to load."""


def _told_apart(config: dict[str, Any], manifest: dict[str, Any]) -> str:
    """Return the method, where it is another than the oracle, and the seed and windows that were asked for."""
    selector = config["selector"]["name"]
    asked = [word for word in shlex.split(manifest["command"]) if word.startswith(("seed=", "windows"))]
    return "".join(f", {words}" for words in ("" if selector == "oracle" else selector, " ".join(asked)) if words)


def _matrices(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    from safetensors.numpy import load_file

    return {name: matrix.astype(np.float32) for name, matrix in list(load_file(path).items())[:MATRICES_SHOWN]}


def _power_curves(curves: pd.DataFrame) -> dict[str, list[float]]:
    """Return the mean dropped mass of each k = n^C against length, by the names of selector and C."""
    lines = {}
    for name in map(str, curves.columns):
        *selector, window = name.removeprefix("dropped_mass/").split("/")
        if name.startswith("dropped_mass/") and window.startswith("power_") and "_x" not in window:
            label = ", ".join([*selector, f"C = {window.removeprefix('power_')}"])
            lines[label] = curves[name].tolist()
    return lines


def _matrix_figure(matrix: np.ndarray, title: str) -> Figure:
    import matplotlib.pyplot  # noqa: F401  wandb looks for it when it is handed a figure
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4))
    axes = figure.add_axes(PANEL)
    image = axes.imshow(np.log10(np.maximum(matrix, 1e-6)), vmin=-6, vmax=0, cmap="cividis")
    figure.colorbar(image, label="log10 probability")
    axes.set(xlabel="key", ylabel="query", title=title)
    return figure
