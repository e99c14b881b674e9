import json
from functools import partial

import pandas as pd
import pytest

from analysis import save, settings
from analysis.publishing import quotes
from examples.kvpress.table import MEASURED, compared
from experiments.errors import UserError


@pytest.fixture
def tables(tmp_path):
    pd.DataFrame({"label": ["A", "B"], "C": [0.314, 0.271]}).to_csv(tmp_path / "fits.csv", index=False)
    verdicts = {"claim": 1, "reading": "some", "question": "?", "norm": "tv", "source": ["Gaussian, s = 0.5", "TinyLM"]}
    verdicts |= {
        "verdict": ["confirmed", "undecided"],
        "effect": [-0.5, 0.125],
        "effect_low": [-0.6, 0.0],
        "lines": [1, 3],
    }
    verdicts |= {"effect_high": [-0.4, 2.0], "quantity": "|x|", "since": "2026-11-28", "numbers_known": [True, True]}
    pd.DataFrame(verdicts).to_csv(tmp_path / "claims.csv", index=False)
    return tmp_path


def test_a_number_is_replaced_by_that_of_the_table(tables):
    text = 'It grows like n^{{ fits | label == "A" | C | .2f }} here, a share of [{{ fits | label == "B" | C | .0% }}].'
    assert quotes.filled(text, tables) == "It grows like n^0.31 here, a share of [27%]."


def test_a_quote_of_no_line_or_of_several_is_refused(tables):
    for condition in ("label == 'X'", "C > 0"):
        with pytest.raises(UserError, match="quote one"):
            quotes.filled(f"{{{{ fits | {condition} | C | .2f }}}}", tables)


def test_a_quote_of_a_column_that_is_not_there_is_refused(tables):
    with pytest.raises(UserError, match="no such column; quote one of label, C"):
        quotes.filled("{{ fits | label == 'A' | D | .2f }}", tables)


def test_the_verdict_table_stands_between_its_marks(tables):
    text = quotes.filled("Before\n\n{{ claims }}\nafter", tables)
    cells = ["1", "some", r"? (\|x\|)", "tv", "s = 0.5: -0.5 [-0.6, -0.4]", "", "", "TinyLM: 0.12 (0 to 2)"]
    assert f"| {' | '.join(cells)} | 2026-11-28, numbers known |\n" in text
    (heading,) = (line for line in text.splitlines() if line.startswith("| claim"))
    assert all(
        line.replace(r"\|", "").count("|") == heading.count("|") for line in text.splitlines() if line[:1] == "|"
    )
    assert text.count("| not measured |") == len(settings.claims().claims)


LINES = "{{ lines fits | C > 0 | by C | who: `{label}` | C: {C:.1f} [{C:.2f}] }}\n"


def test_lines_become_a_table_in_the_order_of_a_column(tables, tmp_path):
    text = quotes.filled(f"Before\n\n{LINES}\nafter", tables)
    assert text == "Before\n\n| who | C |\n| --- | --- |\n| `B` | 0.3 [0.27] |\n| `A` | 0.3 [0.31] |\n\nafter"
    quotes.keep(LINES, partial(save.read_csv, tables), tmp_path / "kept")
    assert quotes.filled(f"Before\n\n{LINES}\nafter", tmp_path / "kept") == text


def test_an_interval_that_is_not_known_is_said_to_be_none(tables):
    table = pd.DataFrame({"label": ["A"], "C": [0.5], "low": [float("nan")], "high": [float("nan")]})
    table.to_csv(tables / "fits.csv", index=False)
    cells = "C: {C:+.1f} [{low:+.2f}, {high:.2f}]"
    assert "| +0.5 (no interval) |" in quotes.filled(f"{{{{ lines fits | C > 0 | by C | {cells} }}}}\n", tables)


@pytest.mark.parametrize(
    ("old", "new", "message"), [("C > 0", "C > 1", "no line"), ("{C:.1f}", "{D}", "no column 'D'")]
)
def test_lines_that_are_not_there_are_refused(tables, old, new, message):
    with pytest.raises(UserError, match=message):
        quotes.filled(LINES.replace(old, new), tables)


def test_only_the_quoted_lines_are_kept(tables, tmp_path):
    text = "{{ fits | label == 'B' | C | .3f }}"
    quotes.keep(text, partial(save.read_csv, tables), tmp_path / "kept")
    assert pd.read_csv(tmp_path / "kept" / "fits.csv")["label"].tolist() == ["B"]
    assert quotes.filled(text, tmp_path / "kept") == quotes.filled(text, tables) == "0.271"


def test_what_is_no_quote_is_refused(tables):
    with pytest.raises(UserError, match="not a quote"):
        quotes.filled("{{ fits | C > 0 }}", tables)


@pytest.mark.parametrize("template", quotes.templates(), ids=lambda path: path.stem)
def test_the_pages_say_what_templates_and_tables_say(template):
    page = quotes.page_of(template).read_text(encoding="utf-8")
    assert quotes.made(template, quotes.QUOTES) == page, "make quotes"


def test_the_table_of_kvpress_is_of_its_comparisons(tmp_path):
    save.write_csv(compared(MEASURED), tmp_path, "kvpress")
    kept = (quotes.QUOTES / "kvpress.csv").read_text(encoding="utf-8")
    assert (tmp_path / "kvpress.csv").read_text(encoding="utf-8") == kept, "python -m examples.kvpress.table"


def test_a_comparison_is_a_line_for_each_factor(tmp_path):
    ways = [
        {"factor": factor, "press": press, "keys": keys, "fewest": 1, "most": 9, "losses": losses}
        for factor, press, keys, losses in (
            (1, "ratio per layer", 7.5, [2.0, 2.25]),
            (1, "one ratio", 8.0, [2.5, 2.25]),
            (0.5, "ratio per layer", 4.0, [3.0, 3.5]),
            (0.5, "one ratio", 4.0, [2.0, 3.0]),
        )
    ]
    sizes = {"per": "layer", "length": 64, "tokens": 2, "skip": 4}
    record = {"budget": {"label": "A", "by": "gains"}, **sizes, "dense": [1.0, 2.0], "ways": ways}
    (tmp_path / "one.json").write_text(json.dumps(record))
    whole, half = compared(tmp_path).to_dict("records")
    told = ("name", "by", "skip", "prompts", "keys", "one_keys", "dense", "added", "one_added", "difference", "less")
    assert [whole[name] for name in told] == ["one", "gains", 4, 2, 7.5, 8.0, 1.5, 0.625, 0.875, -0.25, 1]
    reach = 12.706 * 0.25  # Student's quantile of one degree of freedom; the differences are -0.5 and 0
    assert whole["difference_low"] == pytest.approx(-0.25 - reach, abs=1e-3)
    assert whole["difference_high"] == pytest.approx(-0.25 + reach, abs=1e-3)
    assert (half["factor"], half["difference"], half["less"]) == (0.5, 0.75, 0)


def test_a_paragraph_with_numbers_is_broken_into_lines_anew_and_a_list_is_not(tables):
    quote = "{{ fits | label == 'A' | C | .2f }}"
    words = f"A head grows like\nn^{quote}\nand no more."
    told = quotes.filled(f"{words}\n\n1. one\n   {quote}\n\nno\nnumber", tables)
    assert told == "A head grows like n^0.31 and no more.\n\n1. one\n   0.31\n\nno\nnumber"
    assert max(map(len, quotes.filled(" ".join([words] * 30), tables).splitlines())) <= quotes.WIDTH
