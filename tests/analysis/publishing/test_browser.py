"""The report in a real browser, from file://: filters, sorting, enlarging, phone width, no network, no foreign code."""

import io
import json
import os
import shutil
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from analysis.__main__ import main
from experiments.records.folder import seal
from tests.analysis.synthetic import gaussian, write_run

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install '.[test]'")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium, or set CHROMIUM="),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_report(browser):
    """Open a report; whatever it asks of the network, and whatever its console complains of, fails the test."""
    pages, complaints = [], []

    def opened(outputs, width="desktop"):
        size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
        page = browser.new_page(viewport=size)
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or complaints.append(request.url))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda shown: complaints.append(shown.message))
        page.goto((outputs / "report" / "index.html").resolve().as_uri())
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert complaints == []


def lines(page, selector):
    return page.locator(f"{selector}:visible")


def dark_pixels(image):
    """Count the pixels of an element that are darker than anything drawn pale."""
    return int((np.asarray(Image.open(io.BytesIO(image.screenshot())).convert("L")) < 128).sum())


def test_filters_leave_what_was_asked_for(analysed, open_report):
    page = open_report(analysed)
    every = lines(page, "#filters ~ section tbody tr[data-head]").count()
    assert every == 4
    page.get_by_label("head", exact=True).select_option("1")
    kept = lines(page, "tbody tr[data-head]")
    assert kept.count() == 2
    assert all(kept.nth(i).get_attribute("data-head") == "1" for i in range(kept.count()))
    page.get_by_label("layer", exact=True).select_option("0")
    assert kept.count() == 1
    assert "lines match" in page.get_by_role("status").inner_text()
    page.get_by_role("button", name="show all").click()
    assert kept.count() == every
    page.get_by_label("model or distribution").select_option("Gaussian, s = 0.5")
    assert lines(page, "tbody tr[data-head]").count() == 0
    assert {cell.inner_text() for cell in lines(page, ".findings article h3").all()} <= {"Gaussian, s = 0.5"}


def test_a_norm_leaves_its_claims_and_no_empty_headings(analysed, open_report):
    page = open_report(analysed)
    chosen = page.get_by_label("norm", exact=True).locator("option").nth(1).inner_text()
    page.get_by_text("The evidence of every verdict").click()
    page.get_by_label("norm", exact=True).select_option(chosen)
    assert {row.get_attribute("data-norm") for row in lines(page, "table.matrix tr[data-norm]").all()} == {chosen}
    assert {row.get_attribute("data-norm") for row in lines(page, "table.claims tr[data-norm]").all()} == {chosen}
    groups = lines(page, "table.claims tbody")
    assert groups.count() > 0
    assert all(chosen in groups.nth(i).inner_text() for i in range(groups.count()))


def test_a_source_leaves_its_column_of_the_matrix(analysed, open_report):
    page = open_report(analysed)
    assert lines(page, "table.matrix thead th[data-model]").count() > 1
    page.get_by_label("model or distribution").select_option("TinyLM-Instruct")
    heads = lines(page, "table.matrix thead th[data-model]")
    assert heads.all_inner_texts() == ["TinyLM-Instruct"]
    assert lines(page, "table.matrix td").count() == lines(page, "table.matrix tbody tr").count()


def test_a_source_leaves_its_panels_and_curves_and_the_others_pale(analysed, open_report):
    page = open_report(analysed)
    figure = page.locator("section[aria-labelledby='log_window'] figure")
    image, note = figure.locator("img"), figure.locator(".filtered")
    whole, dark = image.get_attribute("src"), dark_pixels(image)
    left = {}
    for source in json.loads(figure.get_attribute("data-sources")):
        page.get_by_label("model or distribution").select_option(source)
        playwright.expect(note).to_be_visible()
        playwright.expect(image).not_to_have_attribute("src", whole)
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        left[source] = dark_pixels(image)
        page.get_by_role("button", name="show all").click()
        playwright.expect(note).to_be_hidden()
        assert image.get_attribute("src") == whole
    assert len(left) > 1
    assert all(count < dark for count in left.values())
    assert len(set(left.values())) > 1  # axes are dark in each of them, curves are not the same


