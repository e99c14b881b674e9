"""Writes figures, tables and text so that a reader sees the old file or the new one, never half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from fontTools import subset
from matplotlib.figure import Figure

from experiments.durable import put_in_place
from experiments.errors import UserError

FORMATS = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}

SETTING_TABLES = ("GDEF", "GPOS", "GSUB", "kern")  # of a font: marks, distances, ligatures

TEX_LINES = 2000


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Hand out a temporary path beside `path` and move it there if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # the suffix stays last, for matplotlib tells the format by it
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield draft
        put_in_place(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write NAME.pdf, NAME.svg and NAME.png, without dates, so that equal records give equal files."""
    with bare_fonts():
        for suffix, metadata in FORMATS.items():
            with replacing(folder / f"{name}.{suffix}") as draft:
                figure.savefig(draft, metadata=metadata)


@contextmanager
def bare_fonts() -> Iterator[None]:
    """Let matplotlib embed fonts without the tables that set text, for a PDF's text is set already.

    To parse and to cut them took more than all else that a PDF needs.
    """
    load = subset.load_font

    def load_bare(*arguments: Any, **options: Any) -> Any:
        font = load(*arguments, **options)
        for table in SETTING_TABLES:
            if table in font:
                del font[table]
        return font

    subset.load_font = load_bare
    try:
        yield
    finally:
        subset.load_font = load


def write_csv(frame: pd.DataFrame, folder: Path, name: str) -> None:
    """Write NAME.csv at full precision; a file that says the same already is left alone."""
    path, text = folder / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n")
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def write_tex(frame: pd.DataFrame, folder: Path, name: str) -> None:
    """Write NAME.tex, a tabular of three significant digits with LaTeX's special characters escaped.

    Of a table of more than `TEX_LINES` lines, which no page holds, none is written, and an older one is removed.
    """
    if len(frame) > TEX_LINES:
        (folder / f"{name}.tex").unlink(missing_ok=True)
        return
    columns = [_cells(frame[column]) for column in frame]
    # counts to the right
    sides = "".join("r" if pd.api.types.is_integer_dtype(kind) else "l" for kind in frame.dtypes)
    lines = [" & ".join(cells) + r" \\" for cells in zip(*columns, strict=True)]
    head = " & ".join(map(_escaped, map(str, frame))) + r" \\"
    table = "\n".join([rf"\begin{{tabular}}{{{sides}}}", head, *lines, r"\end{tabular}", ""])
    write_text(folder / f"{name}.tex", table)


LATEX = str.maketrans(
    {character: rf"\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


def _escaped(text: str) -> str:
    return text.translate(LATEX)


def _cells(column: pd.Series) -> list[str]:
    def cell(value: object) -> str:
        return f"{value:.3g}" if isinstance(value, float) else _escaped(str(value))

    return ["--" if missing else cell(value) for value, missing in zip(column, column.isna(), strict=True)]


def read_csv(folder: Path, name: str) -> pd.DataFrame:
    """Read NAME.csv back.

    Raises
    ------
    UserError : if it is not the table that was written.
    """
    try:
        return pd.read_csv(folder / f"{name}.csv")
    except (ValueError, OSError) as error:
        raise UserError(
            f"{folder / name}.csv: cannot be read; run python -m analysis --force to make it anew"
        ) from error
