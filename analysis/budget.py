"""`python -m analysis.budget`: how many keys each head of a model is to be given, from its own law, as a file.

The laws are fitted to the second half of the text samples, at all lengths but the longest, with a margin for text that
was not seen. The first half, at every length, says whether the promise holds: that a share `coverage` of a head's rows
drops no more than the tolerance. n is the number of keys that the head itself sees; one that sees no more of them as
the context grows, as in a sliding-window layer, has no law but a cap: the same number of keys at any length, C = 0.

A budget serves a row: what must be read for one query of one head. A cache holds keys for all query heads that share a
KV head, and one that evicts keys holds them for the rows that follow: `--serves` fits the laws to the keys that these
need together, of records with source.runs, and gives each head what its KV head needs.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from analysis import save, settings
from analysis.questions import not_one
from analysis.records.load import complete_runs, fullest_design, load_rows, load_task
from analysis.statistics import bootstrap
from analysis.statistics.equal_cost import scale_for
from analysis.statistics.growth import alike, distinct
from analysis.statistics.intervals import student
from analysis.statistics.line import fit_line
from experiments.errors import UserError
from experiments.tables.unions import EVERY_HEAD, UNIONS
from experiments.terminal import terminal
from experiments.windows.head_laws import FORMAT, read_budget

Array = NDArray[np.float64]
ROW, KV_HEAD = "row", "kv_head"  # what a budget serves, besides a number of rows
FURTHEST = 2**30  # keys; the longest context that a law is asked about
FAR = 10  # times the fitted lengths: what the law says there is told in every file, as an extrapolation
OWN_OF_A_RUN = ("name", "lengths", "rows", "samples", "layers", "heads", "variants")  # fields of a source
HOLDS = 0.8  # share of heads whose measurement at the longest length must lie within its prediction interval


@dataclass(frozen=True)
class Needs:
    """The smallest windows of a model's rows at one tolerance.

    `k` (heads, lengths, samples, rows) smallest windows, `n` (heads, lengths, rows) keys visible, `head_keys` (layer,
    head) of each head, `lengths` nominal, `samples` numbers of the text samples.
    """

    k: Array
    n: Array
    head_keys: list[tuple[int, int]]
    lengths: list[int]
    samples: list[int]

    @property
    def x(self) -> Array:
        """Ln of the mean number of keys that each head's rows see (heads, lengths)."""
        return np.log(self.n.mean(-1))

    @property
    def seen(self) -> Array:
        """Most keys that a row of each head sees (heads, lengths)."""
        return self.n.max(-1)

    @property
    def sees(self) -> Array:
        """Most keys that each head can see (heads,); infinite where its rows see the whole context."""
        whole = (self.seen == self.lengths).all(-1)
        return np.where(whole, np.inf, self.seen.max(-1))


@dataclass(frozen=True)
class Design:
    """What the curves are fitted to: `x`, ln n, and `used`, the points (curves, lengths); `grows` (curves,).

    A curve that does not grow is a constant, fitted where it sees as many keys as it ever does.
    """

    x: Array
    used: NDArray[np.bool_]
    grows: NDArray[np.bool_]

    @classmethod
    def of(cls, needs: Needs, least: int) -> Design:
        """Choose the points of each head among all lengths but the longest; a law takes `least` different n."""
        seen = needs.seen[:, :-1]
        different = distinct(seen)
        grows = different.sum(-1) >= least
        used = np.where(grows[:, None], different, seen == seen.max(-1, keepdims=True))
        return cls(needs.x[:, :-1], used, grows)

    def of_curves(self, selected: NDArray[np.bool_]) -> Design:
        """Return the design of some of the curves."""
        return Design(self.x[selected], self.used[selected], self.grows[selected])

    def mean(self, values: Array) -> Array:
        """Mean over the points of values (..., curves, lengths)."""
        return np.where(self.used, values, 0.0).sum(-1) / self.used.sum(-1)


