"""Tables and verdicts in LaTeX: whole, escaped, with captions, units and intervals."""

import re
from functools import partial

import pandas as pd
import pytest
from omegaconf import OmegaConf

from analysis import save, settings
from analysis.__main__ import main
from analysis.figures.page.size import Size
from analysis.publishing import claims, latex, paper

EVERY = [table for name in settings.studies() for table in settings.study(name).tables]


def check(text):
    """Fail unless a longtable is whole: every line has the cells of its head, and nothing special is left unescaped."""
    lines = text.splitlines()
    assert lines[0].startswith("%")
    across = len(re.fullmatch(r"\\begin\{longtable\}\{@\{\}(.*)@\{\}\}", lines[1])[1].replace("p{", "").split("}")) - 1
    letters = re.sub(r"p\{[^}]*\}", "p", re.fullmatch(r"\\begin\{longtable\}\{@\{\}(.*)@\{\}\}", lines[1])[1])
    assert across >= 0
    cells = {
        len(re.split(r"(?<!\\)&", line)) for line in lines[3:] if line.endswith(r"\\") and "multicolumn" not in line
    }
    assert cells == {len(letters)}
    assert [lines.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{longtable}")] == [
        2,
        2,
        1,
        1,
    ]
    body = "\n".join(lines[1:])
    assert not re.search(r"(?<!\\)[%#$_^~](?!\\)", re.sub(r"\$\\\w+\$", "", re.sub(r"\\label\{[^}]*\}", "", body)))
    assert body.count("{") == body.count("}")


@pytest.mark.parametrize("name", EVERY)
def test_every_table_is_one_of_latex(analysed, name):
    path = analysed / "tables" / f"{name}.tex"
    frame = save.read_csv(analysed / "tables", name)
    if len(frame) > latex.MOST_LINES:
        assert not path.exists()
        return
    text = path.read_text(encoding="utf-8")
    check(text)
    assert f"\\label{{tab:{name}}}" in text
    assert re.search(r"\\caption\{.{20,}", text)


def test_numbers_stand_with_their_interval_and_units_and_what_is_alike_in_the_caption():
    frame = pd.DataFrame({"label": ["a_1", "b 5%"], "k": [1234.5, 2.0], "k_low": [1.0, None], "k_high": [2000.0, None]})
    text = latex.table(frame.assign(eta=0.1, heads=[3, 4]), "Keys", "keys")
    check(text)
    assert r"\caption{Keys In every line: eta 0.1.}\label{tab:keys}" in text
    assert r"label & k & heads \\" in text
    assert r" & (keys) &  \\" in text
    assert r"a\_1 & 1.23e+03 [1, 2e+03] & 3 \\" in text
    assert r"b 5\% & 2 & 4 \\" in text


def test_a_table_that_print_cannot_hold_is_not_written(tmp_path):
    path = tmp_path / "t.tex"
    assert latex.write(latex.table(pd.DataFrame({"k": [1.0, 2.0]}), "", "t"), path)
    assert not latex.write(latex.table(pd.DataFrame({"k": range(latex.MOST_LINES + 1)}), "", "t"), path)
    assert not path.exists()


def test_claims_have_the_verdict_of_every_reading(analysed):
    text = (analysed / "tables" / "claims.tex").read_text(encoding="utf-8")
    check(text)
    verdicts = save.read_csv(analysed / "tables", "claims")
    unjudged = claims.unmeasured(verdicts, settings.claims())
    lines = [line for line in text.splitlines() if re.match(r"\d+ & ", line)]
    assert len(lines) == len(settings.claims().claims) == verdicts.groupby(list(claims.RULE)).ngroups + len(unjudged)
    assert sum(line.endswith(r"not measured \\") for line in lines) == len(unjudged)
    for line in verdicts.to_dict("records"):
        (row,) = (
            row
            for row in lines
            if latex.escaped(f"{line['question']} [{line['norm']}]") in row
            and row.startswith(f"{line['claim']} & {latex.escaped(line['reading'])} &")
        )
        part = row.split(rf"\textbf{{{line['verdict']}}}: ")[1].split(r"\newline")[0]
        assert latex.escaped(line["source"]) in part


def test_figures_for_a_paper_are_drawn_beside_the_usual_ones(outputs, capsys):
    before = {path: path.read_bytes() for path in (outputs / "figures").iterdir()}
    options = ["--only", "windows", "cost", "--width", "85mm", "--font", "8", "--format", "pdf", "svg"]
    assert main(["--outputs", str(outputs), *options]) == 0
    assert {path.name for path in (outputs / "paper").iterdir()} == {
        "windows.pdf",
        "windows.svg",
        "cost.pdf",
        "cost.svg",
    }
    page = (outputs / "paper" / "cost.svg").read_text(encoding="utf-8")
    assert float(re.search(r'width="([\d.]+)pt"', page)[1]) == pytest.approx(85 / 25.4 * 72, rel=1e-3)
    assert {path: path.read_bytes() for path in (outputs / "figures").iterdir()} == before
    assert str(outputs / "paper") in capsys.readouterr().out.replace("\n", "")


def test_to_a_folder_draws_there_and_changes_nothing_else(outputs, tmp_path, capsys):
    def there():
        return {path: path.stat().st_mtime_ns for path in outputs.rglob("*") if path.is_file()}

    before, to = there(), tmp_path / "paper"
    assert main(["--outputs", str(outputs), "--only", "cost", "--width", "85mm", "--to", str(to)]) == 0
    assert [path.name for path in to.iterdir()] == ["cost.pdf"]
    assert there() == before
    assert capsys.readouterr().out.splitlines()[-1] == str(to)
    table = outputs / "tables" / "cost.csv"
    table.write_text(table.read_text().replace("0.", "0.1", 1))
    assert main(["--outputs", str(outputs), "--only", "cost", "--to", str(to)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: cost: not drawn, there is no table cost")
    assert "python -m analysis makes the tables" in error


@pytest.mark.usefixtures("unsaved")
def test_a_figure_higher_than_a_page_names_settings_of_its_yaml(outputs, tmp_path, capsys):
    config = {name: settings.figure(name) for name in settings.figures()}
    read = partial(save.read_csv, outputs / "tables")
    owned = [path.stem for path in (outputs / "tables").glob("*.csv")]
    notes = paper.draw(read, tmp_path, list(config), owned, Size.of("85mm", 7), ["svg"])
    high = [note for note in notes if "more than a page" in note]
    assert high
    for note in high:
        name, told = note.partition(":")[0], re.search(r"fewer sources \(([^)]*) in conf/figure/(\w+)\.yaml\)", note)
        assert note.endswith("a larger --width or a smaller --font")
        if told:
            assert told[2] == name
            assert all(OmegaConf.select(config[name], key) is not None for key in told[1].split(", "))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--width", "85"], "--width 85: give a width"),
        (["--font", "1"], "--font 1: give"),
        (["--font", "0"], "--font 0: give"),
    ],
)
def test_a_size_that_cannot_be_drawn_is_refused_in_one_line(outputs, capsys, option, words):
    assert main(["--outputs", str(outputs), *option]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {words}")
    assert error.count("\n") == 1
    assert not (outputs / "paper").exists()
