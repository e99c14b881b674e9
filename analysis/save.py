"""Writes figures, tables and text so that a reader sees the old file or the new one, never half of one."""

import os
from collections.abc import Iterable, Iterator
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


def write_figure(figure: Figure, folder: Path, name: str, formats: Iterable[str] = tuple(FORMATS)) -> None:
    """Write NAME.pdf, NAME.svg and NAME.png, or some, without dates, so that equal records give equal files."""
    with bare_fonts():
        for suffix in formats:
            with replacing(folder / f"{name}.{suffix}") as draft:
                figure.savefig(draft, metadata=FORMATS[suffix])


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


def read_csv(folder: Path, name: str) -> pd.DataFrame:
    """Read NAME.csv back; a table without columns, of which nothing was found, has one empty line.

    Raises
    ------
    UserError : if it is not the table that was written.
    """
    path = folder / f"{name}.csv"
    try:
        return pd.DataFrame() if path.read_bytes() == b"\n" else pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise UserError(
            f"{folder / name}.csv: cannot be read; run python -m analysis --force to make it anew"
        ) from error
