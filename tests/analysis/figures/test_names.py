import pytest

from analysis import settings
from analysis.figures.page.names import FORMULAS, LAWS, kind_of, window_text
from analysis.statistics import laws


def test_every_method_of_the_configuration_has_a_kind():
    files = sorted((settings.CONF / "selector").glob("*.yaml"))
    alone = [path.stem for path in files if "parts." not in path.read_text(encoding="utf-8")]
    assert len(alone) > 10
    assert all(kind_of(name) for name in alone)
    assert kind_of("random") == "control"


def test_a_method_without_a_kind_is_refused_by_name():
    with pytest.raises(KeyError, match="the method my_method has no kind"):
        kind_of("my_method")


def test_every_law_has_a_name():
    names = [law.name for law in laws.LAWS]
    assert list(LAWS) == list(FORMULAS) == names


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (("fixed", 1024.0, 1.0), "1k"),
        (("power", 0.7, 1.0), "$n^{0.7}$"),
        (("log", 1.0, 4.0), r"4 $\ln n$"),
        (("log", 2.0, 1.0), r"$(\ln n)^{2}$"),
        (("linear", 0.1, 1.0), "0.1 $n$"),
    ],
)
def test_a_window_is_written_as_a_formula(window, text):
    assert window_text(*window) == text
