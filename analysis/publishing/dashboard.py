"""The W&B workspace as code: `python -m analysis.dashboard --entity E --project P` makes it, or brings it up to date.

Without a login it writes the specification and a run with figures and tables for `wandb sync`, and says what to do.
"""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb

from analysis import save, settings
from analysis.publishing import ledger
from experiments.errors import UserError
from experiments.tracking.weights_and_biases import start

VIEW = "How many keys does attention need?"
TABLES = ("keys_laws", "fits_pooled", "laws", "claims")
MEANS = ("mean_window", "typical_head")
ETAS = ("0.5", "0.2", "0.1", "0.05", "0.01")
EXPONENTS = [f"power_{c / 10:g}" for c in range(1, 10)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make or update the workspace and log the analysis; returns the exit status, 1 for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m analysis.dashboard", description=__doc__)
    parser.add_argument("--entity", required=True, help="W&B user or team")
    parser.add_argument("--project", default="nc-sparse-attention")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where tables/ lies")
    requested = parser.parse_args(arguments)
    try:
        for line in publish(requested.entity, requested.project, requested.outputs):
            print(line)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def publish(entity: str, project: str, outputs: Path) -> list[str]:
    """Write the workspace's specification, log the analysis as a run, and save the workspace if there is a login.

    Returns
    -------
    list of str : what was done, and what is left for the user to do.

    Raises
    ------
    UserError : without the extra, or before `python -m analysis` has made its tables.
    """
    view = workspace(entity, project)
    path = outputs / "wandb" / "workspace.json"
    specification = view._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")
    online = logged_in()
    run = log_analysis(outputs, entity, project, online)
    saved = read_url(path)
    if online:
        if saved:
            view = updated(view, saved)
        saved = view.save().url
    save.write_text(path, json.dumps({"url": saved, "workspace": specification}, indent=2) + "\n")
    if online:
        return [f"workspace: {saved}"]
    return [
        f"no login: the workspace's specification lies in {path}, the analysis in {run}",
        f"to publish: wandb login; wandb sync {outputs}/wandb/offline-run-*; "
        f"python -m analysis.dashboard --entity {entity} --project {project} --outputs {outputs}",
    ]


def workspace(entity: str, project: str) -> Any:
    """Return the workspace: windows needed and errors over context length, losses, matrices, the analysis' figures.

    Raises
    ------
    UserError : if wandb-workspaces is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a deprecation inside pydantic's use of it
        try:
            import wandb_workspaces.reports.v2 as panels
            import wandb_workspaces.workspaces as ws
        except ImportError as error:
            raise UserError("the workspace needs wandb-workspaces: pip install '.[dashboard]'") from error

    def over_length(title: str, metrics: list[str], log_y: bool = True) -> Any:
        return panels.LinePlot(title=title, x="length", y=metrics, log_x=True, log_y=log_y, title_x="context length")

    errors = {"dropped_mass": "dropped mass", "output_error_renormalised": "output error"}
    sections = [
        ws.Section(
            name="Windows needed",
            panels=[over_length(f"keys for dropped mass {eta}", [f"{mean}/{eta}" for mean in MEANS]) for eta in ETAS],
            is_open=True,
        ),
        ws.Section(
            name="Errors of k = n^C",
            panels=[over_length(f"{errors[m]}, {c}", [f"{m}/{c}"]) for m in errors for c in EXPONENTS],
            is_open=True,
        ),
        ws.Section(
            name="Loss within windows",
            panels=[panels.LinePlot(title="loss", x="length", metric_regex="loss/.*", title_x="context length")],
        ),
        ws.Section(name="Attention", panels=[panels.MediaBrowser(media_keys=["attention/*"], num_columns=4)]),
        ws.Section(
            name="Analysis",
            panels=[
                *(panels.MediaBrowser(title=name, media_keys=[f"figures/{name}"]) for name in settings.figures()),
                *(panels.WeavePanelSummaryTable(table_name=f"tables/{name}") for name in TABLES),
                panels.RunComparer(diff_only="split"),
            ],
            is_open=True,
        ),
    ]
    return ws.Workspace(entity=entity, project=project, name=VIEW, sections=sections)


def updated(view: Any, url: str) -> Any:
    """Return the workspace that lies at `url` with the sections of `view`, so that saving replaces it."""
    there = type(view).from_url(url)
    there.sections = view.sections
    return there


def read_url(path: Path) -> str | None:
    """Return where an earlier call has saved the workspace, None if nowhere."""
    try:
        url = json.loads(path.read_text(encoding="utf-8"))["url"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return str(url) if url else None


def logged_in() -> bool:
    """Say whether W&B knows an API key and was not told to stay offline."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return False
    try:
        return bool(wandb.Api().api_key)
    except (wandb.errors.UsageError, wandb.errors.CommError):
        return False


def log_analysis(outputs: Path, entity: str, project: str, online: bool) -> str:
    """Log every figure that is drawn and the tables as one run of job type `analysis`; return where it lies.

    Raises
    ------
    UserError : before `python -m analysis` has made the tables of the present records.
    """
    table_of = ledger.reader(outputs)
    tables = {name: table_of(name) for name in TABLES}
    with start(
        outputs,
        mode="online" if online else "offline",
        entity=entity,
        project=project,
        group="analysis",
        job_type="analysis",
        name="analysis",
    ) as run:
        for name in settings.figures():
            picture = outputs / "figures" / f"{name}.png"
            if picture.exists():
                run.log({f"figures/{name}": wandb.Image(str(picture), caption=settings.figure(name).caption)})
        for name, table in tables.items():
            if len(table):
                run.log({f"tables/{name}": wandb.Table(dataframe=table)})
        return str(Path(run.dir).parent)
