"""Published tables: what the repository carries draws every figure, without records, models or torch."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from analysis import settings
from analysis.publishing import ledger, published
from experiments.errors import UserError


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def tables(analysed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    published.publish(ledger.reader(analysed), folder)
    return folder


def test_the_figures_are_those_of_the_records(analysed, tables, tmp_path, monkeypatch):
    some = ["attention", "exponents", "phase", "retrieval"]
    monkeypatch.setattr(settings, "figures", lambda: some)
    assert published.draw(tables, tmp_path) == {}
    for name in some:
        with Image.open(tmp_path / f"{name}.png") as drawn, Image.open(analysed / "figures" / f"{name}.png") as first:
            one, other = (np.asarray(picture.convert("RGB"), int) for picture in (drawn, first))
            assert one.shape == other.shape
            # ten digits are not all of them: an edge may fall on the next pixel
            assert (np.abs(one - other).max(-1) > 2).mean() < 1e-4, name


def test_equal_tables_are_equal_to_the_byte_and_old_ones_go(analysed, tables, tmp_path):
    (tmp_path / "gone.csv.gz").write_bytes(b"")
    published.publish(ledger.reader(analysed), tmp_path)
    assert files(tmp_path) == files(tables)


def test_a_stale_table_is_not_published(outputs, tmp_path):
    path = outputs / "tables" / "windows.csv"
    path.write_text(path.read_text().replace("0.", "0.1", 1))
    to = tmp_path / "tables"
    with pytest.raises(UserError, match=r"windows\.csv: not the table that was written"):
        published.publish(ledger.reader(outputs), to)
    assert not to.exists()


def test_a_table_that_is_too_large_is_refused_by_name(analysed, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"the table \w+ is .* bytes compressed.*conf/figure/\w+\.yaml"):
        published.publish(ledger.reader(analysed), tmp_path)


def test_a_damaged_table_is_one_line(tables, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "tables"
    folder.mkdir()
    monkeypatch.setattr(published, "TABLES", folder)
    for name, content in files(tables).items():
        (folder / name).write_bytes(content[: len(content) // 2])
    assert published.main(["--to", str(tmp_path / "drawn")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {folder}")
    assert "take it from the repository again" in line


def test_what_the_repository_carries_is_small_and_draws_every_figure():
    sizes = [path.stat().st_size for path in published.TABLES.iterdir()]
    assert max(sizes) < published.MOST_BYTES
    assert sum(sizes) < published.MOST_BYTES_IN_ALL
    assert sum(path.stat().st_size for path in published.PICTURES.iterdir()) < 2_000_000
    figures = []
    assert published._each(published.TABLES, lambda name, figure: figures.append(name)) == {}
    assert figures == settings.figures() == [path.stem for path in map(published.PICTURES.joinpath, figures)]


def test_the_page_shows_every_figure_as_its_yaml_says():
    text = published.PAGE.read_text(encoding="utf-8")
    assert published.page(text) == text
    for name in settings.figures():
        assert f"](figures/{name}.png)" in text
        assert (published.PICTURES / f"{name}.png").exists()


def test_no_torch_is_needed():
    code = "import sys, analysis.publishing.published; assert not {'torch', 'pyarrow.parquet'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=published.ROOT, check=True)


def test_one_figure_for_a_paper_is_drawn_where_it_is_asked_for(tmp_path, capsys):
    to = tmp_path / "mine"
    words = ["--only", "cost", "--width", "85mm", "--format", "pdf", "--to", str(to)]
    assert published.main(words) == 0
    assert [path.name for path in to.iterdir()] == ["cost.pdf"]
    assert capsys.readouterr().out.splitlines()[-1] == str(to)
    assert published.main(["--only", "costs", "--to", str(to)]) == 1
    assert capsys.readouterr().err.startswith("error: no figure named costs: choose from ")
    assert published.main([*words, "--outputs", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: --outputs publishes every figure")
