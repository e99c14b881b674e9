"""Figures at the width of a column: as wide as they are to be, in text of that size, with all panels on the page."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from analysis import save, settings
from analysis.figures import drawn, selectors
from analysis.figures.page import style
from analysis.figures.page.names import kind_of
from analysis.figures.page.shown import of_page
from analysis.figures.page.size import Size
from analysis.publishing import published
from experiments.errors import UserError


@pytest.mark.parametrize(
    ("width", "inches"),
    [("85mm", 85 / 25.4), ("8.5 cm", 85 / 25.4), ("3.3in", 3.3), ("246pt", 246 / 72.27), (None, 7.0)],
)
def test_a_width_is_read_in_its_unit(width, inches):
    assert Size.of(width, None).width == pytest.approx(inches)


@pytest.mark.parametrize("width", ["85", "wide", "-85mm", "1mm", "85km", "", "1e9mm", "nanmm"])
def test_what_is_no_width_is_refused(width):
    with pytest.raises(UserError, match="give a width from 40mm to 1000mm"):
        Size.of(width, None)


@pytest.mark.parametrize("font", [0.0, -8.0, 3.0, 100.0, float("nan")])
def test_what_is_no_size_of_text_is_refused(font):
    with pytest.raises(UserError, match="give a size of text from 4 to 24 points"):
        Size.of(None, font)


def figure_at(analysed, name, size):
    figures = []
    drawn(name, settings.figure(name), lambda table: save.read_csv(analysed / "tables", table), figures.append, size)
    return figures[0]


def boxes_of_words(figure):
    """Every upright text that is drawn, with its box in pixels: ticks out of view keep labels that are not."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    axes = [axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)]
    drawn_ticks = {id(tick) for axis in axes if axis.axes.axison for tick in axis._update_ticks()}
    ticks = [tick for axis in axes for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())]
    hidden = {id(label) for tick in ticks if id(tick) not in drawn_ticks for label in (tick.label1, tick.label2)}
    shown = [text for text in words(figure) if text.get_visible() and id(text) not in hidden]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in shown if text.get_rotation() % 90 == 0]
    return [(text, box) for text, box in boxes if box.width > 0 and box.height > 0]


def misplaced(figure):
    """Texts that do not lie within the page, but for a pixel, and pairs that cover each other by more than two."""
    page, boxes = figure.bbox.padded(1), boxes_of_words(figure)
    clipped = [
        text
        for text, box in boxes
        if not (page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1)
    ]
    overlapping = [
        (one, other)
        for (one, a), (other, b) in combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 2 and min(a.y1, b.y1) - max(a.y0, b.y0) > 2
    ]
    return clipped, overlapping


def words(figure):
    return [text for text in figure.findobj(Text) if text.get_text().strip()]


@pytest.mark.parametrize("name", settings.figures())
def test_a_figure_fits_the_column_of_a_journal(analysed, name):
    size = Size.of("85mm", 8)
    figure, usual = figure_at(analysed, name, size), figure_at(analysed, name, Size())
    assert figure.get_figwidth() == pytest.approx(85 / 25.4)
    assert usual.get_figwidth() == style.FULL_PAGE == style.PAGE  # nothing is left of the other size
    boxes = [panel.get_position() for panel in figure.axes]
    shows_less = "column" in settings.figure(name)
    assert len(boxes) == len(usual.axes) or (shows_less and len(boxes) < len(usual.axes))
    assert all(box.x0 >= 0 and box.x1 <= 1 and box.y0 >= 0 and box.y1 <= 1 for box in boxes)
    apart = [
        one.x1 <= other.x0 or other.x1 <= one.x0 or one.y1 <= other.y0 or other.y1 <= one.y0
        for one, other in combinations(boxes, 2)
    ]
    assert all(apart)
    assert [misplaced(each) for each in (figure, usual)] == [([], [])] * 2
    least = [min(text.get_fontsize() for text in words(each)) for each in (figure, usual)]
    assert least[0] >= min(least[1], 4) * size.scale * 0.99
    footers = [max(each.texts, key=lambda text: len(text.get_text())) for each in (figure, usual)]
    assert shows_less or footers[0].get_text().split() == footers[1].get_text().split()


def test_a_larger_text_is_the_same_figure_enlarged(analysed):
    plain, twice = (figure_at(analysed, "keys", Size(7.0 * factor, 7.0 * factor)) for factor in (1, 2))
    assert twice.get_size_inches() == pytest.approx(2 * plain.get_size_inches())
    for one, other in zip(plain.axes, twice.axes, strict=True):
        assert np.array(one.get_position().bounds) == pytest.approx(np.array(other.get_position().bounds))
    assert [text.get_fontsize() * 2 for text in words(plain)] == [text.get_fontsize() for text in words(twice)]


def test_a_page_too_narrow_for_one_panel_is_refused(analysed):
    with pytest.raises(UserError, match=r"too narrow by \d+ mm .* larger --width or a smaller --font"):
        figure_at(analysed, "models", Size.of("40mm", 12))
    assert style.PAGE == style.FULL_PAGE


PAGE = 240  # mm of a page's text


@pytest.mark.parametrize("name", ["regimes", "selectors", "adaptive", "keys", "windows", "sums"])
def test_the_published_figure_fits_a_page_in_a_column_of_85_mm(name):
    figures = []
    config = settings.figure(name)
    drawn(name, config, published._reader(published.TABLES), figures.append, Size.of("85mm", None))
    (figure,) = figures
    assert 25.4 * figure.get_figheight() <= PAGE
    assert misplaced(figure) == ([], [])


def test_what_a_column_shows_is_told_in_its_yaml(analysed):
    for name in settings.figures():
        config = settings.figure(name)
        assert set(config.get("column", {})) <= {*config, "shows", "gaussians", "models"}
        assert of_page(config) == config  # on a whole page
        with Size.of("85mm", 7).laid_out():
            assert {key: of_page(config)[key] for key in config.get("column", {})} == config.get("column", {})


def test_at_most_so_many_methods_of_a_kind_and_the_best():
    table = published._reader(published.TABLES)("selectors")
    lines = selectors._at_budget(table, 256)
    best = selectors._best(lines, 1)
    assert len({kind_of(name) for name in best}) == len(best)
    means = {name: np.log(part["tv"].clip(1e-12)).mean() for name, part in lines.groupby("selector")}
    for name, mean in means.items():
        assert mean >= means[next(one for one in best if kind_of(one) == kind_of(name))]