@dataclass(frozen=True)
class Laws:
    """A power law per curve: `level` = ln alpha and `slope` = C (curves,).

    `levels` and `slopes` (resamples, curves) are their replicates, `scatter` the residual deviation in ln k with
    `freedom` degrees (curves,); `margin` is the part of the level that was added so that a text not seen is served too.
    """

    level: Array
    slope: Array
    levels: Array
    slopes: Array
    scatter: Array
    freedom: Array
    units: int
    margin: Array

    def interval(self, n: Array, confidence: float) -> tuple[Array, Array, Array]:
        """Return ln k and its prediction interval for another text of the same kind where n (curves,) keys are seen."""
        x = np.log(n)
        y = self.level + self.slope * x
        drawn = (self.levels + self.slopes * x).std(0) * np.sqrt(self.units / max(self.units - 1, 1))
        reach = student(self.freedom, confidence) * np.hypot(drawn, self.scatter)
        return y, y - reach, y + reach


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a budget file; returns the exit status, 1 after an error that the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m analysis.budget", description=__doc__)
    parser.add_argument("--model", required=True, metavar="NAME", help="a model measured before, or part of its name")
    parser.add_argument(
        "--tolerance", default="dropped_mass=0.05", help="one of the recorded tolerances, as NAME=VALUE"
    )
    parser.add_argument(
        "--serves",
        default=ROW,
        metavar="WHAT",
        help=f"{ROW}: one row of one head; {KV_HEAD}: one row of all heads that share a KV head; a number: so many "
        "consecutive rows of these",
    )
    parser.add_argument("--coverage", type=float, default=0.9, help="share of a head's rows that are to stay within it")
    parser.add_argument("--cost", type=float, metavar="KEYS", help="scale all windows to this mean over 1..N keys")
    parser.add_argument("--lengths", type=int, nargs="+", default=[], help="context lengths to say k for")
    parser.add_argument("--extrapolate", action="store_true", help="hold beyond what the held-out length supports")
    parser.add_argument("--name", help="of the file, by default the model's")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where runs/ lies")
    requested = parser.parse_args(arguments)
    try:
        content = budget(
            requested.outputs,
            requested.model,
            _tolerance(requested.tolerance),
            requested.coverage,
            requested.cost,
            requested.lengths,
            requested.extrapolate,
            _run(requested.serves),
        )
        path = _path(requested.outputs / "budgets", requested.name, content)
        save.write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; choose another --outputs or --name", file=sys.stderr)
        return 1
    console = terminal()
    console.print(_promise_table(content))
    if requested.lengths:
        console.print(_keys_table(content, sorted(set(requested.lengths))))
    console.print(f"wrote {path}; the model within it:")
    console.print(_next_command(requested.outputs, content, path))
    return 0


def _tolerance(text: str) -> float:
    name, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if name != "dropped_mass" or not 0 < value < 1:
        raise UserError(f"--tolerance {text}: give dropped_mass=VALUE, such as dropped_mass=0.05")
    return value


def _run(serves: str) -> int | None:
    """Return how many consecutive rows, of all heads that share a KV head, a budget is to serve; None for one row."""
    if serves == ROW:
        return None
    if serves == KV_HEAD:
        return 1
    if not serves.isascii() or not serves.isdigit() or not 0 < int(serves[:9]) < 10**8:
        raise UserError(f"--serves {serves[:30]}: give {ROW}, {KV_HEAD} or a number of consecutive rows")
    return int(serves)


def _path(folder: Path, name: str | None, content: dict[str, Any]) -> Path:
    """Return where to write a budget: no other model's file is written over.

    Raises
    ------
    UserError : if the name is no plain file name, or that of another model's budget.
    """
    called = name or re.sub(r"[^\w.-]+", "-", content["label"].lower()).strip("-.")
    if called != Path(called).name or called.startswith("."):
        raise UserError(f"--name {called}: give a plain file name, without folders")
    path = folder / f"{called}.json"
    if not _is_of_another(path, content["model"]):
        return path
    if name:
        raise UserError(f"--name {name}: {path} is the budget of another model; give another name")
    return folder / f"{called}-{content['model'][:6]}.json"


