"""What all figures share: page geometry, shades that survive a grey printer, direct labels, the footer."""

import textwrap
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import TypeVar
from weakref import WeakKeyDictionary

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression

from experiments.errors import UserError

T = TypeVar("T")
Colour = tuple[float, float, float, float]

FULL_PAGE = 7.0  # inches, both columns of a journal page
COLUMN = 4.5  # inches, the most that counts as one column
PAGE = FULL_PAGE  # of what is being drawn, see `page_of`
FOOTER = 0.32  # inches kept free below the panels
FOOTER_LINE = 0.1  # inches
FOOTER_LETTERS = 165  # of a line across the full page
LEAST = 1.0  # inches, the least width of a panel that stands beside another
NARROWEST = 0.55  # and of one that stands alone
TICK = 0.3  # inches that the name of a length takes
APART = 0.26  # inches at least between the middles of two such names
MODEL_DASHES = ("--", ":", "-.")
SMALL = 6.0  # points, the least that is legible in print


# Of each figure whose panels side by side did not fit: those that begin a further line, with the first of their row.
_folded: WeakKeyDictionary[Figure, list[tuple[Axes, Axes]]] = WeakKeyDictionary()


@contextmanager
def page_of(inches: float) -> Iterator[None]:
    """Draw figures of this width, in which panels that do not fit side by side stand below each other."""
    global PAGE  # what every figure is drawn by, one at a time
    before = PAGE
    PAGE = inches
    try:
        yield
    finally:
        PAGE = before


