"""`python -m experiments.tables`: writes docs/columns.md from the declared tables."""

from __future__ import annotations

from pathlib import Path

from experiments.tables import Column, Table, tables

DOCS = Path(__file__).resolve().parents[2] / "docs" / "columns.md"
HEADER = """# Columns of the records

A run's folder `outputs/runs/<run id>/` holds the tables that its runner writes. This page is made of their
declarations
in `experiments/tables/` by `python -m experiments.tables`; a test compares it. [T1] to [T6] are docs/theory.md's.

The types are those of the files. Most measured numbers are float32, of which the analysis needs no further digit;
below 1.2e-38, the smallest normal one, they are stored as 0. Where a file holds null, a line has the number of the
column that is named; `analysis.load` fills it, and returns int64 and float64 throughout.
"""


def page() -> str:
    """Return the page: one section per table."""
    return "\n".join([HEADER, *map(_section, tables().values())])


def _section(table: Table) -> str:
    lines = [
        f"## `{table.file}`",
        "",
        f"Written by `runner={table.owner}`. One line: {table.line}.",
        "",
        "| column | type | unit | meaning |",
        "|---|---|---|---|",
        *(_line(column, column in table.keys) for column in table.columns.values()),
        "",
    ]
    return "\n".join(lines)


def _line(column: Column, is_key: bool) -> str:
    name = f"**`{column.name}`**" if is_key else f"`{column.name}`"
    older = "" if column.older is None else f" (records made before it: {column.older})"
    null = "" if column.same_as is None else f" (null: as `{column.same_as}`)"
    return f"| {name} | {column.type} | {column.unit} | {column.meaning.replace('|', chr(92) + '|')}{null}{older} |"


if __name__ == "__main__":
    DOCS.write_text(page(), encoding="utf-8")
