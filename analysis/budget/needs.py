"""The keys that rows of a model need at one tolerance: what laws are fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.questions import not_one
from analysis.records.load import fullest_design
from experiments.errors import UserError
from experiments.tables.unions import EVERY_HEAD

Array = NDArray[np.float64]


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


def rows_of(rows: pd.DataFrame, model: str, how: str = "") -> pd.DataFrame:
    """Return the lines of the one model that is called so, of its fullest design; `how` it is to be measured."""
    return fullest_design(lines_of(rows, model, how))


def lines_of(rows: pd.DataFrame, model: str, how: str = "") -> pd.DataFrame:
    """Return the lines of the one model that is called so; `how` it is to be measured."""
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
        listed = ", ".join(f'"{label}"' for label in labels)  # labels may have commas
        raise UserError(
            f"--model {model}: no measured model is called so; measured{how and f' with {how}'} are: {listed or 'none'}"
        )
    return real[real["label"] == matching[0]]


def needs_of(rows: pd.DataFrame, eta: float) -> Needs:
    """Return the smallest windows of the lines of one model that leave a dropped mass of at most eta."""
    column = f"k_min_{eta:g}"
    if column not in rows:
        recorded = ", ".join(name.removeprefix("k_min_") for name in map(str, rows) if name.startswith("k_min_"))
        raise UserError(f"--tolerance dropped_mass={eta:g}: recorded are {recorded}")
    place = ["layer", "head", "length", "sample", "position"]  # samples are numbered over all seeds
    rows = rows.drop_duplicates(place).sort_values(place)
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


def needs_together(lines: pd.DataFrame, eta: float, run: int) -> Needs:
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