def panels(
    rows: int,
    columns: int,
    height: float,
    *,
    left: float = 0.5,
    gap: float = 0.12,
    right: float = 0.42,
    edge: float = 0,
    block: int = 1,
    least: float = LEAST,
) -> tuple[Figure, np.ndarray]:
    """Lay out a page-wide grid in inches, with room right of each panel for the names of its curves.

    On a narrower page than the full one, each row goes on below where its panels do not fit side by side.

    Fixed geometry, not a solver: labels are placed by the panel's height before anything is rendered.

    Parameters
    ----------
    rows, columns : of the grid.
    height : of one panel's axes, inches.
    left : margin of the first column, inches.
    gap, right : what each further panel has free to its left, and each panel to its right, inches.
    edge : what the last column has free besides, inches.
    block : rows that share their x axis; they stand close, with ticks named below the last of them alone.
    least : width below which panels do not stand beside each other on a narrow page, inches.

    Returns
    -------
    figure, axes : axes is an object array of shape (rows, columns).

    Raises
    ------
    UserError : if not even one panel fits.
    """
    top, bottom, between = 0.33, 0.34, 0.12

    across, width = side_by_side(columns, left=left, gap=gap, right=right, edge=edge, least=least)
    folds = -(-columns // across)
    total = folds * (rows * height + (rows // block) * (top + bottom + (block - 1) * between)) + FOOTER
    figure = Figure(figsize=(PAGE, total))
    axes = np.empty((rows, columns), dtype=object)
    _folded[figure] = []
    y = total
    for line in range(rows * folds):
        group, within = divmod(line, block)
        i, fold = (group // folds) * block + within, group % folds
        first, last = within == 0, within == block - 1
        y -= height + (top if first else between)
        for j in range(fold * across, min((fold + 1) * across, columns)):
            x = left + (j - fold * across) * (width + right + gap)
            axes[i, j] = figure.add_axes((x / PAGE, y / total, width / PAGE, height / total))
            axes[i, j].tick_params(labelbottom=last)
        if fold:
            _folded[figure].append((axes[i, fold * across], axes[i, 0]))
        y -= bottom if last else 0
    return figure, axes


def side_by_side(
    columns: int, *, left: float, gap: float, right: float, edge: float, least: float = LEAST
) -> tuple[int, float]:
    """Return how many panels of a row stand side by side, and the width of each in inches; see `panels`."""

    def width_of(across: int) -> float:
        return (PAGE - left - edge - across * right - (across - 1) * gap) / across

    across = columns
    while PAGE < FULL_PAGE and across > 1 and width_of(across) < least:
        across -= 1
    if width_of(across) < NARROWEST:
        short = 25.4 * (NARROWEST - width_of(across))
        raise UserError(f"too narrow by {short:.0f} mm at text of 7 pt: give a larger --width or a smaller --font")
    return across, width_of(across)


def name_folded(figure: Figure) -> None:
    """Name the y axis of each panel that begins a further line of its row as that of the first, if it is the same."""
    for panel, first in _folded.get(figure, []):
        if not {panel, first} <= set(figure.axes) or panel.get_ylabel():
            continue
        if (panel.get_ylim(), panel.get_yscale()) == (first.get_ylim(), first.get_yscale()):
            panel.set_ylabel(first.get_ylabel())
            panel.tick_params(labelleft=first.yaxis.get_tick_params().get("labelleft", True))


def leftmost(axes: np.ndarray) -> list[Axes]:
    """Return the panels of a grid that stand at the page's left margin."""
    further = [panel for panel, _ in _folded.get(axes.flat[0].get_figure(root=True), [])]
    return [*axes[:, 0], *further]


def bottom_row(axes: np.ndarray, count: int, row: int = -1, right: float = 0.52) -> list[Axes]:
    """Replace one row of panels, the last unless said otherwise, by `count` wide ones with `right` inches free each."""
    figure = axes[row, 0].figure
    lines = {panel.get_position().y0: panel.get_position().bounds for panel in reversed(axes[row])}
    starts = [lines[bottom] for bottom in sorted(lines, reverse=True)]  # the first panel of each line of the row
    for panel in axes[row]:
        panel.remove()
    across, between = -(-count // len(starts)), right / PAGE
    placed = []
    for i in range(count):
        left, bottom, _, height = starts[i // across]
        width = (1 - left) / across - between
        placed.append(figure.add_axes((left + i % across * (width + between), bottom, width, height)))
    lines_used = -(-count // across)
    if lines_used < len(starts):
        _close(figure, starts[lines_used - 1][1], starts[-1][1])
    return placed


def _close(figure: Figure, above: float, below: float) -> None:
    """Make a figure lower by what lies empty between two heights, in shares of its own; panels keep their inches."""
    width, before = figure.get_size_inches()
    after = before - (above - below) * before
    figure.set_size_inches(width, after)
    for axes in figure.axes:
        x, y, across, height = axes.get_position().bounds
        lower = above - below if y > below + 1e-9 else 0.0
        axes.set_position((x, (y - lower) * before / after, across, height * before / after))


def dashes(labels: Sequence[str], real: Collection[str]) -> dict[str, str]:
    """Return the dash of each source: solid for Gaussian rows, another for each model, all of which are black."""
    models = [label for label in labels if label in real]
    return {label: MODEL_DASHES[models.index(label) % len(MODEL_DASHES)] if label in real else "-" for label in labels}


def shades(count: int) -> list[Colour]:
    """Colours from dark to middling light, in order of lightness, so that grey print keeps the order."""
    return [tuple(colour) for colour in mpl.colormaps["cividis"](np.linspace(0.15, 0.75, count))]


def title(axes: Axes, label: str, width: float, size: float = 7.5) -> None:
    """Title a panel with a record's label, broken into lines of at most `width` inches."""
    if PAGE < FULL_PAGE:
        width = axes.get_position().width * PAGE + 0.3
        while size > 4 and len(textwrap.wrap(label, _letters(width, size))) > 2:  # there is room for two lines
            size -= 0.5
    letters = _letters(width, size)
    if len(label) > letters:
        label = label.removeprefix("Gaussian, ")
    # a label is the user's: a $ in it is no mathematics
    axes.set_title(textwrap.fill(label, letters), parse_math=False, fontsize=size, linespacing=1.1)


def _letters(width: float, size: float) -> int:
    return max(int(width * 72 / (0.64 * size)), 8)


def heading(axes: Axes, y: float, label: str) -> None:
    """Write a record's label above several panels, from the first of them on, broken where the page ends."""
    lines = textwrap.fill(label, int(PAGE * 72 / (0.62 * 8)))
    # a label is the user's: a $ in it is no mathematics
    axes.text(0, y, lines, transform=axes.transAxes, fontsize=8, weight="bold", parse_math=False, linespacing=1.1)


def short(label: str, most: int = 10) -> str:
    """Shorten a record's label for the end of a curve: s = 0.3, SmolLM2."""
    name = label.removeprefix("Gaussian, ").replace("sigma = ", "σ = ")
    if name == label:
        # a model's family, which a prefix of two letters does not tell
        parts = name.split("-")
        name = next((first for i in range(1, len(parts)) if len(first := "-".join(parts[:i])) > 3), name)
    # a label is the user's: a $ in it is no mathematics
    return name[:most].replace("$", r"\$")


def short_names(labels: Sequence[str], most: int = 10) -> dict[str, str]:
    """Shorten the labels of one figure, `short` each, but so that no two read alike: by where they begin to differ."""
    names = {label: short(label, most) for label in labels}
    for name in set(names.values()):
        same = [label for label in names if names[label] == name]
        if len(same) > 1:
            start = next(i for i, letters in enumerate(zip_longest(*same)) if len(set(letters)) > 1)
            cut = {label: label[start : start + most - 1] for label in same}
            whole = {label: _whole_words(part, label[start:]) for label, part in cut.items()}
            cut = whole if len(set(whole.values())) == len(same) else cut
            names |= {
                label: "…" + part.replace("$", r"\$")
                for label, part in cut.items()
                if part  # the one with which the others begin keeps its name
            }
    return names


def _whole_words(part: str, text: str) -> str:
    """Return the beginning of a text without a word of which it has but some letters, if it has another."""
    broken = text[len(part) : len(part) + 1].strip() and part[-1:].strip()
    return part.rpartition(" ")[0] if broken and part.strip(" ,").count(" ") else part


def spread_over(values: Sequence[T], most: int) -> list[T]:
    """Pick at most `most` values evenly, the first and the last among them."""
    picked = np.linspace(len(values) - 1, 0, min(most, len(values))).round().astype(int)
    return [values[i] for i in sorted(set(picked.tolist()))]


def reach(middle: ArrayLike, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    """Return how far intervals reach below and above their middle [2, N]; the last digit of a table makes none < 0."""
    middle, low, high = (np.asarray(values, float) for values in (middle, low, high))
    return np.maximum([middle - low, high - middle], 0.0)


def count_text(value: float) -> str:
    """Write a number of keys shortly: 512, 1.5k (1536), 8k (8192), 1M (2^20); other numbers as they are."""
    for power, suffix in ((20, "M"), (10, "k")):
        if value >= 2**power and value % 2 ** (power - 1) == 0:
            return f"{value / 2**power:g}{suffix}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def length_axis(axes: Axes, lengths: Sequence[float], most: int = 5) -> None:
    """Put a logarithmic x axis with ticks on measured lengths, thinned to at most `most` that do not touch."""
    axes.set_xscale("log", base=2)
    ticks, width = sorted(set(lengths)), axes.get_position().width * PAGE
    if PAGE < FULL_PAGE:
        most = min(most, max(int(width / TICK), 2))
    step = max(-(-len(ticks) // most), 1)
    kept: list[float] = []
    # counted from the longest, the one that the argument is about
    for tick in ticks[::-1][::step]:
        if not kept or np.log(kept[-1] / tick) / np.log(ticks[-1] / ticks[0]) * width >= APART:
            kept.append(tick)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_text(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, Colour]], size: float = SMALL) -> list[Text]:
    """Write each curve's name right of the panel at the height of its end, moved apart so that none overlap.

    Least total movement that keeps the order and the gap is an isotonic regression.

    Parameters
    ----------
    axes : with final limits and scale.
    ends : (y of the curve's end in data units, text, colour).
    size : of the text, points.

    Returns
    -------
    list of the names written, in the order of `ends`.
    """
    if not ends:
        return []
    box = axes.get_position()
    height = box.height * axes.figure.bbox.height / axes.figure.dpi * 72
    gap = 1.25 * size / height
    order = sorted(range(len(ends)), key=lambda i: ends[i][0])
    ordered = [ends[i] for i in order]
    low, high = axes.transData.inverted().transform(axes.transAxes.transform([(0, 0), (0, 1)]))[:, 1]
    data = np.clip([end[0] for end in ordered], low, high)
    points = axes.transData.transform(np.column_stack([np.full(len(data), axes.get_xlim()[1]), data]))
    heights = axes.transAxes.inverted().transform(points)[:, 1]
    steps = gap * np.arange(len(heights))
    free = np.asarray(isotonic_regression(heights - steps).x)
    placed = np.clip(free, 0.02, max(0.95 - steps[-1], 0.02)) + steps
    written: dict[int, Text] = {}
    for i, (_, text, shade), y in zip(order, ordered, placed, strict=True):
        # thin strokes look paler than a line of the same colour
        colour = 0.75 * np.asarray(to_rgb(shade))
        written[i] = axes.text(1.03, y, text, transform=axes.transAxes, va="center", color=colour, fontsize=size)
    return [written[i] for i in range(len(ends))]


def footer(figure: Figure, text: str) -> None:
    """Print below the panels what a figure rests on, see `counts`."""
    lines = textwrap.fill(text, width=int(FOOTER_LETTERS * PAGE / FULL_PAGE))
    _grow(figure, 0.06 + FOOTER_LINE * (lines.count("\n") + 1) - FOOTER)
    y = 0.06 / figure.get_size_inches()[1]
    figure.text(0.008, y, lines, fontsize=5.5, color="0.35", va="bottom", linespacing=1.3, parse_math=False)


def make_room(figure: Figure, inches: float) -> None:
    """Make a narrow figure higher at its foot, and leave all panels as they are."""
    if PAGE < FULL_PAGE:
        _grow(figure, inches)


def _grow(figure: Figure, inches: float) -> None:
    if inches <= 0:
        return
    width, before = figure.get_size_inches()
    figure.set_size_inches(width, before + inches)
    for axes in figure.axes:
        x, y, across, height = axes.get_position().bounds
        axes.set_position((x, (y * before + inches) / (before + inches), across, height * before / (before + inches)))


def counts(sources: pd.DataFrame) -> str:
    """Say how many rows, samples, heads and seeds stand behind the sources shown; Gaussian settings are summed."""
    name = sources["label"].where(sources["kind"] != "gaussian", "Gaussian")
    parts = []
    for source, part in sources.groupby(name, sort=True):
        samples, many = sorted(set(part["samples"])), len(part) > 1
        parts.append(
            f"{source}{f' ({len(part)} settings)' if many else ''}: {part['rows'].sum():,} rows, "
            f"{plural('-'.join(map(str, dict.fromkeys((samples[0], samples[-1])))), 'sample')}"
            f"{' each' if many else ''}, {plural(part['heads'].max(), 'head')}, {plural(part['seeds'].max(), 'seed')}"
        )
    return "; ".join(parts) + "."


def of_heads(means: str, sources: pd.DataFrame, left_out: pd.Series) -> str:
    """Say of how many heads means are, where those of a sliding window are in none of them.

    Parameters
    ----------
    means : what they are called: The means.
    sources : those shown, as for `counts`.
    left_out : heads that see no more keys at longer contexts, by label; the most of a label holds.
    """
    without, words = left_out.groupby(level=0).max(), ""
    for label, heads in sources.groupby("label", sort=False)["heads"].max().items():
        if (count := without.get(label, 0)) > 0:
            of = plural(int(heads - count), "head")
            words += f" {means} of {label} are of {of}: the others see no more keys at longer contexts."
    return words


def plural(count: object, noun: str) -> str:
    """Write a count with its noun: 1 head, 9 heads."""
    return f"{count} {noun}" if str(count) == "1" else f"{count} {noun}s"
