"""`python -m analysis.quotes`: puts the numbers of the tables into README and docs, and tells where they disagree.

A quoted number in a text stands before a comment that says where it comes from,

    0.31<!-- =fits_pooled | label == "SmolLM2" and eta == 0.1 and law == "power" | C | .2f -->

that is a table, the one line of it that is meant, a column and a format. docs/quotes/ keeps the lines quoted, so
that a test can tell whether text and tables agree where nothing has been measured. Such a comment has pipes, which part
the cells of a table, so it cannot stand in one: between

    <!-- =lines fits_pooled | label == "SmolLM2" | by eta | eta: {eta:g} | C: {C:.2f} [{C_low:.2f}, {C_high:.2f}] -->

and `<!-- end -->` stands a table of the lines meant, in the order of a column, with a heading and a format per cell.
Between `<!-- =claims -->` and `<!-- end -->` stands the verdict table, a line per claim, reading, question and norm.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import save, settings
from analysis.publishing import claims, ledger
from experiments.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
QUOTES = ROOT / "docs" / "quotes"
TEXTS = ("README.md", "docs/results.md", "docs/choosing.md")
NUMBER = re.compile(
    r"(?P<said>-?\d[\d.,]*%?)(?P<comment><!-- =(?P<table>\w+) \| (?P<line>.+?) \| (?P<column>\S+) \| (?P<form>\S+) -->)"
)
LINES = re.compile(
    r"(?P<head><!-- =lines (?P<table>\w+) \| (?P<line>.+?) \| by (?P<order>\w+) \| (?P<cells>.+?) -->\n).*?"
    r"(?P<end><!-- end -->)",
    re.DOTALL,
)
VERDICTS = re.compile(r"(<!-- =claims -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Bring the texts up to date; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m analysis.quotes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--outputs", type=Path, metavar="DIR", help="first copy the quoted tables from DIR/tables")
    requested = parser.parse_args()
    try:
        texts = {ROOT / name: (ROOT / name).read_text(encoding="utf-8") for name in TEXTS}
        if requested.outputs:
            keep("\n".join(texts.values()), ledger.reader(requested.outputs), QUOTES)
        for path, text in texts.items():
            save.write_text(path, quoted(text, QUOTES))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def keep(text: str, table_of: Callable[[str], pd.DataFrame], kept: Path) -> None:
    """Write the lines that a text quotes of the tables to `kept`, and the whole verdict table."""
    quotes: dict[str, list[str]] = {}
    for match in (*NUMBER.finditer(text), *LINES.finditer(text)):
        quotes.setdefault(match["table"], []).append(match["line"])
    for name, conditions in sorted(quotes.items()):
        table = table_of(name)
        lines = {index for condition in conditions for index in table.query(condition).index}
        save.write_csv(table.loc[sorted(lines)], kept, name)
    save.write_csv(table_of("claims"), kept, "claims")


def quoted(text: str, tables: Path) -> str:
    """Return the text with every quoted number and verdict table as `tables` has it.

    Raises
    ------
    UserError : if a quote names no line of its table, or more than one.
    """
    text = NUMBER.sub(lambda match: _number(match, tables) + match["comment"], text)
    text = LINES.sub(lambda match: match["head"] + _lines(match, tables) + match["end"], text)
    return VERDICTS.sub(lambda match: match[1] + _verdicts(save.read_csv(tables, "claims")) + match[2], text)


def _number(match: re.Match[str], tables: Path) -> str:
    lines = save.read_csv(tables, match["table"]).query(match["line"])
    if match["column"] not in lines:
        raise UserError(
            f"{match['comment']}: the table has no such column; quote one of {', '.join(map(str, lines.columns))}"
        )
    if len(lines) != 1:
        raise UserError(f"{match['comment']}: the condition holds for {len(lines)} lines of the table; quote one")
    return format(lines[match["column"]].iloc[0], match["form"])


def _lines(match: re.Match[str], tables: Path) -> str:
    lines = save.read_csv(tables, match["table"]).query(match["line"]).sort_values(match["order"])
    if lines.empty:
        raise UserError(f"{match['head'].strip()}: the condition holds for no line of the table")
    cells = dict(cell.split(": ", 1) for cell in match["cells"].split(" | "))
    try:
        filled = [[form.format_map(line) for form in cells.values()] for line in lines.to_dict("records")]
    except KeyError as error:
        columns = ", ".join(map(str, lines.columns))
        raise UserError(f"{match['head'].strip()}: the table has no column {error}; name one of {columns}") from error
    return "".join(f"| {' | '.join(line)} |\n" for line in ([*cells], ["---"] * len(cells), *filled))


def _verdicts(judged: pd.DataFrame) -> str:
    """Make the verdict table; what nothing measured bears on comes last."""
    columns = ["claim", "reading", "question", "norm", *claims.VERDICTS, "rule"]
    heading = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    lines = []
    for rule, table in judged.groupby([*claims.RULE], sort=False):
        claim, reading, question, norm = rule
        cells = [
            "; ".join(map(_with_effect, table[table["verdict"] == verdict].to_dict("records")))
            for verdict in claims.VERDICTS
        ]
        about = f"{question} ({table['quantity'].iloc[0]})".replace("|", "\\|")  # a bar parts cells
        lines.append(
            f"| {claim} | {reading} | {about} | {norm} | {' | '.join(cells)} | {_rule(table.iloc[0].to_dict())} |\n"
        )
    for missing in claims.unmeasured(judged, settings.claims()):
        place = f"| {missing['claim']} | {missing['reading']} | {missing['question']} | {missing['norm']} |"
        lines.append(f"{place} not measured |{' |' * (len(claims.VERDICTS) - 1)} {_rule(missing)} |\n")
    return heading + "".join(lines)


def _with_effect(verdict: Mapping[Any, Any]) -> str:
    return f"{verdict['source'].removeprefix('Gaussian, ')}: {claims.effect_words(verdict)}".removesuffix(": ")


def _rule(verdict: Mapping[Any, Any]) -> str:
    return f"{verdict['since']}, {'numbers known' if verdict['numbers_known'] else 'before the numbers'}"
