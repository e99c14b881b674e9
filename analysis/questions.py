"""What one asks of records from Python: a label's laws, the keys that it needs at a length, and two runs side by side.

`analysis` has these functions by their names; nothing is measured or written.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from analysis import settings
from analysis.records.load import Run, complete_runs, lines_of_both
from analysis.records.load import load as load_all
from analysis.settings import Settings
from analysis.statistics import bootstrap, means
from analysis.statistics.fit import Curves, curves_of, fit_heads, fit_pooled
from analysis.statistics.growth import distinct
from analysis.statistics.laws import LAWS
from experiments.errors import UserError
from experiments.tables.rows import ETAS

Labels = str | Sequence[str] | None
PLAIN = "plain"
CHOSEN_BY = ["label", "length", "experiment", "design", "run", "score_power"]
ERRORS = ["k", "dropped_mass", "output_error_renormalised"]


def load(
    outputs: str | Path,
    columns: Sequence[str] | None,
    label: Labels,
    lengths: Sequence[int] | None,
    experiment: str | None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read rows and windows, of some labels, context lengths and one experiment alone; see `analysis.load`."""
    wanted = None if columns is None else list(dict.fromkeys([*columns, *CHOSEN_BY]))
    rows, windows = (_of(_chosen(frame, label, lengths), experiment) for frame in load_all(outputs, wanted))
    if mixed := _mixed(rows):
        told = [f"{name} ({', '.join(experiments)})" for name, experiments in mixed.items()]
        print(
            f"runs of several configurations bear one label: {'; '.join(told)}; a mean over all lines counts the heads "
            "of each: choose one by experiment=, or by the column run or design",
            file=sys.stderr,
        )
    if columns is not None:
        rows, windows = (frame[[name for name in frame if name in columns]] for frame in (rows, windows))
    return rows, windows


def _of(frame: pd.DataFrame, experiment: str | None) -> pd.DataFrame:
    """Return the lines of one experiment, all by default."""
    if experiment is None:
        return frame
    there = sorted(set(frame["experiment"].dropna().astype(str)))
    if experiment not in there:
        raise UserError(f"experiment={experiment!r}: choose one of {', '.join(there) or 'none, for no run has one'}")
    return frame[frame["experiment"] == experiment]


