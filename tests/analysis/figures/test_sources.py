"""The sources of panels and curves, as ids of the SVG that is drawn."""

import io
from collections import Counter
from xml.etree import ElementTree

import pytest

from analysis import save, settings
from analysis.figures import drawn
from analysis.figures.page import sources
from analysis.records.load import load

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def svg(analysed):
    """Return the SVG of a figure of the analysed records."""

    def text(name):
        result = io.BytesIO()
        read = lambda table: save.read_csv(analysed / "tables", table)  # noqa: E731
        drawn(name, settings.figure(name), read, lambda figure: figure.savefig(result, format="svg"))
        return result.getvalue().decode()

    return text


@pytest.mark.parametrize("name", settings.figures())
def test_every_figure_says_whose_its_panels_are(svg, analysed, name):
    text = svg(name)
    shown = sources.read(text)
    assert shown
    assert set(shown) <= set(load(analysed)[0]["label"])
    ids = Counter(group.get("id") for group in ElementTree.fromstring(text).iter() if group.get("id"))
    assert max(ids.values()) == 1


def test_a_panel_of_one_source_is_tagged_as_a_whole(svg):
    groups = ElementTree.fromstring(svg("keys")).iter(f"{SVG}g")
    panels = [group for group in groups if any(child.get("id", "").startswith("matplotlib.axis") for child in group)]
    shown = [sources.read(f'id="{panel.get("id")}"') for panel in panels]
    assert shown[:2] == [["TinyLM-Instruct"]] * 2  # both of its means
    assert len(shown) > 2
    assert all(len(labels) == 1 and labels[0].startswith("Gaussian") for labels in shown[2:])


def test_curves_that_share_a_panel_are_tagged_with_their_bands_and_names(svg):
    tagged = Counter()
    for group in ElementTree.fromstring(svg("log_window")).iter(f"{SVG}g"):
        if group.get("id", "").startswith(sources.PREFIX):
            (label,) = sources.read(f'id="{group.get("id")}"')
            tagged[label] += 1
    panels = len(settings.figure("log_window").measures) * len(settings.figure("log_window").windows)
    assert set(tagged.values()) <= {3 * count for count in range(1, panels + 1)}  # a band, a line and a name each


def test_a_label_of_any_letters_is_read_back():
    label = 'a|b: "c" <d> & 50% é'
    figure = sources.style.panels(1, 1, 1.0)[0]
    sources.tag([label, "plain"], *figure.axes)
    sources.number(figure)
    assert sources.read(f'<g id="{figure.axes[0].get_gid()}">') == [label, "plain"]
