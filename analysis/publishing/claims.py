"""The verdict table: each claim of the paper against the tables on disk, by rules written in conf/claims.yaml."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from analysis import save

COLUMNS = [
    *("claim", "question", "norm", "source", "verdict", "evidence"),
    *("lines", "supporting", "opposing", "supports", "opposes", "enough", "table"),
]


def judge(folder: Path, config: DictConfig, current: Collection[str]) -> pd.DataFrame:
    """Give a verdict on every claim for every source that was measured.

    Each entry of the configuration names a table, the lines of it that bear on the claim, and two conditions on a line.
    A claim is `confirmed` for a source if at least the share `enough` of its lines support it, `contradicted` if as
    many oppose it, or if none supports and some oppose it, and `qualified` else. Lines without an interval, which
    decide nothing, do not count.

    Parameters
    ----------
    folder : where the tables lie; a table that was not made gives no verdict.
    config : conf/claims.yaml.
    current : names of the tables that are of the present records, whole; others give no verdict.

    Returns
    -------
    DataFrame : one line per entry and source with the columns in `COLUMNS`; the last ones are the rule that decided.
    """
    verdicts = []
    for entry in config.claims:
        if entry.table not in current or not (folder / f"{entry.table}.csv").exists():
            continue
        lines = _chosen(save.read_csv(folder, entry.table), entry)
        for source, of_source in lines.groupby("label", sort=False):
            if len(of_source):
                verdicts.append(_verdict(str(source), of_source, entry))
    return pd.DataFrame(verdicts, columns=COLUMNS)


def _chosen(table: pd.DataFrame, entry: DictConfig) -> pd.DataFrame:
    for column, wanted in entry.where.items():
        allowed = list(wanted) if not isinstance(wanted, str | float | int) else [wanted]
        table = table[table[column].isin(allowed)]
    names = [entry.names] if "names" in entry else []
    columns = ["label", *names, entry.value, f"{entry.value}_low", f"{entry.value}_high"]
    if entry.value not in table:  # too few lengths to fit what the claim is about
        return pd.DataFrame(columns=columns)
    # the law's letter, where the table speaks of a window's parameter
    plain = table.rename(columns={"parameter": "C"})[columns].set_axis(
        ["label", *names, "value", "low", "high"], axis=1
    )
    # a table may repeat a number beside each point of a curve
    return plain.dropna(subset=["value", "low", "high"]).drop_duplicates()


def _verdict(source: str, lines: pd.DataFrame, entry: DictConfig) -> dict[str, object]:
    supports, opposes = (pd.Series(lines.eval(str(rule)), lines.index) for rule in (entry.supports, entry.opposes))
    enough = float(entry.get("enough", 1.0))
    if supports.mean() >= enough:
        verdict = "confirmed"
    elif opposes.mean() >= enough or (not supports.any() and opposes.any()):
        verdict = "contradicted"
    else:
        verdict = "qualified"
    return {
        "claim": entry.claim,
        "question": entry.question,
        "norm": entry.norm,
        "source": source,
        "verdict": verdict,
        "evidence": _evidence(lines, supports, entry),
        "lines": len(lines),
        "supporting": int(supports.sum()),
        "opposing": int(opposes.sum()),
        "supports": entry.supports,
        "opposes": entry.opposes,
        "enough": enough,
        "table": entry.table,
    }


def _evidence(lines: pd.DataFrame, supports: pd.Series, entry: DictConfig) -> str:
    if len(lines) == 1:
        line = lines.iloc[0]
        return f"{entry.quantity} {line['value']:.3g} [{line['low']:.3g}, {line['high']:.3g}]"
    low, middle, high = lines["value"].quantile([0, 0.5, 1])
    words = f"{entry.quantity}: median {middle:.3g}, from {low:.3g} to {high:.3g}"
    if "names" in entry and len(lines) <= 12:
        named = lines.loc[supports, entry.names]
        held = ", ".join(f"{name:g}" if isinstance(name, float) else str(name) for name in named)
        words += f"; holds for {entry.names} {held}" if held else f"; holds for no {entry.names}"
    return words