def _mixed(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Return the labels whose rows are of several designs, with the experiments or, without one, the runs of each."""
    mixed = {}
    for label, part in rows[CHOSEN_BY].groupby("label", observed=True):
        part = part[part["score_power"].isna()].drop_duplicates("design")
        if len(part) > 1:
            mixed[str(label)] = sorted(part["experiment"].astype(object).fillna(part["run"].astype(object)).astype(str))
    return mixed


def fits(
    outputs: str | Path, label: Labels, lengths: Sequence[int] | None, eta: float | None, heads: bool
) -> pd.DataFrame:
    """Fit every law to the typical head of each label, or to every head; see `analysis.fits`."""
    rows = _chosen(load_all(outputs)[0], label, lengths)
    how = settings.fits(settings.analysis())
    if eta is not None:
        how = replace(how, etas=(_tolerance(eta),))
    rows = rows[rows["score_power"].isna()]
    return fit_heads(rows, how) if heads else fit_pooled(rows, how)


def k_min(
    model: str,
    n: ArrayLike,
    eta: float,
    outputs: str | Path,
    mean: str,
    law: str | None,
    lengths: Sequence[int] | None,
    layer: int | None,
    head: int | None,
) -> pd.DataFrame:
    """Return the keys that a label, or one of its heads, needs at context lengths n; see `analysis.k_min`."""
    how = replace(settings.fits(settings.analysis()), etas=(_tolerance(eta),))
    laws = {each.name: each for each in LAWS}
    if mean not in (means.MEAN, means.TYPICAL):
        raise UserError(f"mean={mean!r}: choose {means.MEAN!r} or {means.TYPICAL!r}")
    if law is not None and law not in laws:
        raise UserError(f"law={law!r}: choose one of {', '.join(laws)}")
    rows = load_all(outputs)[0]
    rows = rows[(rows["variant"] == PLAIN) & rows["score_power"].isna()]
    label = _label(rows, model)
    rows = _chosen(rows, label, lengths)
    if layer is None and head is None:
        every = means.means_of(rows, eta, how)
        asked = next(item for item in every if item.name == mean and item.scope == means.ALL)
    else:
        model, asked = f"{label}, layer {layer}, head {head}", _one_head(rows, label, layer, head, eta, how)
    points = asked.points
    fitted = means.laws([asked], how).set_index("law")
    if fitted["lengths"].iloc[0] < how.min_lengths:
        raise UserError(f"{model}: no law is fitted, {fitted['reason'].iloc[0]}")
    if law is None:
        ranked = fitted[fitted["winner"].fillna(False).astype(bool)]
        if ranked.empty:
            reason = next(filter(None, fitted["reason"]))  # of the laws that could not be ranked
            raise UserError(f"{model}: no law is ranked best, {reason}; name one, --law power (law='power' in Python)")
        law = str(ranked.index[0])
    at = np.atleast_1d(np.asarray(n, np.float64))
    if not (at >= 1).all():
        raise UserError(f"n={n!r}: give context lengths of at least 1")
    longest, shortest = float(asked.curves.lengths.max()), float(asked.curves.lengths.min())
    still = not distinct(points.seen)[0, -1]  # a sliding window: rows see no more keys at longer contexts
    seen = np.minimum(at, points.seen.max()) if still else at
    x = np.log(seen)[None]
    drawn = partial(means.drawn, laws[law], points.x, points.usable, x)
    k = drawn(points.y)
    low, high = bootstrap.combined_interval(k, points.sources, drawn, how.confidence)
    return pd.DataFrame(
        {
            "n": at,
            "k": np.exp(k[0]),
            "k_low": np.exp(low[0]).clip(1),
            "k_high": np.minimum(np.exp(high[0]), seen),
            "law": law,
            "extrapolated": (at > longest) | (at < shortest),
        }
    )


def _one_head(
    rows: pd.DataFrame, label: str, layer: int | None, head: int | None, eta: float, how: Settings
) -> means.Mean:
    """Return the mean over the rows of one head, as one over heads."""
    (curves,) = curves_of(rows, replace(how, etas=(eta,)))
    if (layer, head) not in curves.head_keys:
        last = [max(curves.head_keys.get_level_values(name)) for name in ("layer", "head")]
        raise UserError(
            f"layer={layer}, head={head}: give both, of a head of {label} that was measured; the last are "
            f"{last[0]} and {last[1]}"
        )
    own = curves.only(curves.head_keys == (layer, head))
    return means.Mean(own, "head", means.ALL, 1, own.of_heads(how))


@dataclass(frozen=True)
class Comparison:
    """Two runs of runner=approximation side by side, of heads, variants and lengths that both have.

    Attributes
    ----------
    settings
        What was asked of them otherwise: one line per `field` with its `first` and `second` value.
    keys
        Per `variant`, `length` and `eta`, the keys that the typical head needs, the geometric mean over heads of the
        mean k_min, `first` and `second`, and `ratio`, second over first, with its 95% interval. Samples and heads are
        resampled apart, heads in pairs; samples too where both runs have as many, as they do of one text.
    windows
        Per window that both have, means over heads of `k`, `dropped_mass` and `output_error_renormalised` of each run,
        and `difference` of the dropped mass, second less first.
    """

    settings: pd.DataFrame
    keys: pd.DataFrame
    windows: pd.DataFrame


def compare(first: str, second: str, outputs: str | Path) -> Comparison:
    """Lay two runs side by side; see `analysis.compare`."""
    every = complete_runs(outputs)
    runs = [_run(every, name) for name in (first, second)]
    if runs[0].id == runs[1].id:
        raise UserError(f"{first} and {second} are one run: name two")
    how = settings.fits(settings.analysis())
    tables = [[lines.frame(lines.names, wide=True) for lines in lines_of_both([run])] for run in runs]
    rows = _common([table[0] for table in tables], ["variant", "layer", "head", "length"])
    if rows[0].empty:
        raise UserError(f"{first} and {second} have no head at a common context length: nothing to compare")
    # one name, so that both draw the same heads and samples
    curves = [list(curves_of(frame.assign(label="pair"), how)) for frame in rows]
    keys = [_ratio(one, other, how) for one, other in zip(*curves, strict=True)]
    return Comparison(_differing(*runs), pd.concat(keys, ignore_index=True), _windows([table[1] for table in tables]))


def _ratio(first: Curves, second: Curves, how: Settings) -> pd.DataFrame:
    """Return the lines of `Comparison.keys` of one variant and eta."""
    points = [curves.typical(how) for curves in (first, second)]
    y = [part.y[0] for part in points]
    sources = [_apart(*parts) for parts in zip(*(part.sources for part in points), strict=True)]
    apart = points[1].y - points[0].y
    low, high = bootstrap.combined_interval(apart, sources, lambda same: same, how.confidence)
    columns: dict[str, Any] = {"variant": first.variant, "length": first.lengths.astype(int), "eta": first.eta}
    columns |= {"first": np.exp(y[0]), "second": np.exp(y[1]), "ratio": np.exp(apart[0])}
    return pd.DataFrame(columns | {"ratio_low": np.exp(low[0]), "ratio_high": np.exp(high[0])})


def _apart(first: bootstrap.Source, second: bootstrap.Source) -> bootstrap.Source:
    """Return one source of error of a difference in ln k."""
    held = [part.held_elsewhere for part in (first, second)]
    both = None if held[0] is None or held[1] is None else held[1] - held[0]
    return bootstrap.Source(second.replicates - first.replicates, min(first.units, second.units), both)


def _windows(frames: list[pd.DataFrame]) -> pd.DataFrame:
    window = ["variant", "length", "selector", "rule", "parameter", "scale"]
    both = _common(frames, ["layer", "head", *window])
    first, second = (frame.groupby(window, observed=True)[ERRORS].mean() for frame in both)
    table = first.add_suffix("_first").join(second.add_suffix("_second"))
    table["difference"] = table["dropped_mass_second"] - table["dropped_mass_first"]
    return table.reset_index()


def _common(frames: list[pd.DataFrame], place: list[str]) -> list[pd.DataFrame]:
    """Return the lines of two tables whose places both have."""
    frames = [frame.astype({name: str for name in place if frame[name].dtype == "category"}) for frame in frames]
    both = frames[0][place].drop_duplicates().merge(frames[1][place].drop_duplicates())
    return [frame.merge(both) for frame in frames]


def _differing(first: Run, second: Run) -> pd.DataFrame:
    fields = [pd.json_normalize(run.config).iloc[0].to_dict() for run in (first, second)]
    names = [name for name in dict.fromkeys([*fields[0], *fields[1]]) if fields[0].get(name) != fields[1].get(name)]
    return pd.DataFrame(
        [{"field": name, "first": fields[0].get(name), "second": fields[1].get(name)} for name in names],
        columns=["field", "first", "second"],
    )


def _run(runs: list[Run], name: str) -> Run:
    """Return the run of an id, of the beginning of one, or of a label that one run alone has."""
    measured = [run for run in runs if run.config["runner"]["name"] == "approximation"]
    found = [run for run in measured if run.id.startswith(name)] or [run for run in measured if run.label == name]
    if len(found) != 1:
        what = "several runs" if found else "no run of runner=approximation"
        listed = "; ".join(f"{run.id} ({run.label})" for run in found or measured)
        raise UserError(f"{name}: {what}: name one of {listed or 'those that are measured: none'}")
    return found[0]


def _label(frame: pd.DataFrame, name: str) -> str:
    """Return the label that a name means: itself, or the only one of which it is a part."""
    labels = sorted(set(frame["label"].astype(str)))
    matching = [label for label in labels if label == name] or [
        label for label in labels if name.lower() in label.lower()
    ]
    if len(matching) != 1:
        raise UserError(not_one(name, matching, labels))
    return matching[0]


def not_one(name: str, matching: Sequence[str], labels: Sequence[str]) -> str:
    """Say that a name is part of several labels, or of none, and what to give instead; labels may have commas."""
    listed = ", ".join(f'"{label}"' for label in matching or labels)
    if matching:
        return f'"{name}" is part of several labels: give one of {listed}'
    return (
        f'no label has "{name}" in it: give one of {listed}' if labels else f'"{name}": no such label, none is measured'
    )


def _chosen(frame: pd.DataFrame, label: Labels, lengths: Sequence[int] | None) -> pd.DataFrame:
    """Return the lines of some labels and context lengths, all by default."""
    if label is not None:
        wanted = [_label(frame, name) for name in ([label] if isinstance(label, str) else label)]
        frame = frame[frame["label"].isin(wanted)]
    if lengths is not None:
        there = sorted(set(frame["length"].tolist()))
        if missing := sorted(set(lengths) - set(there)):
            raise UserError(f"no context length {missing[0]} was measured: choose among {', '.join(map(str, there))}")
        frame = frame[frame["length"].isin(list(lengths))]
    return frame


def _tolerance(eta: float) -> float:
    if eta not in ETAS:
        raise UserError(
            f"eta={eta:g}: rows are measured for a dropped mass of {', '.join(f'{each:g}' for each in ETAS)}"
        )
    return eta
