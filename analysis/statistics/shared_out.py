"""What keys shared out lose inside the model, all layers within theirs at once, over as many keys for each.

Of the next tokens of a text, and of the answers to tasks.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.statistics.intervals import with_interval
from experiments.windows import DENSE
from experiments.windows.head_laws import BUDGET

ALIKE = f"{BUDGET}_uniform"
RUN = ["label", "phase", "selector", "length", "design", "seed"]
PIECE = ["design", "seed", "sample"]  # what names a piece of text
NEEDS = "needs"
LOST = {"kl": "kl", "loss": "lost"}  # column of losses: name in the table


def in_model(losses: pd.DataFrame, gains: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Compare windows of budget files with keys alike for each, paired by sample, in runs of one design.

    Where keys alike were not measured at the same cost, what they lose at as many keys is read off linearly in ln keys.

    Parameters
    ----------
    losses : lines of losses; those within budgets of a design that has keys alike are used.
    gains : what keys were shared out by; pieces of text that it was measured on are not held out.

    Returns
    -------
    DataFrame : per label, phase, selector, length, `by`, `file` (its name where another's windows are named alike),
        `cost` (keys shared out, or the tolerance of needs) and whether the samples were `held_out`: mean `keys`, `kl`
        and `lost` over dense with Student's intervals over samples, `difference` of the KL and `lost_difference` from
        keys alike with theirs, and `samples`.
    """
    return _compared(losses, gains, confidence)


def in_tasks(answers: pd.DataFrame, gains: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Compare the same in answers to tasks, each task apart: `lost` is ln p of the right answer that dense has more.

    Returns
    -------
    DataFrame : as of `in_model`, per `task` too, with the share of answers that are `exact`, and `dense_exact`.
    """
    answers = answers if answers.empty else answers.assign(loss=-answers["log_prob"])
    return _compared(answers, gains, confidence, ["task"], ["exact"])


def _compared(
    losses: pd.DataFrame,
    gains: pd.DataFrame,
    confidence: float,
    also_by: Sequence[str] = (),
    also_means: Sequence[str] = (),
) -> pd.DataFrame:
    """Compare lines that have `loss` and `kl`; see `in_model`.

    Parameters
    ----------
    also_by, also_means
        Columns that part the lines besides, and columns whose means are given, and those of dense attention.
    """
    none = pd.DataFrame(columns=_columns(also_by, also_means))
    if losses.empty:  # without a run of its kind it has no columns
        return none
    run, measured = [*RUN, *also_by], ["keys", "kl", "loss", *also_means]
    rule = losses["rule"].astype(str)
    if not (rule == ALIKE).any():
        return none
    of_budget = rule.str.startswith(BUDGET)
    as_float = dict.fromkeys(measured, float)
    lines = losses[of_budget].assign(rule=rule[of_budget]).astype(as_float)
    lines = lines.assign(held_out=_held_out(lines, gains))
    of_sample = [name for name in (*run, "sample") if name != "selector"]  # dense attention is of no method
    dense = losses[rule == DENSE].astype(as_float).groupby(of_sample, observed=True)[measured].mean()
    window = [*run, "rule", "parameter", "scale", "held_out", "sample"]
    means = (
        lines.groupby(window, observed=True)[measured]
        .mean()
        .reset_index()
        .join(dense.add_prefix("dense_"), on=of_sample)
    )
    means["loss"] -= means["dense_loss"]
    parts = []
    for values, of_run in means.groupby([*run, "held_out"], observed=True):
        alike = of_run[of_run["rule"] == ALIKE]
        if alike.empty:
            continue
        place = {
            name: value
            for name, value in zip([*run, "held_out"], values, strict=True)
            if name not in ("design", "seed")
        }
        for (name, parameter, scale), of_window in of_run.groupby(["rule", "parameter", "scale"]):
            line = {**place, **_way(str(name)), "cost": parameter}
            line |= {"keys": of_window["keys"].mean(), "samples": len(of_window)}
            line |= {column: of_window[column].mean() for name in also_means for column in (name, f"dense_{name}")}
            same = alike[(alike["parameter"] == parameter) & (alike["scale"] == scale)]
            same = same.set_index("sample").reindex(of_window["sample"])
            for column, said in LOST.items():
                base = same[column].to_numpy() if same["keys"].notna().any() else _alike(alike, of_window, column)
                over = of_window[column].to_numpy() - base
                against = "difference" if said == "kl" else f"{said}_difference"
                line |= with_interval(said, of_window[column].to_numpy(), confidence)
                line |= with_interval(against, over, confidence)
            parts.append(line)
    return pd.DataFrame(parts, columns=none.columns)


def _columns(also_by: Sequence[str], also_means: Sequence[str]) -> list[str]:
    place = [name for name in (*RUN, *also_by) if name not in ("design", "seed")]
    means = [column for name in also_means for column in (name, f"dense_{name}")]
    found = [
        f"{name}{end}" for name in ("kl", "difference", "lost", "lost_difference") for end in ("", "_low", "_high")
    ]
    return [*place, "held_out", "by", "file", "cost", "keys", "samples", *means, *found]


def _way(rule: str) -> dict[str, str]:
    """Return by what the windows of a rule were made, and the name of their file where the rule has it."""
    name, _, file = rule.removesuffix(")").partition(" (")
    return {"by": NEEDS if name == BUDGET else name.removeprefix(f"{BUDGET}_"), "file": file}


def _held_out(lines: pd.DataFrame, gains: pd.DataFrame) -> pd.Series:
    """Return of each line whether gains were measured on no token of its sample's piece of the text."""
    known = _pieces(gains).drop_duplicates(["model_hash", "text_hash", "start", "stop"])
    pieces = _pieces(lines)
    held_out = [
        not (
            (known["model_hash"] == model)
            & (known["text_hash"] == text)
            & (known["start"] < stop)
            & (known["stop"] > start)
        ).any()
        for model, text, start, stop in pieces[["model_hash", "text_hash", "start", "stop"]].itertuples(index=False)
    ]
    of_piece = pieces.assign(held_out=held_out).set_index(PIECE)["held_out"]
    return lines[PIECE].astype(str).join(of_piece.rename("held_out"), on=PIECE)["held_out"]


def _pieces(lines: pd.DataFrame) -> pd.DataFrame:
    """Return the pieces of text that lines were measured on, first token and the one behind the last.

    Sample i is tokens [i N, (i + 1) N), N the longest length of its design.
    """
    names = {"design": str, "model_hash": str, "text_hash": str}
    longest = lines.groupby(["design", "seed"], observed=True)["length"].transform("max").astype(int)
    pieces = lines.assign(start=lines["sample"] * longest, stop=(lines["sample"] + 1) * longest).astype(names)
    pieces = pieces.drop_duplicates([*PIECE, "model_hash", "text_hash"])
    return pieces.assign(**{name: pieces[name].astype(str) for name in PIECE})


def _alike(alike: pd.DataFrame, of_window: pd.DataFrame, column: str) -> np.ndarray:
    """Return what keys alike lose in each sample at as many keys; NaN beyond what was measured."""
    lost = []
    for sample, keys in zip(of_window["sample"], of_window["keys"], strict=True):
        curve = alike[alike["sample"] == sample].groupby("keys")[column].mean()  # by rising keys
        ends = {"left": np.nan, "right": np.nan}
        lost.append(np.interp(np.log(keys), np.log(curve.index), curve, **ends) if len(curve) else np.nan)
    return np.array(lost)