def _is_of_another(path: Path, model: str) -> bool:
    if not path.exists():
        return False
    try:
        return bool(read_budget(str(path))["model"] != model)
    except UserError:  # damaged or of an older kind: there is nothing to keep
        return False


def budget(
    outputs: Path,
    model: str,
    eta: float,
    coverage: float,
    cost: float | None,
    lengths: Sequence[int],
    extrapolate: bool,
    run: int | None = None,
) -> dict[str, Any]:
    """Fit every head's law and return the content of a budget file.

    Parameters
    ----------
    outputs : the directory that holds `runs/`.
    model : the label of a measured model, or a part of one.
    eta : dropped mass allowed; one of those recorded.
    coverage : share of a head's rows that are to stay within it.
    cost : mean number of keys, over heads and contexts of 1 to N keys, that all windows are scaled to; None for none.
    lengths : context lengths to give k for, besides those measured.
    extrapolate : write a budget that holds at all lengths asked for, supported or not.
    run : consecutive rows, of all heads that share a KV head, that the keys are to serve; None for one row of a head.

    Raises
    ------
    UserError : if a number is out of range, the model or tolerance was not measured, there is too little to fit and
        test, or a length asked for is beyond what the held-out length supports.
    """
    if not 0 < coverage < 1:
        raise UserError(f"--coverage {coverage}: give a share between 0 and 1")
    if bad := [length for length in lengths if not 1 <= length <= FURTHEST]:
        raise UserError(f"--lengths {str(bad[0])[:30]}: give numbers of keys from 1 to {FURTHEST:,}")
    how = settings.fits(settings.analysis())
    runs = complete_runs(outputs)
    if run is None:
        rows = _rows_of(load_rows(runs), model)
        needs = _needs(rows, eta)
    else:
        rows = _rows_of(load_task(runs, UNIONS.name), model, "source.runs=[...]")
        needs = _needs_together(rows, eta, run)
    used = [record for record in runs if record.id in set(rows["run"].astype(str))]
    half = len(needs.samples) // 2
    if half < 2 or len(needs.lengths) < 4:
        raise UserError(
            f"{rows['label'].iloc[0]}: {len(needs.samples)} samples at {len(needs.lengths)} lengths; a budget is "
            "fitted on half of at least 4 samples and tested on the others, at 4 lengths or more: measure more of them"
        )
    test, fit = slice(0, half), slice(half, None)
    design = Design.of(needs, how.min_lengths)
    laws = _with_margin(
        _fit(needs.k[:, :-1, fit], design, coverage, how.resamples, how.seed), needs, fit, design, coverage, how.seed
    )
    typical = alike(needs.seen[:, :-1])
    shared = _fit_typical(needs, typical, fit, design, coverage, how.resamples, how.seed)

    longest, fitted = needs.lengths[-1], needs.lengths[-2]
    needed = np.log(_quantile(needs.k[:, -1, test], coverage)) + laws.margin
    _, low, high = laws.interval(needs.n[:, -1].mean(-1), how.confidence)
    tested = design.grows & (needs.seen[:, -1] > needs.seen[:, :-1].max(-1))
    right = (needed >= low) & (needed <= high)
    foretold = float(right[tested if tested.any() else slice(None)].mean())
    reach = longest**2 // fitted if foretold >= HOLDS else longest
    beyond = [length for length in lengths if length > reach]
    if beyond and not extrapolate:
        raise UserError(
            f"--lengths {max(beyond)}: the laws fitted up to {fitted} keys were tested at {longest}, where they "
            f"foretold {foretold:.0%} of the heads, which supports up to {reach}; measure longer contexts, or add "
            "--extrapolate"
        )
    factor = 1.0
    if cost is not None:
        n = np.minimum(np.arange(1, longest + 1, dtype=float), needs.sees[:, None])
        shape = np.exp(laws.level[:, None] + laws.slope[:, None] * np.log(n))
        if not 1 < cost < n.mean():
            raise UserError(f"--cost {cost:g}: give a mean number of keys between 1 and {n.mean():.0f}")
        factor = scale_for(shape.ravel(), n.ravel(), np.full(n.size, 1 / n.size), cost)
    keys = _keys(laws, needs.sees, factor, sorted({*needs.lengths, FAR * fitted, *lengths}), reach, how.confidence)
    return {
        "format": FORMAT,
        "label": str(rows["label"].iloc[0]),
        "model": str(rows["model_hash"].iloc[0]),
        "text": str(rows["text_hash"].iloc[0]),
        "runs": {run.id: run.digest for run in used},
        "tolerance": {"dropped_mass": eta, "coverage": coverage},
        "serves": {"rows": run or 1, "heads": "one" if run is None else "all of a KV head"},
        "cost": cost,
        "factor": factor,
        "law": "k = alpha n^C",
        "confidence": how.confidence,
        "fitted": {"samples": needs.samples[fit], "lengths": needs.lengths[:-1]},
        "held_out": {"samples": needs.samples[test], "length": longest, "foretold": foretold},
        "supported_length": max([reach, *lengths]) if extrapolate else reach,
        "extrapolated": bool(beyond),
        "promise": _promise(needs, test, laws, factor, coverage),
        "pooled": _line(shared, 0, needs.sees[typical].max(), factor, how.confidence),
        "heads": [
            {"layer": layer, "head": head, **_line(laws, h, needs.sees[h], factor, how.confidence), "keys": keys[h]}
            for h, (layer, head) in enumerate(needs.head_keys)
        ],
    }


