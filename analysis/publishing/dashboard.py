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

import pandas as pd
import wandb

from analysis import save, settings
from analysis.publishing import ledger
from experiments.errors import UserError
from experiments.tracking.weights_and_biases import start

VIEW = "How many keys does attention need?"
TABLES = ("keys_laws", "fits_pooled", "laws", "claims")
MEANS = ("mean_window", "typical_head")
ERRORS = {"dropped_mass": "dropped mass", "output_error_renormalised": "output error"}
HEADS = ["label", "layer", "head", "k_longest", "n_longest", "C", "C_low", "C_high"]
# The figures of each claim; others stand with the analysis.
FIGURES = {
    "1": ("sufficiency", "decay_rates", "phase"),
    "2": ("log_window",),
    "3": ("collapse",),
    "4": ("adaptive", "language", "retrieval"),
    "5": ("heads", "extrapolation", "models"),
    "methods": ("selectors", "leverage", "cost"),
}


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
    except OSError as error:
        where, reason = error.filename or requested.outputs, error.strerror or error
        print(f"error: {where}: {reason}; free space, make it writable or choose another --outputs", file=sys.stderr)
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
    """Return the workspace: keys needed, a section per claim, methods and cost, matrices, the analysis' tables.

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

    def over_length(title: str, regex: str, log_y: bool = True) -> Any:
        """Overlay every metric that a pattern names, of every run, against context length."""
        return panels.LinePlot(
            title=title, x="length", metric_regex=regex, log_x=True, log_y=log_y, title_x="context length"
        )

    def figures(*names: str) -> list[Any]:
        return [panels.MediaBrowser(title=name, media_keys=[f"figures/{name}"]) for name in names]

    def table(name: str) -> Any:
        return panels.WeavePanelSummaryTable(table_name=f"tables/{name}")

    of_rule = {"fixed": "fixed_", "a (ln n)^b": "log_", "share of n": "linear_"}
    shown = {name for names in FIGURES.values() for name in names}
    axes = {"s": config("source.s"), "sigma": config("source.sigma")}
    axes |= {f"C of the {name.replace('_', ' ')}": summary(f"exponent/{name}/0.1") for name in MEANS}
    axes |= {"n": summary("length"), "dropped mass of sqrt n": summary("dropped_mass/power_0.5")}
    columns = [panels.ParallelCoordinatesPlotColumn(metric=metric, display_name=name) for name, metric in axes.items()]
    sections = [
        ws.Section(
            name="Keys needed, and by which law",
            panels=[
                *(over_length(f"keys, {name.replace('_', ' ')}", f"{name}/.*") for name in MEANS),
                over_length("keys, mean window of each layer", "mean_window_of_layer/.*"),
                *figures("keys", "exponents"),
                table("keys_laws"),
            ],
            is_open=True,
        ),
        ws.Section(
            name="Claim 1: are n^C keys enough?",
            panels=[
                *(over_length(f"{words} of n^C keys", f"{name}/(.*/)?power_.*") for name, words in ERRORS.items()),
                *figures(*FIGURES["1"]),
            ],
        ),
        ws.Section(
            name="Claim 2: are o(log n) keys too few?",
            panels=[
                *(over_length(f"dropped mass, {rule}", f"dropped_mass/(.*/)?{of}.*") for rule, of in of_rule.items()),
                *figures(*FIGURES["2"]),
            ],
        ),
        ws.Section(name="Claim 3: do rows collapse onto few entries?", panels=figures(*FIGURES["3"])),
        ws.Section(
            name="Claim 4: does a growing window beat a fixed one?",
            panels=[
                *figures(*FIGURES["4"]),
                over_length("loss within windows", "loss/.*", log_y=False),
                over_length("next tokens as of dense attention", "agreement/.*", log_y=False),
                over_length("KL to dense attention", "kl/.*", log_y=False),
                over_length("ln p of a recalled answer", "log_prob/.*", log_y=False),
                over_length("answers recalled exactly", "exact/.*", log_y=False),
            ],
        ),
        ws.Section(
            name="Claim 5: does it hold head by head?",
            panels=[
                panels.ScatterPlot(
                    title="exponent against logit scale", x=config("source.s"), y=summary("exponent/mean_window/0.1")
                ),
                panels.ParallelCoordinatesPlot(title="scale, exponents, length, error", columns=columns),
                *figures(*FIGURES["5"]),
                table("heads"),
            ],
        ),
        ws.Section(
            name="Methods and cost",
            panels=[over_length("seconds of a decode step", ".*_seconds/.*"), *figures(*FIGURES["methods"])],
        ),
        ws.Section(name="Attention", panels=[panels.MediaBrowser(media_keys=["attention/*"], num_columns=4)]),
        ws.Section(
            name="Analysis",
            panels=[
                *(table(name) for name in ("claims", "fits_pooled", "laws")),
                *figures(*(name for name in settings.figures() if name not in shown | {"keys", "exponents"})),
                panels.RunComparer(diff_only="split"),
            ],
            is_open=True,
        ),
    ]
    grouped = ws.RunsetSettings(groupby=[ws.Metric("Group"), ws.Config("manifest.label")])
    return ws.Workspace(entity=entity, project=project, name=VIEW, sections=sections, runset_settings=grouped)


def config(key: str) -> Any:
    """Name an entry of a run's configuration for a chart over runs."""
    from wandb_workspaces.reports.v2 import Config

    return Config(key)


def summary(key: str) -> Any:
    """Name the last value of a run's metric for a chart over runs."""
    from wandb_workspaces.reports.v2 import SummaryMetric

    return SummaryMetric(key)


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


def of_heads(fits: pd.DataFrame, eta: float) -> pd.DataFrame:
    """Return what each head of each model needs: the lines of the power law at one dropped mass."""
    real = (fits["kind"] == "real") & (fits["variant"] == "plain")
    return fits.loc[real & (fits["law"] == "power") & (fits["eta"] == eta), HEADS]


def log_analysis(outputs: Path, entity: str, project: str, online: bool) -> str:
    """Log every figure that is drawn and the tables as one run of job type `analysis`; return where it lies.

    Raises
    ------
    UserError : before `python -m analysis` has made the tables of the present records.
    """
    table_of = ledger.reader(outputs)
    tables = {name: table_of(name) for name in TABLES}
    heads = table_of("fits")
    if len(heads):
        tables["heads"] = of_heads(heads, settings.analysis().headline_eta)
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
