"""What keys shared out lose inside the model, all layers within theirs at once, over as many keys for each."""

from itertools import product

import numpy as np
import pandas as pd

from analysis.statistics.intervals import student_reach
from experiments.windows import DENSE
from experiments.windows.head_laws import BUDGET

ALIKE = f"{BUDGET}_uniform"
RUN = ["label", "phase", "selector", "length", "design", "seed"]
Piece = tuple[str, str, int, int]  # model, text, first token and the one behind the last
NEEDS = "needs"
LOST = {"kl": "kl", "loss": "lost"}  # column of losses: name in the table


def in_model(losses: pd.DataFrame, gains: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Compare windows of budget files with keys alike for each, paired by sample, in the same runs' design.

    What alike loses at the same mean number of keys is read off linearly in ln keys between those measured.

    Parameters
    ----------
    losses : lines of losses; those within budgets of a design that has keys alike are used.
    gains : what keys were shared out by; pieces of text that it was measured on are not held out.

    Returns
    -------
    DataFrame : per label, phase, selector, length, `by`, `file` (its name where another's windows are named alike) and
        `cost` (keys shared out, or the tolerance of needs): mean `keys`, `kl` and `lost` over dense with Student's
        intervals over samples, `difference` of the KL and `lost_difference` from keys alike with theirs, `samples`, and
        whether all of them were `held_out`.
    """
    rule = losses["rule"].astype(str)
    lines = losses[rule.str.startswith(BUDGET)]
    if lines.empty:
        return pd.DataFrame()
    lines = lines.assign(rule=rule[lines.index]).astype({"loss": float, "kl": float, "keys": float})
    of_sample = [name for name in (*RUN, "sample") if name != "selector"]  # dense attention is of no method
    dense = losses[rule == DENSE].groupby(of_sample, observed=True)["loss"].mean().astype(float)
    window = [*RUN, "rule", "parameter", "scale"]
    means = lines.groupby([*window, "sample"], observed=True)[["keys", "kl", "loss"]].mean().reset_index()
    means["loss"] -= means.join(dense.rename("dense"), on=of_sample)["dense"]
    fitted, parts = _pieces(gains), []
    for run, of_run in means.groupby(RUN, observed=True):
        alike = of_run[of_run["rule"] == ALIKE]
        if alike.empty:
            continue
        place = dict(zip(RUN, run, strict=True))
        design, seed = place.pop("design"), place.pop("seed")
        own = _pieces(lines[(lines["design"] == design) & (lines["seed"] == seed)])
        held_out = not any(_overlap(one, other) for one, other in product(own, fitted))
        for (name, parameter, _), of_window in of_run.groupby(["rule", "parameter", "scale"]):
            line = {**place, **_way(str(name)), "cost": parameter}
            line |= {"keys": of_window["keys"].mean(), "samples": len(of_window), "held_out": held_out}
            for column, said in LOST.items():
                over = of_window[column].to_numpy() - _alike(alike, of_window, column)
                against = "difference" if said == "kl" else f"{said}_difference"
                line |= _with_interval(said, of_window[column].to_numpy(), confidence)
                line |= _with_interval(against, over, confidence)
            parts.append(line)
    return pd.DataFrame(parts)


def _way(rule: str) -> dict[str, str]:
    """Return by what the windows of a rule were made, and the name of their file where the rule has it."""
    name, _, file = rule.removesuffix(")").partition(" (")
    return {"by": NEEDS if name == BUDGET else name.removeprefix(f"{BUDGET}_"), "file": file}


def _pieces(lines: pd.DataFrame) -> set[Piece]:
    """Return the pieces of text that lines were measured on.

    Sample i is tokens [i N, (i + 1) N), N the longest length.
    """
    pieces = lines.astype({"design": str, "model_hash": str, "text_hash": str}).drop_duplicates([*RUN, "sample"])
    longest = pieces.groupby(["design", "seed"])["length"].transform("max")
    start = pieces["sample"] * longest
    return set(zip(pieces["model_hash"], pieces["text_hash"], start, start + longest, strict=True))


def _overlap(one: Piece, other: Piece) -> bool:
    return one[:2] == other[:2] and one[2] < other[3] and other[2] < one[3]


def _alike(alike: pd.DataFrame, of_window: pd.DataFrame, column: str) -> np.ndarray:
    """Return what keys alike lose in each sample at as many keys; NaN beyond what was measured."""
    lost = []
    for sample, keys in zip(of_window["sample"], of_window["keys"], strict=True):
        curve = alike[alike["sample"] == sample].sort_values("keys")
        ends = {"left": np.nan, "right": np.nan}
        lost.append(np.interp(np.log(keys), np.log(curve["keys"]), curve[column], **ends) if len(curve) else np.nan)
    return np.array(lost)


def _with_interval(name: str, values: np.ndarray, confidence: float) -> dict[str, float]:
    mean, error = float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.nan
    reach = student_reach(error, len(values), confidence)
    return {name: mean, f"{name}_low": mean - reach, f"{name}_high": mean + reach}