def _rows_of(rows: pd.DataFrame, model: str, how: str = "") -> pd.DataFrame:
    """Return the lines of the one model that is called so, of its fullest design; `how` it is to be measured."""
    if rows.empty:
        raise UserError(f"--model {model}: no model was measured{how and f' with {how}'}")
    real = rows[(rows["kind"] == "real") & (rows["role"] == "main")]
    if "variant" in real:
        real = real[real["variant"] == "plain"]
    labels = sorted(set(real["label"].astype(str)))
    matching = [label for label in labels if label == model] or [
        label for label in labels if model.lower() in label.lower()
    ]
    if len(matching) > 1:
        raise UserError(f"--model {not_one(model, matching, labels)}")
    if not matching:
        raise UserError(
            f"--model {model}: no measured model is called so; "
            f"measured{how and f' with {how}'} are: {', '.join(labels) or 'none'}"
        )
    return fullest_design(real[real["label"] == matching[0]])


def _needs(rows: pd.DataFrame, eta: float) -> Needs:
    column = f"k_min_{eta:g}"
    if column not in rows:
        recorded = ", ".join(name.removeprefix("k_min_") for name in map(str, rows) if name.startswith("k_min_"))
        raise UserError(f"--tolerance dropped_mass={eta:g}: recorded are {recorded}")
    rows = rows[rows["seed"] == rows["seed"].min()].sort_values(["layer", "head", "length", "sample", "position"])
    head_keys = sorted(set(zip(rows["layer"].tolist(), rows["head"].tolist(), strict=True)))
    lengths, samples = sorted(rows["length"].unique().tolist()), sorted(rows["sample"].unique().tolist())
    shape = (len(head_keys), len(lengths), len(samples), -1)
    try:
        n, k = (rows[name].to_numpy(float).reshape(shape) for name in ("n", column))
    except ValueError as error:
        raise UserError(
            f"{rows['label'].iloc[0]}: its heads have different numbers of rows; measure it again"
        ) from error
    return Needs(k, n[:, :, 0], head_keys, lengths, samples)


