"""Reads the records of complete runs and joins them with the configuration that made them."""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from analysis.records.budgets import budget_of, named_by_file
from analysis.records.lines import GrowingLines, Lines
from experiments.errors import UserError
from experiments.known_models import known_as
from experiments.records.folder import inspect
from experiments.records.identity import READABLE
from experiments.records.table_file import chunks, column_names
from experiments.sources.corpora import corpus, is_corpus
from experiments.sources.text import CODE, PROSE, corpus_suffix
from experiments.tables import Table
from experiments.tables.columns import COLUMNS
from experiments.tables.coverage import COVERAGE
from experiments.tables.decoding import DECODING
from experiments.tables.distance import DISTANCE
from experiments.tables.gains import GAINS
from experiments.tables.losses import LOSSES
from experiments.tables.pruning import PRUNING, PRUNING_LOSSES
from experiments.tables.retrieval import RETRIEVAL
from experiments.tables.rows import ETAS, ROWS, k_min
from experiments.tables.sketches import SKETCHES
from experiments.tables.tasks import TASKS as ANSWERS
from experiments.tables.unions import UNIONS
from experiments.tables.windows import WINDOWS

PLACE = ("layer", "head", "sample", "variant", "length")
# What only says how much of a design is measured or written down: it decides no line that is.
EXTENT = {
    *("source.samples", "runner.matrix_layers", "runner.matrix_heads", "runner.matrix_size"),
    *("runner.window_variants", "windows", "seed"),
}


@dataclass(frozen=True)
class Run:
    """One complete run on disk: where it lies, what was asked of it and what it says of itself."""

    folder: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    digest: str  # sha256 of manifest.json, which is written last and so stands for the whole record
    label: str  # the manifest's, with the model's name as people know it, told apart where several models bear it

    @property
    def id(self) -> str:
        """The run id, which is also the folder's name."""
        return str(self.manifest["run_id"])

    @property
    def kind(self) -> str:
        """Return `gaussian` for the source with closed forms, `triples` for rows over pairs, `real` for any model."""
        return {"gaussian": "gaussian", "tensor": "triples"}.get(self.config["source"]["name"], "real")

    def file(self, name: str) -> Path | None:
        """Return where a file of the record lies; None if it has none of that name, sealed by its manifest."""
        return self.folder / name if name in self.manifest["files"] else None


def complete_runs(outputs: str | Path) -> list[Run]:
    """Find the complete runs below an outputs directory.

    Parameters
    ----------
    outputs : the directory that holds `runs/`.

    Returns
    -------
    list of Run : sorted by run id; folders without a manifest or with another status are skipped, and those of
        another schema are left out, which one line on stderr says.

    Raises
    ------
    UserError : if there is no complete run, or one cannot be read, is damaged, or lies in a folder of another name.
    """
    folders = sorted(path.parent for path in Path(outputs, "runs").glob("*/manifest.json"))
    every = [run for run in map(_read_run, folders) if run is not None]
    runs = [run for run in every if run.manifest.get("schema") in READABLE]
    if others := [run.id for run in every if run.manifest.get("schema") not in READABLE]:
        schemas = " or ".join(map(str, sorted(READABLE)))
        print(f"left out, of another schema than {schemas}: {', '.join(others)}; measure them again", file=sys.stderr)
    if not runs:
        raise UserError(
            f"no complete records in {Path(outputs, 'runs')}: measure first, python run.py experiment=quick"
        )
    return told_apart(runs)


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """Return the runs with labels that no two models share.

    Where several do, the parent folders of each model's path that tell them apart stand before its label, and the first
    six digits of its hash behind it where the paths do not.
    """
    by_name: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        by_name.setdefault(_model_name(run), {}).setdefault(str(run.manifest["hashes"].get("model")), []).append(run)
    labels: dict[str, str] = {}
    for name, models in by_name.items():
        folders = _distinguishing({model: min(map(_model_path, same)) for model, same in models.items()})
        for model, same in models.items():
            by_path = model in folders and f"{folders[model]}/{name}" not in by_name
            for run in same:
                apart = f"{folders[model]}/{run.label}" if by_path else f"{run.label} ({model[:6]})"
                labels[run.id] = apart if len(models) > 1 else run.label
    return [replace(run, label=labels[run.id]) for run in runs]


