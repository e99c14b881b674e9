"""`python -m analysis.quotes`: makes README and pages of docs/ from their templates, with the numbers of the tables.

A template in docs/templates/ is the page as it is edited; a number stands in it as where it comes from,

    {{ fits_pooled | label == "SmolLM2-135M" and eta == 0.1 and law == "power" | C | .2f }}

that is a table, the one line of it that is meant, a column and a format. docs/quotes/ keeps the lines quoted, so that a
test can tell whether pages and tables agree where nothing has been measured.

    {{ lines fits_pooled | label == "SmolLM2-135M" | by eta | eta: {eta:g} | C: {C:.2f} [{C_low:.2f}, {C_high:.2f}] }}

is a table of the lines meant, in the order of a column, with a heading and a format per cell; where an interval is
[nan, nan] it says that there is none, and for a number that is nan it has a dash. {{ claims }} is the verdict table,
a line per claim, reading, question and norm.
"""

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import save, settings
from analysis.publishing import claims, ledger
from experiments.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
QUOTES = ROOT / "docs" / "quotes"
TEMPLATES = ROOT / "docs" / "templates"
NUMBER = re.compile(r"\{\{ (?P<table>\w+) \| (?P<line>[^{}]+?) \| (?P<column>\S+) \| (?P<form>\S+) \}\}")
LINES = re.compile(r"\{\{ lines (?P<table>\w+) \| (?P<line>.+?) \| by (?P<order>\w+) \| (?P<cells>.+?) \}\}\n")
VERDICTS = "{{ claims }}\n"
PARAGRAPH = re.compile(r"\w[^.]|\*\w|\*\*\w")  # and no list, table, heading or code
NO_INTERVAL = re.compile(r"\[[+-]?nan, [+-]?nan\]")
WIDTH = 120
OF_EXAMPLES = {"kvpress"}  # tables that no study makes: `python -m examples.kvpress.table`
MADE = "<!-- made from docs/templates/{} by make quotes: edit that one -->\n"


def main() -> int:
    """Bring the pages up to date; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m analysis.quotes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--outputs", type=Path, metavar="DIR", help="first copy the quoted tables from DIR/tables")
    requested = parser.parse_args()
    try:
        if requested.outputs:
            every = "\n".join(path.read_text(encoding="utf-8") for path in templates())
            keep(every, ledger.reader(requested.outputs), QUOTES)
        for path in templates():
            save.write_text(page_of(path), made(path, QUOTES))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def templates() -> list[Path]:
    """Return the templates."""
    return sorted(TEMPLATES.glob("*.md"))


def page_of(template: Path) -> Path:
    """Return the page that is made from a template: README in the root, that of an example in it, others in docs/."""
    if template.stem in OF_EXAMPLES:
        return ROOT / "examples" / template.stem / "README.md"
    return (ROOT if template.name == "README.md" else ROOT / "docs") / template.name


def made(template: Path, tables: Path) -> str:
    """Return a page as its template and the tables have it."""
    return MADE.format(template.name) + filled(template.read_text(encoding="utf-8"), tables)


def keep(text: str, table_of: Callable[[str], pd.DataFrame], kept: Path) -> None:
    """Write the lines that a text quotes of the tables to `kept`, and the whole verdict table."""
    quotes: dict[str, list[str]] = {}
    for match in (*NUMBER.finditer(text), *LINES.finditer(text)):
        quotes.setdefault(match["table"], []).append(match["line"])
    for name, conditions in sorted(quotes.items()):
        if name in OF_EXAMPLES:
            continue
        table = table_of(name)
        lines = {index for condition in conditions for index in table.query(condition).index}
        save.write_csv(table.loc[sorted(lines)], kept, name)
    save.write_csv(table_of("claims"), kept, "claims")


def filled(text: str, tables: Path) -> str:
    """Return a template's text with every quoted number, lines and verdict table as `tables` has it.

    Raises
    ------
    UserError : if a quote names no line of its table, or more than one.
    """
    text = LINES.sub(lambda match: _lines(match, tables), text)
    blocks = [_wrapped(NUMBER.sub(lambda match: _number(match, tables), block), block) for block in text.split("\n\n")]
    text = "\n\n".join(blocks)
    if VERDICTS in text:
        text = text.replace(VERDICTS, _verdicts(save.read_csv(tables, "claims")))
    if "{{" in text:
        raise UserError(f"not a quote: {text[text.index('{{') :].splitlines()[0]}")
    return text


def _wrapped(block: str, template: str) -> str:
    """Break the lines of a paragraph anew where numbers have taken the place of quotes; lists and tables stay."""
    if block == template or not PARAGRAPH.match(block):
        return block
    return textwrap.fill(" ".join(block.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def _number(match: re.Match[str], tables: Path) -> str:
    lines = save.read_csv(tables, match["table"]).query(match["line"])
    if match["column"] not in lines:
        raise UserError(f"{match[0]}: the table has no such column; quote one of {', '.join(map(str, lines.columns))}")
    if len(lines) != 1:
        raise UserError(f"{match[0]}: the condition holds for {len(lines)} lines of the table; quote one")
    return format(lines[match["column"]].iloc[0], match["form"])


def _lines(match: re.Match[str], tables: Path) -> str:
    lines = save.read_csv(tables, match["table"]).query(match["line"]).sort_values(match["order"])
    if lines.empty:
        raise UserError(f"{match[0].strip()}: the condition holds for no line of the table")
    cells = dict(cell.split(": ", 1) for cell in match["cells"].split(" | "))
    try:
        filled = [[_cell(form.format_map(line)) for form in cells.values()] for line in lines.to_dict("records")]
    except KeyError as error:
        columns = ", ".join(map(str, lines.columns))
        raise UserError(f"{match[0].strip()}: the table has no column {error}; name one of {columns}") from error
    return "".join(f"| {' | '.join(line)} |\n" for line in ([*cells], ["---"] * len(cells), *filled))


def _cell(text: str) -> str:
    return "–" if text.strip() == "nan" else NO_INTERVAL.sub("(no interval)", text)


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