def _needs_together(lines: pd.DataFrame, eta: float, run: int) -> Needs:
    """Return what each KV head needs for a run of rows, given to each of its query heads; a sample has one run."""
    for value, column, name in ((eta, "eta", "--tolerance dropped_mass="), (run, "rows", "--serves ")):
        if value not in (recorded := set(lines[column])):
            there = ", ".join(f"{number:g}" for number in sorted(recorded))
            raise UserError(f"{name}{value:g}: recorded are {there} (source.runs)")
    lines = lines[(lines["eta"] == eta) & (lines["rows"] == run)]
    heads = lines.loc[lines["head"] != EVERY_HEAD, ["layer", "head", "kv_head"]].drop_duplicates()
    heads = heads.sort_values(["layer", "head"])
    groups = lines[lines["head"] == EVERY_HEAD]
    names = ["layer", "kv_head", "length", "sample"]
    lengths, samples = (sorted(groups[name].unique().tolist()) for name in ("length", "sample"))
    places = list(zip(heads["layer"].tolist(), heads["kv_head"].tolist(), strict=True))
    index = pd.MultiIndex.from_tuples(
        [(*place, length, sample) for place in places for length in lengths for sample in samples], names=names
    )
    wanted = groups.drop_duplicates(names).set_index(names).reindex(index)
    if wanted["union"].isna().any():
        raise UserError(f"{lines['label'].iloc[0]}: some KV heads were measured in part; measure it again")
    shape = (len(places), len(lengths), len(samples), 1)
    n, k = (wanted[name].to_numpy(float).reshape(shape) for name in ("n", "union"))
    head_keys = list(zip(heads["layer"].tolist(), heads["head"].tolist(), strict=True))
    return Needs(k, n[:, :, 0], head_keys, lengths, samples)


def _quantile(k: Array, coverage: float) -> Array:
    """Smallest window that serves a share `coverage` of the rows of all samples: (..., samples, rows) -> (...)."""
    return np.quantile(k.reshape(*k.shape[:-2], -1), coverage, axis=-1, method="higher")


def _fit(k: Array, design: Design, coverage: float, resamples: int, seed: int) -> Laws:
    """Fit ln k = ln alpha + C ln n by least squares, C held within [0, 1]; intervals resample the samples."""
    return _fit_curves(_curves(k, coverage, resamples, seed), design, k.shape[2])


def _fit_typical(
    needs: Needs, selected: NDArray[np.bool_], fit: slice, design: Design, coverage: float, resamples: int, seed: int
) -> Laws:
    """Fit the mean over some heads of ln k: one curve."""
    curves = _curves(needs.k[selected, :-1, fit], coverage, resamples, seed).mean(1, keepdims=True)
    x = np.log(needs.n[selected].mean((0, 2)))[None, :-1]
    return _fit_curves(
        curves, Design(x, design.used[selected][:1], design.grows[selected][:1]), needs.k[:, :, fit].shape[2]
    )


def _curves(k: Array, coverage: float, resamples: int, seed: int) -> Array:
    """Ln of the window that serves the share `coverage` of rows, then its resamples (1 + resamples, heads, lengths)."""
    samples = k.shape[2]
    drawn = np.random.default_rng(seed).integers(samples, size=(min(resamples, 200), samples))
    return np.stack([np.log(_quantile(k[:, :, selected], coverage)) for selected in [np.arange(samples), *drawn]])


def _fit_curves(curves: Array, design: Design, samples: int) -> Laws:
    middle = design.mean(design.x)
    fitted = fit_line(curves, design.x, np.broadcast_to(design.used, curves.shape))[..., 1]
    slope = np.clip(np.where(design.grows, fitted, 0.0), 0.0, 1.0)  # what does not grow has the slope 0
    level = design.mean(curves) - slope * middle
    left = np.where(design.used, curves[0] - level[0][:, None] - slope[0][:, None] * design.x, 0.0)
    spare = np.maximum(design.used.sum(-1) - np.where(design.grows, 2, 1), 1)
    scatter = np.sqrt((left**2).sum(-1) / spare)
    freedom = np.minimum(spare, samples - 1)
    return Laws(level[0], slope[0], level[1:], slope[1:], scatter, freedom, samples, np.zeros(len(scatter)))


