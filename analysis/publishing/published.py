"""Every figure, of the published tables that lie in docs/tables: no record is read and no model is needed.

Figures go to outputs/published, never over a user's own. With `--outputs DIR` the tables of the last analysis of DIR,
which must be of its present records, are published first, with docs/figures.md and its pictures.
"""

import argparse
import gzip
import io
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from analysis import save, settings
from analysis.figures import NothingToDraw, drawn, shown_lines
from analysis.figures.page.size import Size
from analysis.publishing import paper
from experiments.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TABLES, PICTURES, PAGE = (ROOT / "docs" / name for name in ("tables", "figures", "figures.md"))
MOST_BYTES, MOST_BYTES_IN_ALL = 1_000_000, 15_000_000  # of a published table, and of all of them
DIGITS = "%.10g"  # of a published number
DPI, COLOURS = 110, 64  # of the small pictures in docs/figures
FIGURES = re.compile(r"(<!-- figures -->\n).*?(<!-- end -->)", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the published figures; returns the exit status, 1 after an error that the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m analysis.published", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--outputs", type=Path, metavar="DIR", help="first publish the tables of DIR")
    parser.add_argument("--to", type=Path, default=ROOT / "outputs" / "published", metavar="DIR", help="where to draw")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"figures to draw: {', '.join(settings.figures())}")
    paper.add_options(parser.add_argument_group("for a paper: any of these draws one format, at one width"))
    requested = parser.parse_args(arguments)
    try:
        names = paper.check_names(requested.only)
        if requested.outputs and (requested.only or paper.asked(requested)):
            raise UserError("--outputs publishes every figure: give it without --only, --width, --font and --format")
        if paper.asked(requested):
            size = Size.of(requested.width, requested.font)
            reads = list(_readers())
            for note in paper.draw(_reader(TABLES), requested.to, names, reads, size, requested.format or ["pdf"]):
                print(note)
            print(requested.to)
            return 0
        if requested.outputs:
            from analysis.publishing import ledger  # it reads records

            publish(ledger.reader(requested.outputs), TABLES)
        left_out = draw(TABLES, requested.to, names)
        if requested.outputs:
            save.write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))
            pictures(TABLES, PICTURES)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; choose another --to", file=sys.stderr)
        return 1
    for name, reason in left_out.items():
        print(f"not drawn: {name}: {reason}")
    print(requested.to)
    return 0


def publish(read: Callable[[str], pd.DataFrame], folder: Path) -> None:
    """Write what the figures read of the tables as NAME.csv.gz, equal tables to the byte, and remove what none reads.

    Raises
    ------
    UserError : if a table cannot be read, or is larger than a repository should carry; nothing is then written.
    """
    contents = {}
    for name, figures in _readers().items():
        table = read(name)
        lines = {index for figure in figures for index in shown_lines(name, table, settings.figure(figure)).index}
        text = table.loc[sorted(lines)].to_csv(index=False, float_format=DIGITS, lineterminator="\n")
        contents[name] = gzip.compress(text.encode(), mtime=0)
        if len(contents[name]) > MOST_BYTES:
            raise UserError(
                f"the table {name} is {len(contents[name]):,} bytes compressed, more than {MOST_BYTES:,}: name the "
                f"lines that are shown of it in conf/figure/{figures[0]}.yaml"
            )
    if (size := sum(map(len, contents.values()))) > MOST_BYTES_IN_ALL:
        raise UserError(f"the published tables are {size:,} bytes, more than {MOST_BYTES_IN_ALL:,}")
    for path in folder.glob("*.csv.gz"):
        if path.name.removesuffix(".csv.gz") not in contents:
            path.unlink()
    for name, content in contents.items():
        with save.replacing(folder / f"{name}.csv.gz") as draft:
            draft.write_bytes(content)


def draw(tables: Path, outputs: Path, names: Sequence[str] | None = None) -> dict[str, str]:
    """Draw figures of published tables, all by default, below `outputs`; return the reasons of those that show nothing.

    Raises
    ------
    UserError : if a published table is missing or cannot be read.
    """
    return _each(tables, lambda name, figure: save.write_figure(figure, outputs, name), names)


def pictures(tables: Path, folder: Path) -> None:
    """Draw every figure of published tables as a small picture of few colours."""

    def write(name: str, figure: Figure) -> None:
        full = io.BytesIO()
        figure.savefig(full, format="png", dpi=DPI)
        with Image.open(full) as picture, save.replacing(folder / f"{name}.png") as draft:
            picture.convert("RGB").quantize(COLOURS).save(draft, "png", optimize=True)

    _each(tables, write)


def page(text: str) -> str:
    """Return docs/figures.md with every figure, its caption and how to read it, between its marks."""
    parts = []
    for name in settings.figures():
        config = settings.figure(name)
        tables = ", ".join(f"[{table}](tables/{table}.csv.gz)" for table in config.reads)
        parts.append(
            f"## {config.title}\n\n![{config.title}](figures/{name}.png)\n\n{config.caption.strip()}\n\n"
            f"**How to read it.** {config.how_to_read.strip()}\n\n`{name}`, of {tables}\n"
        )
    return FIGURES.sub(lambda marks: marks[1] + "\n" + "\n".join(parts) + "\n" + marks[2], text)


def _readers() -> dict[str, list[str]]:
    """Return the figures that read each table."""
    readers: dict[str, list[str]] = {}
    for figure in settings.figures():
        for table in settings.figure(figure).reads:
            readers.setdefault(table, []).append(figure)
    return readers


def _reader(tables: Path) -> Callable[[str], pd.DataFrame]:
    def read(name: str) -> pd.DataFrame:
        path = tables / f"{name}.csv.gz"
        try:
            return pd.read_csv(path)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: cannot be read ({error}); take it from the repository again") from error

    return read


def _each(tables: Path, write: Callable[[str, Figure], None], names: Sequence[str] | None = None) -> dict[str, str]:
    left_out = {}
    for name in settings.figures() if names is None else names:
        try:
            drawn(name, settings.figure(name), _reader(tables), lambda figure, name=name: write(name, figure))  # type: ignore[misc]
        except NothingToDraw as reason:
            left_out[name] = str(reason)
    return left_out