def _model_name(run: Run) -> str:
    """Return a run's label without what it says of the text."""
    source = run.config["source"]
    return run.label.removesuffix(corpus_suffix(source.get("text"), bool(source.get("shuffle"))))


def _model_path(run: Run) -> str:
    return str(run.config["source"].get("model"))


def _distinguishing(paths: dict[str, str]) -> dict[str, str]:
    """Return of each path the parent folders, as few as tell all of them apart; nothing if none do."""
    parents = {model: Path(path).parts[:-1] for model, path in paths.items()}
    for depth in range(1, max(map(len, parents.values()), default=0) + 1):
        ends = {model: "/".join(parts[-depth:]) for model, parts in parents.items()}
        if len(set(ends.values())) == len(ends) and all(ends.values()):
            return ends
    return {}


def load(outputs: str | Path = "outputs", columns: Sequence[str] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read both record tables of all complete runs, joined with each run's configuration.

    Parameters
    ----------
    outputs : the directory that holds `runs/`.
    columns : those wanted, of either table or of the configuration, all by default; no other is read.

    Returns
    -------
    rows, windows : one line per sampled row, and one per averaged window, with the columns of the contract
        and `run`, `label` (of one model only), `kind` (`gaussian`, `triples` or `real`), `source`, `experiment`,
        `runner`, `s`, `sigma`, `inputs`, `head_dim`, `corpus` (`prose`, `code` or a file's stem), `shuffled`,
        `score_power` (NaN for softmax), `role` (`main`, or `comparison` for a control beside it), `model_hash`,
        `text_hash`, `seed`, `design` (identity of the configuration without its seed, windows and samples) and
        `cluster` (what a bootstrap may resample as independent).
        In `windows`, `n` is the most keys that a row of its head sees: the nominal length, or a layer's window.
        Strings are categoricals, numbers int64 and float64, of which the files may hold fewer digits.

    Raises
    ------
    UserError : if there is no complete run, or a record cannot be read.
    """
    rows, windows = (
        lines.frame(lines.names if columns is None else columns, wide=True)
        for lines in lines_of_both(complete_runs(outputs), columns)
    )
    return rows, windows


def load_rows(runs: Sequence[Run]) -> pd.DataFrame:
    """Read and join the rows of given runs; see `load`."""
    rows = _lines_of_rows(runs)
    return rows.frame(rows.names, wide=True)


def lines_of_both(runs: Sequence[Run], columns: Sequence[str] | None = None) -> tuple[Lines, Lines]:
    """Read and join the tables of given runs; see `load`. Only the runner `approximation` writes them.

    Lines of runs that differ only in windows or samples are lines of one design, and each is kept once.
    """
    measured, rows = _measured(runs), _lines_of_rows(runs, None if columns is None else [*columns, "n"])
    windows = _lines(measured, WINDOWS, ("rows", "k", "dropped_mass"), columns).with_most_keys(rows, PLACE)
    if (lacking := windows.frame(["n"])["n"].to_numpy() == 0).any():
        run = measured[windows.run[lacking][0]]
        raise _unreadable(run.folder / "rows.parquet", KeyError("windows of heads that have no rows"))
    return rows, windows


def _measured(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.config["runner"]["name"] == "approximation"]


def _lines_of_rows(runs: Sequence[Run], columns: Sequence[str] | None = None) -> Lines:
    return _lines(_measured(runs), ROWS, ("n", "logit_std", *map(k_min, ETAS)), columns)


TASKS = {
    table.name: table
    for table in (
        *(LOSSES, GAINS, RETRIEVAL, ANSWERS, DECODING, UNIONS),
        *(COLUMNS, COVERAGE, DISTANCE, SKETCHES, PRUNING, PRUNING_LOSSES),
    )
}


def load_task(runs: Sequence[Run], name: str) -> pd.DataFrame:
    """Read and join one table of the runners that run a model, one of TASKS; empty if no run has it."""
    having = [run for run in runs if run.file(TASKS[name].file)]
    if not having:
        return pd.DataFrame()
    # of lines that several runs have, the first is kept: that of a run whose columns are all there
    having.sort(key=lambda run: -len(column_names(run.folder / TASKS[name].file)))
    lines = _lines(having, TASKS[name], ())
    return lines.frame(lines.names)


HEADS_AT_MOST = 10_000  # in a layer: makes one number of layer and head


def fullest_design(frame: pd.DataFrame, most: str | None = None) -> pd.DataFrame:
    """Keep, for each label, the one design that says most; designs are never mixed within a label.

    A label such as a model's name may have been measured by a quick run and by a thorough one, and by a trial of two
    heads. The design with most heads wins, then most lengths, greatest length, most clusters, most lines, first name.

    Parameters
    ----------
    frame : rows or windows of `load`, filtered to what is wanted *before* the choice.
    most : a column of which the design with most different values comes first.

    Returns
    -------
    DataFrame : the lines of the chosen designs, order kept.
    """
    if frame.groupby("label", observed=True)["design"].nunique().max() == 1:
        return frame
    heads = frame["layer"] * HEADS_AT_MOST + frame["head"]
    sizes = (
        frame.assign(one_head=heads)
        .groupby(["label", "design"], observed=True)
        .agg(
            most=(most or "label", "nunique"),
            heads=("one_head", "nunique"),
            lengths=("length", "nunique"),
            length=("length", "max"),
            clusters=("cluster", "nunique"),
            lines=("length", "size"),
        )
    )
    order = sizes.reset_index().astype({"label": str, "design": str})
    falls = ["most", "heads", "lengths", "length", "clusters", "lines"]
    order = order.sort_values([*falls, "design"], ascending=[False] * len(falls) + [True])
    return frame[frame["design"].isin(order.drop_duplicates("label")["design"])]


def labels_in_order(frame: pd.DataFrame) -> list[str]:
    """Labels in the order of figures and tables: Gaussian sources by s, then by sigma, then real models by name."""
    labels = frame[["label", "kind", "s", "sigma"]].drop_duplicates("label")
    labels = labels.astype({"label": str, "kind": str})
    return labels.sort_values(["kind", "s", "sigma", "label"])["label"].tolist()


def _read_run(folder: Path) -> Run | None:
    path = folder / "manifest.json"
    try:
        raw = _regular(path).read_bytes()
        manifest = json.loads(raw)
        if manifest["status"] != "complete":
            return None
        path = folder / "config.yaml"
        config = yaml.safe_load(_regular(path).read_text(encoding="utf-8"))
        for section in ("source", "runner"):
            config[section]["name"]
        for key in ("run_id", "label", "seed"):
            manifest[key]
        manifest["hashes"].get("model")
        for name in manifest["files"]:
            path = folder / name
            _regular(path)
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise _unreadable(path, problem) from problem
    if manifest["run_id"] != folder.name:
        raise UserError(
            f"{folder}: its record is of run {str(manifest['run_id'])[:40]!r}; move the folder out of {folder.parent}, "
            "or give it back its name"
        )
    if manifest.get("schema") in READABLE:  # of another schema it is left out
        whole, damage = inspect(folder)
        if whole is None:
            raise _unreadable(folder, ValueError(damage))
    return Run(folder, config, manifest, hashlib.sha256(raw).hexdigest(), known_as(str(manifest["label"])))


def _regular(path: Path) -> Path:
    """Return the path, or raise OSError if it is no file to be read: a pipe would be waited for."""
    if path.exists() and not path.is_file():
        raise OSError("not a regular file")
    return path


def _unreadable(path: Path, problem: Exception) -> UserError:
    folder = path if path.is_dir() else path.parent
    reason = " ".join(f"{type(problem).__name__}: {problem}".replace(f"{folder}{os.sep}", "").split())[:160]
    return UserError(f"cannot read {path} ({reason}): delete {folder} and measure it again")


def _lines(runs: Sequence[Run], table: Table, needed: tuple[str, ...], columns: Sequence[str] | None = None) -> Lines:
    """Read one table of several runs: the columns that name a line, and of the others those wanted, all by default.

    Every record must have those needed, which are checked whether wanted or not.
    """
    if not runs:
        raise UserError(
            "no complete records of runner=approximation, which the report's laws are made of, beside those of models "
            "within windows: python run.py experiment=quick, into the same outputs="
        )
    growing = GrowingLines(table, table.columns if columns is None else columns)
    for run in runs:
        path = run.folder / table.file
        try:
            if run.file(table.file) is None:
                raise FileNotFoundError("the record has no such file")
            there = {*column_names(path), *table.older}
            if missing := [name for name in (*(key.name for key in table.keys), *needed) if name not in there]:
                raise KeyError(f"no column {', '.join(missing)}")
            growing.add(chunks(path, table, growing.columns))
        except (OSError, ValueError, KeyError, pa.ArrowException) as problem:
            raise _unreadable(path, problem) from problem
    return named_by_file(growing.lines(describe_all(runs))).each_once([column.name for column in table.keys])


def describe_all(runs: Sequence[Run]) -> pd.DataFrame:
    """Describe each run, and tell main records from comparisons.

    Source code, a translation and shuffled tokens are there to be compared with a model's main corpus, so their `role`
    is `comparison`; but of a model that has read nothing else they are `main`. Rows that are no softmax never are, nor
    are rows over pairs of keys, nor those of random weights.
    """
    table = pd.DataFrame([describe(run) for run in runs])
    aside = table["shuffled"] | np.array([_is_control(run) for run in runs], bool)
    has_main = table["model_hash"].isin(table.loc[~aside, "model_hash"])
    other = table["score_power"].notna() | (table["kind"] == "triples") | table["random_weights"]
    return table.assign(role=np.where((aside & has_main) | other, "comparison", "main"))


def _is_control(run: Run) -> bool:
    """Say whether a run's text is there to be compared: of a user's file the name says nothing."""
    text = run.config["source"].get("text")
    return text == CODE or (is_corpus(text) and corpus(text).kind != "prose")


def _corpus(run: Run) -> str | None:
    text = run.config["source"].get("text")
    if run.kind != "real":
        return None
    if is_corpus(text):
        return corpus(text).kind
    return {None: "prose", PROSE: "prose", CODE: "code"}.get(text) or Path(text).stem


def describe(run: Run) -> dict[str, Any]:
    """Return what the tables are told about each run: the columns listed at `load`."""
    source, hashes = run.config["source"], run.manifest["hashes"]
    numbers = {key: source.get(key) for key in ("s", "sigma", "head_dim")}
    return {
        "run": run.id,
        "label": run.label,
        "kind": run.kind,
        "source": source["name"],
        "experiment": run.config.get("experiment"),
        "runner": run.config["runner"]["name"],
        **{key: np.nan if value is None else float(value) for key, value in numbers.items()},
        "inputs": source.get("inputs"),
        "corpus": _corpus(run),
        "shuffled": bool(source.get("shuffle")),
        "random_weights": source.get("random_weights") is not None,
        "score_power": float(run.config["runner"].get("score_power") or np.nan),
        "model_hash": hashes.get("model"),
        "text_hash": hashes.get("text"),
        "seed": int(run.manifest["seed"]),
        "design": design(run),
        **budget_of(run.config, run.manifest),
    }


def design(run: Run) -> str:
    """Identity of what was measured apart from seed, windows and samples: runs that share it are one evidence.

    Paths of model and text give way to the hashes of their content, as in the run id, so that a moved file is
    the same design.
    """
    parts: dict[str, Any] = {}
    if identity := run.manifest.get("identity"):
        fields = {name: value for name, value in identity["fields"].items() if name not in EXTENT}
        parts |= {name: value for name, value in identity.items() if name not in EXTENT} | {"fields": fields}
    else:  # a record of before they had one
        hashes = run.manifest["hashes"]
        fields = {f"{part}.{name}": value for part in ("source", "runner") for name, value in run.config[part].items()}
        left = EXTENT | {f"source.{name}" for name in ("model", "text") if hashes.get(name)}
        parts |= {"fields": {name: value for name, value in fields.items() if name not in left}, "hashes": hashes}
        parts |= {"schema": run.manifest.get("schema"), "selector": run.config.get("selector")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]