def _with_margin(laws: Laws, needs: Needs, fit: slice, design: Design, coverage: float, seed: int) -> Laws:
    """Raise each head's law until it would have served the share `coverage` of every text that it had not seen.

    Each sample is left out in turn, the law is fitted to the others, and the ratio found by which the law must grow to
    serve that share of the sample's rows. The largest of them is the margin, never below 1: with c samples a further
    one needs more with a chance of 1 / (c + 1), if they are exchangeable (cross-conformal, Vovk 2015, arXiv 1208.0806).
    """
    k, x = needs.k[:, :-1, fit], np.log(needs.n[:, :-1])
    # a law holds at every length, a cap where the head sees as many keys as it ever does
    counted = design.used | design.grows[:, None]
    missed = []
    for sample in range(k.shape[2]):
        others = _fit(np.delete(k, sample, axis=2), replace(design, x=x.mean(-1)), coverage, 0, seed)
        ratio = np.log(k[:, :, sample]) - (others.level[:, None, None] + others.slope[:, None, None] * x)
        missed.append(
            [np.quantile(each[at], coverage, method="higher") for each, at in zip(ratio, counted, strict=True)]
        )
    margin = np.maximum(np.max(missed, axis=0), 0.0)
    return replace(laws, level=laws.level + margin, levels=laws.levels + margin, margin=margin)


def _line(laws: Laws, h: int, sees: float, factor: float, confidence: float) -> dict[str, float]:
    """Return alpha and C of a curve with their intervals, and the most keys that it sees unless that is the context."""
    line: dict[str, float] = {}
    for name, value, replicates in (("alpha", laws.level, laws.levels), ("C", laws.slope, laws.slopes)):
        ends = bootstrap.interval(value[h], replicates[:, h], laws.units, confidence)
        points = np.array([value[h], *ends], float)
        points = factor * np.exp(points) if name == "alpha" else np.clip(points, 0.0, 1.0)
        line |= dict(zip((name, f"{name}_low", f"{name}_high"), map(float, points), strict=True))
    if np.isinf(sees):
        return line
    if line["C"] == 0:  # alpha is a number of keys
        line |= {name: min(value, float(sees)) for name, value in line.items() if name.startswith("alpha")}
    return line | {"sees": int(sees)}


def _keys(
    laws: Laws, sees: Array, factor: float, lengths: Sequence[int], reach: float, confidence: float
) -> list[list[dict[str, Any]]]:
    """Return for each head k and its prediction interval at each length, those beyond `reach` marked."""
    lines: list[list[dict[str, Any]]] = [[] for _ in sees]
    for length in lengths:
        n = np.minimum(float(length), sees)
        with np.errstate(over="ignore"):
            bounds = [np.clip(np.ceil(factor * np.exp(part)), 1, n) for part in laws.interval(n, confidence)]
        for line, k, low, high in zip(lines, *map(np.ndarray.tolist, bounds), strict=True):
            line.append({"length": length, "k": k, "low": low, "high": high, "extrapolation": length > reach})
    return lines


def _promise(needs: Needs, test: slice, laws: Laws, factor: float, coverage: float) -> list[dict[str, float]]:
    """Return, per length, the shares of held-out rows and heads that stay within the tolerance."""
    lines = []
    for i, length in enumerate(needs.lengths):
        n = needs.n[:, i]
        given = np.ceil(factor * np.exp(laws.level[:, None] + laws.slope[:, None] * np.log(n)))
        given = np.clip(given, 1, n)
        within = (needs.k[:, i, test] <= given[:, None]).mean((1, 2))
        shares = {"rows": float(within.mean()), "heads": float((within >= coverage).mean())}
        lines.append({"length": length, **shares, "mean_keys": float(given.mean())})
    return lines


