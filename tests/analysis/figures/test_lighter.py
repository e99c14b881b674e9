import matplotlib as mpl
import numpy as np
import pytest
from fontTools import subset
from fontTools.ttLib import TTFont
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import NullLocator

from analysis import save
from analysis.figures import STYLE
from analysis.figures.page import lighter, style


def drawn(light, scale, limits):
    """Return the pixels of two panels with minor ticks, of which one has no names."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.style.use(STYLE)
        figure, axes = style.panels(1, 2, 1.2)
        for panel in axes[0]:
            panel.set_xscale("log", base=2)
            panel.set_yscale(scale)
            panel.set_ylim(*limits)
            panel.plot([64, 128, 4096], [0.02, 0.1, 0.4])
        axes[0, 0].set_xlabel("n")
        axes[0, 0].set_ylabel("error")
        axes[0, 1].tick_params(labelleft=False)
        bar = figure.add_axes((0.93, 0.3, 0.01, 0.4))
        bar.yaxis.tick_right()
        bar.set_yscale("log")
        if light:
            lighter.lighten(figure)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return figure, np.asarray(canvas.buffer_rgba())


@pytest.mark.parametrize(
    ("scale", "limits", "joined"),
    [
        ("log", (1e-3, 1.5), True),
        ("log", (1.5, 1e-3), True),
        ("log", (0.02, 0.09), False),  # in less than a decade minor ticks have labels
        ("linear", (0, 1), True),  # and there are none
    ],
)
def test_a_lighter_figure_looks_the_same(scale, limits, joined):
    (_, before), (light, after) = drawn(False, scale, limits), drawn(True, scale, limits)
    np.testing.assert_array_equal(after, before)
    assert isinstance(light.axes[0].yaxis.get_minor_locator(), NullLocator) == joined


def test_fonts_are_embedded_without_what_sets_text():

    path = mpl.font_manager.findfont("DejaVu Sans")
    whole = set(TTFont(path).keys())
    load = subset.load_font
    with save.bare_fonts():
        bare = set(subset.load_font(path, subset.Options()).keys())
    assert whole - bare == whole & set(save.SETTING_TABLES) != set()
    assert subset.load_font is load
