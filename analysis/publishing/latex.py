r"""Tables for LaTeX: booktabs, with a caption, a label, and the units of the columns.

A paper takes one in by \input, after \usepackage{booktabs,longtable}.
"""

import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from analysis import save
from analysis.publishing import claims
from analysis.studies import provenance
from experiments.tables import tables

MOST_LINES = 2000  # that a document should hold; a longer table is none for print
# Units of what the analysis adds to the columns of records (experiments/tables), whose own units are theirs.
UNITS = {
    **dict.fromkeys(("k", "k_longest", "n_longest", "k_predicted", "k_measured", "budget", "largest", "union"), "keys"),
    **dict.fromkeys(("length", "lengths_to"), "tokens"),
    **dict.fromkeys(("loss", "nats", "entropy"), "nats"),
    **dict.fromkeys(("seconds", "dense_seconds", "select_seconds", "attend_seconds"), "s"),
}
BOUNDS = ("_low", "_high")
LATEX = str.maketrans(
    {character: rf"\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "|": r"\textbar{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "σ": r"$\sigma$", "η": r"$\eta$", "…": r"\dots{}"}
)
PARTS = {
    "sources": "What stands behind the numbers",
    "summary": "Summary",
    "laws": "Every law fitted",
    "held": "Error held at equal cost",
}


def escaped(text: str) -> str:
    """Return a text with LaTeX's special characters escaped."""
    return text.translate(LATEX)


def unit_of(column: str) -> str:
    """Return the unit of a column: its own, or that of the number whose interval it bounds; empty for a plain one."""
    for bound in BOUNDS:
        column = column.removesuffix(bound)
    return UNITS.get(column) or _recorded().get(column, "")


def table(frame: pd.DataFrame, caption: str, label: str) -> str | None:
    """Return a table in LaTeX, three significant digits, or None if it has more lines than print can hold.

    A number stands with its interval. A column that says the same in every line stands in the caption. It is a
    longtable, which goes on over pages; a wide one is for a page on its side.
    """
    if len(frame) > MOST_LINES:
        return None
    every = [str(name) for name in frame]
    alike = [name for name in every if len(frame) > 1 and len(frame[name].drop_duplicates()) == 1]
    said = [f"{name.replace('_', ' ')} {_cell(frame[name].iloc[0])}" for name in alike if pd.notna(frame[name].iloc[0])]
    bounds = {name + bound for name in every for bound in BOUNDS if {name + end for end in BOUNDS} <= set(every)}
    names = [name for name in every if name not in {*alike, *bounds}]
    units = [f"({escaped(unit)})" if (unit := unit_of(name)) else "" for name in names]
    heads = [[escaped(name.replace("_", " ")) for name in names]] + ([units] if any(units) else [])
    columns = [_cells(frame, name) for name in names]
    # counts to the right
    sides = "".join("r" if pd.api.types.is_numeric_dtype(frame[name].dtype) else "l" for name in names)
    caption = escaped(caption) + (f" In every line: {', '.join(said)}." if said else "")
    return _longtable(sides, heads, list(zip(*columns, strict=True)), caption, label)


def caption_of(table: str) -> str:
    """Return the caption of a table: what it holds, and the question of the study that makes it."""
    (study,) = provenance.owners([table])
    module = importlib.import_module(f"analysis.studies.{study}")
    part = table.removeprefix(study).strip("_")
    held = PARTS.get(part, part.replace("_", " ").capitalize())
    question = (module.__doc__ or "").split("\n\n")[0].strip().replace("\n", " ")
    units = "Intervals (low, high) are of 95%; a dash is no number."
    return f"{held + ': ' if held else ''}{question} {units}"


def verdicts(frame: pd.DataFrame, missing: Sequence[Mapping[str, object]]) -> str:
    """Return the verdict of every claim in every reading and norm, for each source with its effect, in LaTeX.

    Parameters
    ----------
    frame : the table `claims`, see `analysis.publishing.claims.judge`.
    missing : the rules by which nothing was judged, see `analysis.publishing.claims.unmeasured`.
    """
    lines = []
    for rule, judged in frame.groupby(list(claims.RULE), sort=False, dropna=False):
        of_rule = dict(zip(claims.RULE, rule, strict=True))
        words = []
        for verdict in claims.VERDICTS:
            same = judged[judged["verdict"] == verdict].to_dict("records")
            if same:
                each = "; ".join(f"{line['source']}: {claims.effect_words(line)}".rstrip(": ") for line in same)
                words.append(rf"\textbf{{{verdict}}}: {escaped(each)}")
        lines.append(_about(of_rule, r"\newline ".join(words)))
    lines += [_about(rule, "not measured") for rule in missing]
    return _longtable(
        "rp{0.14\\linewidth}p{0.2\\linewidth}p{0.5\\linewidth}",
        [["claim", "reading", "question, norm", "verdict by source: effect"]],
        lines,
        escaped(
            "The verdict on each claim in each of its readings. An effect is the median over the evidence (its range), "
            "or a single number [its 95% interval], in the unit that the question names."
        ),
        "claims",
    )


def _about(rule: Mapping[str, object], words: str) -> tuple[str, ...]:
    asked = f"{rule['question']} [{rule['norm']}]"
    return (escaped(str(rule["claim"])), escaped(str(rule["reading"])), escaped(asked), words)


def write(text: str | None, path: Path) -> bool:
    """Write a table, or remove an older one where there is none; say whether there is one now.

    A file that says the same already is left alone.
    """
    if text is None:
        path.unlink(missing_ok=True)
        return False
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        save.write_text(path, text)
    return True


def _longtable(
    sides: str, heads: Sequence[Sequence[str]], lines: Sequence[Sequence[str]], caption: str, label: str
) -> str:
    head = [" & ".join(line) + r" \\" for line in heads]
    rows = [" & ".join(line) + r" \\" for line in lines]
    across = len(heads[0])
    parts = [
        "% needs \\usepackage{booktabs,longtable}",
        rf"\begin{{longtable}}{{@{{}}{sides}@{{}}}}",
        rf"\caption{{{caption}}}\label{{tab:{label}}} \\",
        *(r"\toprule", *head, r"\midrule", r"\endfirsthead"),
        *(r"\toprule", *head, r"\midrule", r"\endhead"),
        *(rf"\midrule \multicolumn{{{across}}}{{r@{{}}}}{{goes on}} \\", r"\endfoot", r"\bottomrule", r"\endlastfoot"),
        *rows,
        r"\end{longtable}",
        "",
    ]
    return "\n".join(parts)


def _cells(frame: pd.DataFrame, name: str) -> list[str]:
    """Return the cells of a column, a number with its interval if the table has one."""
    cells = [_cell(value) for value in frame[name]]
    low, high = (name + bound for bound in BOUNDS)
    if not {low, high} <= set(frame):
        return cells
    return [
        cell if pd.isna(below) or pd.isna(above) else f"{cell} [{_cell(below)}, {_cell(above)}]"
        for cell, below, above in zip(cells, frame[low], frame[high], strict=True)
    ]


def _cell(value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return "--"
    return f"{value:.3g}" if isinstance(value, float) else escaped(str(value))


@cache
def _recorded() -> dict[str, str]:
    """Return the units of the columns of records by their names."""
    return {column.name: column.unit for each in tables().values() for column in each.columns.values() if column.unit}