def _next_command(outputs: Path, content: dict[str, Any], path: Path) -> str:
    """Return the command that runs the model within the budget, on what its record read."""
    run = outputs / "runs" / next(iter(content["runs"]))
    source = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["source"]
    if source.get("layers") or source.get("heads"):
        return "measure it with all layers and heads first (source.layers=null source.heads=null)"
    group = source["name"] if (settings.CONF / "source" / f"{source['name']}.yaml").exists() else "checkpoint"
    defaults: dict[str, Any] = {}
    for name in ("checkpoint", group):
        defaults |= yaml.safe_load((settings.CONF / "source" / f"{name}.yaml").read_text(encoding="utf-8"))
    overrides = {
        f"source.{key}": value
        for key, value in source.items()
        if key not in OWN_OF_A_RUN and value is not None and value != defaults.get(key)
    }
    overrides |= {"source.lengths": [content["held_out"]["length"]], "source.samples": source["samples"]}
    overrides |= {"windows.file": str(path)}
    words = [f"{key}={_value(value)}" for key, value in overrides.items()]
    return shlex.join(["python", "run.py", f"source={group}", "runner=language", "windows=budget", *words])


def _value(value: Any) -> str:
    """Write a value as Hydra reads it."""
    if isinstance(value, str) and not re.fullmatch(r"[\w.~/:-]*[/:][\w.~/:-]*", value):
        # a backslash counts only before a quote
        return "'" + re.sub(r"(\\+)$", r"\1\1", re.sub(r"(\\*)'", r"\1\1\\'", value)) + "'"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _promise_table(content: dict[str, Any]) -> Table:
    tolerance, held = content["tolerance"], content["held_out"]
    whose = "a head's rows"
    if content["serves"]["heads"] != "one":
        run = content["serves"]["rows"]
        whose = f"the texts, in {f'{run} rows' if run > 1 else 'a row'} of all heads that share a KV head"
    promised = f"dropped mass <= {tolerance['dropped_mass']:g} for {tolerance['coverage']:.0%} of {whose}"
    if content["cost"] is not None:
        promised = (
            f"{promised}, scaled by {content['factor']:.3g}\nto {content['cost']:g} keys on average over contexts of 1 "
            f"to {held['length']}: no longer a promise; what is left of it"
        )
    title = (
        f"{content['label']}: {promised}\non text that was not used, {len(content['fitted']['samples'])} samples and "
        f"lengths up to {content['fitted']['lengths'][-1]} fitted;\n"
        f"{held['foretold']:.0%} of the heads foretold at {held['length']}; "
        "heads within: those that keep it by themselves"
    )
    if capped := [head["sees"] for head in content["heads"] if "sees" in head]:
        title += f"\n{len(capped)} of {len(content['heads'])} heads see at most {max(capped)} keys at any length"
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for name in ("context", "keys per row", "rows within", "heads within"):
        table.add_column(name, justify="right")
    for line in content["promise"]:
        table.add_row(f"{line['length']}", f"{line['mean_keys']:.0f}", f"{line['rows']:.1%}", f"{line['heads']:.0%}")
    return table


def _keys_table(content: dict[str, Any], lengths: Sequence[int]) -> Table:
    title = "keys of a head, with the prediction interval of the median head"
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for name in ("context", "10% of heads", "median", "low", "high", "90%", "mean", ""):
        table.add_column(name, justify="right")
    for length in lengths:
        points = [point for head in content["heads"] for point in head["keys"] if point["length"] == length]
        k = np.array([[point[name] for name in ("k", "low", "high")] for point in points])
        few, many = np.quantile(k[:, 0], [0.1, 0.9])
        cells = (few, *np.median(k, axis=0), many, k[:, 0].mean())
        far = "extrapolated" if points[0]["extrapolation"] else ""
        table.add_row(f"{length}", *(f"{value:.0f}" for value in cells), far)
    return table


if __name__ == "__main__":
    sys.exit(main())
