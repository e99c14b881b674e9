"""How families of windows look in every figure of tasks: a shade, a dash and a marker each, and one legend."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures.page import style
from analysis.figures.page.sources import keep

Look = tuple[style.Colour, Any, str]  # shade, dash, marker
BLACK = (0.0, 0.0, 0.0, 1.0)
FIRST = ("fixed", "log")
LAST = (
    *("linear", "top-p", "threshold [T7]", "each head's C", "each head's k", "own top-p", "shared in a layer"),
    *("keys alike", "keys by gains", "keys in a pyramid", "keys as ZigZagKV", "keys shared out"),
)
MARKERS = "o^sPXvDdhp"


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Return shade, dash and marker of each family, in the order of reading: powers by their C.

    Behind a family that several budget files have stands a file's name in brackets.
    """
    powers = sorted(name for name in set(names) if name.startswith("power"))
    of_file = {last: sorted(name for name in set(names) if name.startswith(f"{last} (")) for last in LAST}
    last = [name for family in LAST for name in (family, *of_file[family])]
    order = [name for name in (*FIRST, *powers, *last) if name in set(names)]
    plain = [name for name in order if name not in last[1:]]
    shades = dict(zip(plain, style.shades(len(plain)), strict=True))
    dashes: dict[str, Any] = {"top-p": ":", "threshold [T7]": "--", "each head's C": "-", "each head's k": "-."}
    dashes |= {"own top-p": (0, (1, 2)), "shared in a layer": (0, (4, 1, 1, 1, 1, 1))}
    dashes |= {"keys alike": "--", "keys in a pyramid": "-.", "keys as ZigZagKV": ":"}
    return {
        name: (shades.get(name, BLACK), dashes.get(name.split(" (")[0], "-"), MARKERS[i % len(MARKERS)])
        for i, name in enumerate(order)
    }


def curve(axes: Axes, line: pd.DataFrame, x: str, y: str, look: Look) -> None:
    """Draw one family with its interval, if it has one."""
    colour, dash, marker = look
    line = line.sort_values(x)
    if "low" in line and line["low"].notna().any():
        axes.fill_between(line[x], line["low"], line["high"], color=colour, alpha=0.05, lw=0)
    axes.plot(line[x], line[y], ls=dash, marker=marker, color=colour, ms=2.6, lw=0.9, mfc="none", mew=0.6)


def legend(axes: Axes, looks_shown: dict[str, Look]) -> None:
    """Name the families right of the panel."""
    handles = [
        Line2D([], [], color=colour, ls=dash, marker=marker, ms=2.8, lw=0.9, mfc="none", mew=0.6, label=name)
        for name, (colour, dash, marker) in looks_shown.items()
    ]
    placed = axes.legend(
        handles=handles,
        loc="upper left",
        # beside a narrow panel its title goes on
        bbox_to_anchor=(1.02, 1.08 if style.PAGE >= style.FULL_PAGE else 0.98),
        fontsize=style.SMALL,
        handlelength=1.6,
        handletextpad=0.4,
        labelspacing=0.4,
        borderaxespad=0,
    )
    keep(placed)