def test_a_figure_of_other_sources_alone_is_hidden(analysed, open_report):
    page = open_report(analysed)
    figure = page.locator("section[aria-labelledby='exponents'] figure")
    assert json.loads(figure.get_attribute("data-sources")) == {"TinyLM-Instruct": "real"}
    page.get_by_label("source", exact=True).select_option("gaussian")
    playwright.expect(figure.get_by_text("This figure shows none of the chosen sources.")).to_be_visible()
    assert not figure.locator(".plate").is_visible()
    page.get_by_label("source", exact=True).select_option("real")
    playwright.expect(figure.locator(".plate")).to_be_visible()
    assert not figure.locator(".filtered").is_visible()


def test_a_heading_sorts_its_column_by_keyboard_too(analysed, open_report):
    page = open_report(analysed)
    table = page.locator("section[aria-labelledby='heads-needed'] table")
    button = table.get_by_role("button", name="keys")
    button.focus()
    page.keyboard.press("Enter")
    assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    cells = table.locator("tbody tr td:nth-of-type(3)").all_inner_texts()
    values = [float(cell.replace(",", "")) for cell in cells]
    assert values == sorted(values)
    page.keyboard.press("Enter")
    cells = table.locator("tbody tr td:nth-of-type(3)").all_inner_texts()
    assert [float(cell.replace(",", "")) for cell in cells] == values[::-1]


def test_a_figure_enlarges_and_escape_closes_it(analysed, open_report):
    page = open_report(analysed)
    button = page.get_by_role("button", name="Enlarge").first
    small = page.locator("figure img").first
    button.focus()
    page.keyboard.press("Enter")
    large = page.get_by_role("dialog").locator("img")
    assert large.is_visible()
    assert large.get_attribute("src") == small.get_attribute("src")
    assert large.get_attribute("alt") == small.get_attribute("alt")
    assert large.bounding_box()["width"] > small.bounding_box()["width"]
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()


def test_provenance_is_one_click_away(analysed, open_report):
    page = open_report(analysed)
    summary = page.locator("section[aria-labelledby='regimes'] details summary", has_text="Provenance")
    summary.click()
    shown = page.locator("section[aria-labelledby='regimes'] details[open]").inner_text()
    assert "python -m analysis --only regimes" in shown
    runs = {path.parent.name for path in (analysed / "runs").glob("*/rows.parquet")}
    others = {name for name in runs if name.startswith(("several", "real_", "triples"))}
    assert others  # of fewer lengths or another kind: other figures'
    assert all(name in shown for name in runs - others)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_no_wider_than_the_screen(width, analysed, open_report):
    page = open_report(analysed, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0]


def test_each_control_has_a_name_and_headings_keep_their_order(analysed, open_report):
    page = open_report(analysed)
    unnamed = "[...document.querySelectorAll('button,select,summary,a')].filter(e => !e.textContent.trim()).length"
    assert page.evaluate(unnamed) == 0
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_a_model_called_script_runs_nothing(outputs, open_report):
    path = outputs / "runs" / "real" / "manifest.json"
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    seal(path.parent, json.loads(path.read_text()) | {"label": evil, "command": "<img src=x onerror=alert(3)>"})
    assert main(["--outputs", str(outputs)]) == 0
    page = open_report(outputs)
    assert page.get_by_role("heading", name=evil).is_visible()
    page.get_by_label("model or distribution").select_option(evil)
    assert lines(page, "tbody tr[data-head]").count() == 4


def test_a_sweep_of_300_jobs_stays_small(tmp_path, open_report):
    for number in range(300):
        s = (0.3, 0.5, 0.8, 1.1, 1.5)[number % 5]
        rows, windows = gaussian((64, 128, 256, 512), 2, 1, s=s, seed=number)
        write_run(tmp_path, f"g{number:03}", f"Gaussian, s = {s}", rows, windows, s=s)
    assert main(["--outputs", str(tmp_path)]) == 0
    assert (tmp_path / "report" / "index.html").stat().st_size < 5_000_000
    page = open_report(tmp_path)
    assert page.get_by_role("heading", level=1).is_visible()
    assert page.evaluate("document.querySelectorAll('*').length") < 60_000
    page.locator("summary", has_text="300 runs").click()
    assert lines(page, "section[aria-labelledby='records'] tbody tr").count() == 300
