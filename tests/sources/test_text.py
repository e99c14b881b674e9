"""The default prose and the user's own file."""

import pytest

from experiments.errors import UserError
from experiments.sources.text import read_text, text_hash


def test_the_default_is_english_prose_that_ships_with_python():
    text = read_text(None)
    assert len(text) > 300_000
    assert text.count(" the ") > 3000
    assert text_hash(text) == text_hash(read_text(None))


def test_a_file_is_read_as_it_is(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("Grüße, 你好\n", encoding="utf-8")
    assert read_text(str(path)) == "Grüße, 你好\n"


def test_unreadable_files_are_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_text(str(tmp_path / "none.txt"))
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        read_text(str(tmp_path / "bytes.txt"))
