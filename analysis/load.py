"""Reads the records of complete runs and joins them with the configuration that made them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from experiments.errors import UserError
from experiments.records.folder import inspect
from experiments.sources.text import CODE, PROSE

ETAS = (0.5, 0.2, 0.1, 0.05, 0.01)
PLACE = ("layer", "head", "sample", "variant", "length")
ROWS_NEED = (*PLACE, "n", "logit_std", *(f"k_min_{eta:g}" for eta in ETAS))
WINDOWS_NEED = (*PLACE, "rows", "selector", "rule", "parameter", "scale", "k", "dropped_mass")


@dataclass(frozen=True)
class Run:
    """One complete run on disk: where it lies, what was asked of it and what it says of itself."""

    folder: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    digest: str  # sha256 of manifest.json, which is written last and so stands for the whole record

    @property
    def id(self) -> str:
        """The run id, which is also the folder's name."""
        return str(self.manifest["run_id"])

    @property
    def kind(self) -> str:
        """Return `gaussian` for the source with closed forms, `real` for any model."""
        return "gaussian" if self.config["source"]["name"] == "gaussian" else "real"

    @property
    def matrices(self) -> Path:
        """Where the attention matrices lie, if any were recorded."""
        return self.folder / "attention.safetensors"


def complete_runs(outputs: str | Path) -> list[Run]:
    """Find the complete runs below an outputs directory.

    Parameters
    ----------
    outputs : the directory that holds `runs/`.

    Returns
    -------
    list of Run : sorted by run id; folders without a manifest or with another status are skipped.

    Raises
    ------
    UserError : if there is no complete run, or a manifest or configuration cannot be read.
    """
    folders = sorted(path.parent for path in Path(outputs, "runs").glob("*/manifest.json"))
    runs = [run for run in map(_read_run, folders) if run is not None]
    if not runs:
        raise UserError(
            f"no complete records in {Path(outputs, 'runs')}: measure first, python run.py experiment=quick"
        )
    return runs


def load(outputs: str | Path = "outputs") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read both record tables of all complete runs, joined with each run's configuration.

    Parameters
    ----------
    outputs : the directory that holds `runs/`.

    Returns
    -------
    rows, windows : one line per sampled row, and one per averaged window, with the columns of the contract
        and `run`, `label`, `kind` (`gaussian` or `real`), `source`, `experiment`, `runner`, `s`, `sigma`,
        `inputs`, `head_dim`, `corpus` (`prose`, `code` or a file's stem), `shuffled`, `score_power` (NaN for softmax),
        `role` (`main`, or `comparison` for a control beside it), `model_hash`, `text_hash`, `seed`, `design`
        (identity of the configuration without its seed) and `cluster` (what a bootstrap may resample as independent).
        Strings are categoricals.

    Raises
    ------
    UserError : if there is no complete run, or a record cannot be read.
    """
    return load_runs(complete_runs(outputs))


def load_runs(runs: Sequence[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read and join the tables of given runs; see `load`. Only the runner `approximation` writes them."""
    measured = [run for run in runs if run.config["runner"]["name"] == "approximation"]
    return _table(measured, "rows.parquet", ROWS_NEED), _table(measured, "windows.parquet", WINDOWS_NEED)


TASKS = ("losses", "retrieval", "decoding")


def load_task(runs: Sequence[Run], name: str) -> pd.DataFrame:
    """Read and join one table of the runners that run a model, one of TASKS; empty if no run has it."""
    having = [run for run in runs if (run.folder / f"{name}.parquet").exists()]
    return _table(having, f"{name}.parquet", ("sample", "length", "phase", "rule")) if having else pd.DataFrame()


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
    """Labels as a reader wants them: Gaussian sources by s, then by sigma, then real models by name."""
    known = frame[["label", "kind", "s", "sigma"]].drop_duplicates("label")
    known = known.astype({"label": str, "kind": str})
    return known.sort_values(["kind", "s", "sigma", "label"])["label"].tolist()


def _read_run(folder: Path) -> Run | None:
    path = folder / "manifest.json"
    try:
        raw = path.read_bytes()
        manifest = json.loads(raw)
        if manifest["status"] != "complete":
            return None
        path = folder / "config.yaml"
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        for section in ("source", "runner"):
            config[section]["name"]
        for key in ("run_id", "label", "seed", "hashes"):
            manifest[key]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as problem:
        raise _unreadable(path, problem) from problem
    whole, damage = inspect(folder)
    if whole is None:
        raise _unreadable(folder, ValueError(damage))
    return Run(folder, config, manifest, hashlib.sha256(raw).hexdigest())


def _unreadable(path: Path, problem: Exception) -> UserError:
    reason = " ".join(f"{type(problem).__name__}: {problem}".split())[:160]
    folder = path if path.is_dir() else path.parent
    return UserError(f"cannot read {path} ({reason}): delete {folder} and measure it again")


def _table(runs: list[Run], name: str, needed: tuple[str, ...]) -> pd.DataFrame:
    frames = []
    for run in runs:
        path = run.folder / name
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError, pa.ArrowException) as problem:
            raise _unreadable(path, problem) from problem
        if missing := [column for column in needed if column not in frame]:
            raise _unreadable(path, KeyError(f"no column {', '.join(missing)}"))
        frames.append(frame)
    if not frames:
        raise UserError(
            "no complete records of runner=approximation, which the report's laws are made of, beside those of models "
            "within windows: python run.py experiment=quick, into the same outputs="
        )
    table = pd.concat(frames, ignore_index=True)
    # a million lines that repeat one name or sha256 are better stored once
    for words in sorted({"variant", "selector", "rule", "phase"} & set(table)):
        table[words] = table[words].astype("category")
    which = np.repeat(np.arange(len(runs)), [len(frame) for frame in frames])
    described = describe_all(runs)
    for column in described:
        values = described[column]
        stored = values if pd.api.types.is_numeric_dtype(values) else values.astype("category")
        table[column] = stored.take(which).array
    # Another seed draws other Gaussian keys, but reads the same document again: that is no new evidence.
    origin = table["run"].astype(str).where(table["kind"] == "gaussian", table["text_hash"].astype(str))
    table["cluster"] = (origin + ":" + table["sample"].astype(str)).astype("category")
    return table


