"""The verdict table: each claim of the paper against the tables on disk, by rules written in conf/claims.yaml."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from analysis import save

VERDICTS = ("confirmed", "qualified", "contradicted", "undecided")
RULE = ("claim", "reading", "question", "norm")  # what names a rule
COLUMNS = [
    *(*RULE, "source", "verdict", "effect", "effect_low", "effect_high", "quantity", "evidence"),
    *("lines", "supporting", "opposing", "supports", "opposes", "enough", "since", "numbers_known", "table"),
]


def judge(folder: Path, config: DictConfig, current: Collection[str]) -> pd.DataFrame:
    """Give a verdict on every reading of every claim, for every source that was measured.

    Each entry of the configuration names a table, the lines of it that bear on the claim, what tells one piece of
    evidence from another (`by`), and two conditions on a line. A claim is `confirmed` for a source if at least the
    share `enough` of its lines support it, `contradicted` if as many oppose it, or if none supports and some oppose
    it, `undecided` if none does either, and `qualified` else. Lines without an interval support and oppose nothing;
    a source that has no others is undecided. A rule about real models judges no other source: `real` names the table
    that says which sources are.

    Parameters
    ----------
    folder : where the tables lie; a table that was not made gives no verdict.
    config : conf/claims.yaml.
    current : names of the tables that are of the present records, whole; others give no verdict.

    Returns
    -------
    DataFrame : one line per entry and source with the columns in `COLUMNS`. `effect` is the median over the lines, in
        the unit of `quantity`, `effect_low` and `effect_high` their range, or of a single line its interval. The last
        columns are the rule that decided.
    """
    verdicts = []
    named = {name for entry in config.claims for name in (entry.table, entry.get("real", entry.table))}
    present = [name for name in sorted(named) if name in current and (folder / f"{name}.csv").exists()]
    tables = {name: save.read_csv(folder, name) for name in present}
    for entry in config.claims:
        if not {entry.table, entry.get("real", entry.table)} <= set(tables):
            continue
        table = tables[entry.table]
        if "real" in entry:
            about = tables[entry.real]
            table = table[table["label"].isin(about.loc[about["kind"] == "real", "label"])]
        lines = _chosen(table, entry)
        for source, of_source in lines.groupby("label", sort=False):
            verdicts.append(_verdict(str(source), of_source, entry))
    return pd.DataFrame(verdicts, columns=COLUMNS)


def unmeasured(verdicts: pd.DataFrame, config: DictConfig) -> list[dict[str, Any]]:
    """Return the rules by which no source was judged: nothing was measured that bears on them."""
    judged = set(verdicts[list(RULE)].itertuples(index=False, name=None))
    rules = [{name: entry[name] for name in (*RULE, "since", "numbers_known", "table")} for entry in config.claims]
    return [rule for rule in rules if tuple(rule[name] for name in RULE) not in judged]


def effect_words(line: Mapping[Any, Any]) -> str:
    """Say an effect size of the verdict table: its median and range, or of a single line its interval."""
    if pd.isna(line["effect"]):
        return ""
    middle, low, high = (f"{line[name]:.2g}" for name in ("effect", "effect_low", "effect_high"))
    if line["lines"] == 1:
        return f"{middle} [{low}, {high}]"
    return f"{middle} ({low} to {high})" if line["lines"] else f"{middle}, no interval"


def _chosen(table: pd.DataFrame, entry: DictConfig) -> pd.DataFrame:
    """Return the lines that bear on an entry: `label`, `value`, `low`, `high`, and the columns that it names."""
    others = [*entry.get("by", []), *entry.get("uses", []), *entry.get("also", {})]
    if not {"label", *entry.where, *others, *_interval(entry.value)} <= set(
        table
    ):  # too few lengths to fit what the claim is about, or an earlier record
        return pd.DataFrame(columns=["label"])
    for column, allowed in entry.where.items():
        several = list(allowed) if not isinstance(allowed, str | float | int) else [allowed]
        table = table[table[column].isin(several)]
    named = table[[name for name in table if name in {"label", *others}]]
    value = table[_interval(entry.value)].set_axis(["value", "low", "high"], axis=1)
    lines = pd.concat([named, value], axis=1).dropna(subset="value")
    # a table may repeat a number beside each point of a curve
    return lines.drop_duplicates()


def _interval(value: str) -> list[str]:
    return [value, f"{value}_low", f"{value}_high"]


def _verdict(source: str, every: pd.DataFrame, entry: DictConfig) -> dict[str, object]:
    lines = every.dropna(subset=["low", "high"])
    supports, opposes = (
        pd.Series(lines.eval(str(rule)), lines.index, bool) for rule in (entry.supports, entry.opposes)
    )
    enough = float(entry.get("enough", 1.0))
    if not supports.any() and not opposes.any():
        verdict = "undecided"
    elif supports.mean() >= enough:
        verdict = "confirmed"
    elif opposes.mean() >= enough or not supports.any():
        verdict = "contradicted"
    else:
        verdict = "qualified"
    shown = lines if len(lines) else every
    if len(lines) == 1:
        low, effect, high = lines[["low", "value", "high"]].iloc[0]
    else:
        low, effect, high = shown["value"].quantile([0, 0.5, 1])
    return {
        **{name: entry[name] for name in RULE},
        "source": source,
        "verdict": verdict,
        "effect": effect,
        "effect_low": low,
        "effect_high": high,
        "quantity": entry.quantity,
        "evidence": _evidence(shown, (low, effect, high), supports, entry),
        "lines": len(lines),
        "supporting": int(supports.sum()),
        "opposing": int(opposes.sum()),
        "supports": entry.supports,
        "opposes": entry.opposes,
        "enough": enough,
        "since": entry.since,
        "numbers_known": bool(entry.numbers_known),
        "table": entry.table,
    }


def _evidence(lines: pd.DataFrame, effect: tuple[float, float, float], supports: pd.Series, entry: DictConfig) -> str:
    low, middle, high = effect
    if len(lines) == 1:
        interval = f"[{low:.3g}, {high:.3g}]" if len(supports) else "without an interval"
        words = f"{entry.quantity} {middle:.3g} {interval}"
    else:
        words = f"{entry.quantity}: median {middle:.3g}, from {low:.3g} to {high:.3g}"
        words += f"; {supports.sum()} of {len(supports)} lines support" if len(supports) else "; no intervals"
        (by,) = entry.by if len(entry.get("by", [])) == 1 else (None,)
        if by and supports.any() and len(supports) <= 12:
            named = lines.loc[supports.index[supports], by]
            # the law's letter, where the table speaks of a window's parameter
            by = "C" if by == "parameter" else by
            words += f": {by} " + ", ".join(f"{name:g}" if isinstance(name, float) else str(name) for name in named)
    for column, form in entry.get("also", {}).items():
        words += "; " + str(form).format(lines[column].median())
    return words
