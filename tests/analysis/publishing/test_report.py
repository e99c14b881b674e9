import json
import re
from html.parser import HTMLParser

import pytest

from analysis import settings
from analysis.__main__ import main
from experiments.records.folder import seal


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.images = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.links += [found["href"]] if "href" in found else []
        self.images += [found] if tag == "img" else []


@pytest.fixture(scope="module")
def text(analysed):
    return (analysed / "report" / "index.html").read_text(encoding="utf-8")


def test_the_page_stands_alone(text):
    page = Page(text)
    assert len(text) < 5_000_000
    assert not {"link", "iframe"} & set(page.tags)
    assert page.tags.count("script") == 1
    shown = [image for image in page.images if "src" in image]  # one more waits in the dialog
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in shown)
    assert len(shown) == len(settings.figures())
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in text
    assert "url(" not in text.split("</style>")[0]


def test_its_links_lead_to_files(text, analysed):
    links = Page(text).links
    assert links
    anchors = {link.removeprefix("#") for link in links if link.startswith("#")}
    assert all(f'id="{anchor}"' in text for anchor in anchors)
    assert all((analysed / "report" / link).resolve().exists() for link in links if not link.startswith("#"))


def test_it_says_what_was_found_for_each_label(text):
    for label in ("Gaussian, s = 0.3", "Gaussian, s = 0.5", "Gaussian, s = 0.8", "TinyLM-Instruct"):
        assert f"<h3>{label}</h3>" in text
    assert re.search(r"Mean window [\d,]+, typical head [\d,]+ of 4,096 keys", text)
    assert re.search(r"Layer [01] needs \d+% of these keys; without it the mean window is [\d,]+ keys", text)


def test_what_was_found_and_the_figure_of_the_question_come_first(text):
    order = [text.index(f'<h2 id="{name}">') for name in ("found", "keys", "verdicts", "heads-needed", "regimes")]
    assert order == sorted(order)
    assert text.count('<h2 id="keys">') == 1


def test_exponents_have_intervals(text):
    assert re.search(r"exponent 0\.\d\d \[0\.\d\d, \d\.\d\d\]", text)


def test_it_gives_the_provenance_of_each_figure(text):
    for name in settings.figures():
        assert f"python -m analysis --only {name} --force" in text
    assert "python run.py source=smollm2 seed=0" in text


@pytest.mark.long
def test_what_records_say_is_escaped(outputs):
    path = outputs / "runs" / "real" / "manifest.json"
    evil = "<script>alert(1)</script> & $x^{$"
    seal(path.parent, json.loads(path.read_text()) | {"label": evil, "command": "<b>run"})
    assert main(["--outputs", str(outputs)]) == 0
    text = (outputs / "report" / "index.html").read_text(encoding="utf-8")
    assert Page(text).tags.count("script") == 1
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text
    assert "<b>run" not in text


def test_a_few_lengths_and_one_sample_are_said_plainly(tmp_path):
    from tests.analysis.synthetic import gaussian, write_run

    rows, windows = gaussian((64, 128), 4, 1, s=0.5)
    write_run(tmp_path, "g", "G", rows, windows, s=0.5)
    assert main(["--outputs", str(tmp_path)]) == 0
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "No exponent: fewer than 3 lengths" in text
    assert ">nan<" not in text