def describe_all(runs: Sequence[Run]) -> pd.DataFrame:
    """Describe each run, and tell main records from comparisons.

    Source code and shuffled tokens are there to be compared with a model's main corpus, so their `role` is
    `comparison`; but of a model that has read nothing else they are `main`. Rows that are no softmax never are.
    """
    table = pd.DataFrame([describe(run) for run in runs])
    aside = table["corpus"].isin(["code"]) | table["shuffled"]
    has_main = table["model_hash"].isin(table.loc[~aside, "model_hash"])
    return table.assign(role=np.where((aside & has_main) | table["score_power"].notna(), "comparison", "main"))


def _corpus(run: Run) -> str | None:
    text = run.config["source"].get("text")
    if run.kind == "gaussian":
        return None
    return {None: "prose", PROSE: "prose", CODE: "code"}.get(text) or Path(text).stem


def describe(run: Run) -> dict[str, Any]:
    """Return what the tables are told about each run: the columns listed at `load`."""
    source, hashes = run.config["source"], run.manifest["hashes"]
    numbers = {key: source.get(key) for key in ("s", "sigma", "head_dim")}
    return {
        "run": run.id,
        "label": str(run.manifest["label"]),
        "kind": run.kind,
        "source": source["name"],
        "experiment": run.config.get("experiment"),
        "runner": run.config["runner"]["name"],
        **{key: np.nan if value is None else float(value) for key, value in numbers.items()},
        "inputs": source.get("inputs"),
        "corpus": _corpus(run),
        "shuffled": bool(source.get("shuffle")),
        "score_power": float(run.config["runner"].get("score_power") or np.nan),
        "model_hash": hashes.get("model"),
        "text_hash": hashes.get("text"),
        "seed": int(run.manifest["seed"]),
        "design": design(run),
    }


def design(run: Run) -> str:
    """Identity of what was measured apart from the seed: runs that share it are repetitions and pool.

    Paths of model and text give way to the hashes of their content, as in the run id, so that a moved file is
    the same design.
    """
    source = dict(run.config["source"])
    hashes = run.manifest["hashes"]
    for key in ("model", "text"):
        if hashes.get(key):
            source.pop(key, None)
    parts = {key: run.config.get(key) for key in ("windows", "selector", "runner")}
    identity = {"schema": run.manifest.get("schema"), "source": source, "hashes": hashes, **parts}
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:12]
