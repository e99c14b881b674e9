"""Which source each panel and curve shows, as ids in the SVG, by which the report filters a drawn figure."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from urllib.parse import quote, unquote

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from analysis.figures.page import style

PREFIX = "source:"
SHARED = "shared"
IDS = re.compile(rf'id="{PREFIX}([^":]*):\d+"')


def tag(labels: str | Iterable[str], *artists: Artist) -> None:
    """Say that artists show one source or several, by the labels of their records.

    A panel is tagged where all that it shows is of these sources, a curve, band, mark or name where others share it.
    """
    names = [labels] if isinstance(labels, str) else list(labels)
    for artist in artists:
        artist.set_gid(PREFIX + "|".join(quote(name, safe="") for name in names))


@contextmanager
def of_source(label: str, *panels: Axes) -> Iterator[None]:
    """Tag all that is added to the panels in the block."""
    before = {id(artist) for panel in panels for artist in panel.get_children()}
    yield
    tag(label, *(artist for panel in panels for artist in panel.get_children() if id(artist) not in before))


def keep(legend: Legend) -> None:
    """Keep a legend that stands in one panel and explains those of all sources."""
    legend.set_gid(SHARED)


def label_sources(axes: Axes, ends: Mapping[str, tuple[float, str, style.Colour]], size: float = style.SMALL) -> None:
    """Write the names of curves of one source each, by its label, as `style.label_ends` does, and tag them."""
    for label, text in zip(ends, style.label_ends(axes, list(ends.values()), size), strict=True):
        tag(label, text)


def number(figure: Figure) -> None:
    """Make the tags of a finished figure unique, as ids of an SVG must be: source:LABELS:NUMBER."""
    numbers = count()
    for artist in figure.findobj(include_self=False):
        if (gid := artist.get_gid()) and gid.startswith(PREFIX):
            artist.set_gid(f"{gid}:{next(numbers)}")


def read(svg: str) -> list[str]:
    """Return the labels that the ids of an SVG name, in the order of drawing."""
    names = (name for labels in IDS.findall(svg) for name in labels.split("|"))
    return [unquote(name) for name in dict.fromkeys(names)]
