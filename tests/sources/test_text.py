"""The default prose and the user's own file."""

import pytest

from experiments.errors import UserError
from experiments.sources.text import corpus_suffix, read_text, text_hash


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


def test_source_code_is_the_standard_library_and_always_the_same():
    text = read_text("python:code")
    assert text.count("\n    def ") > 1000
    assert "import os" in text
    assert 1_000_000 <= len(text) < 2_000_000
    assert text_hash(text) == text_hash(read_text("python:code"))
    assert read_text("python:prose") == read_text(None)
    with pytest.raises(UserError, match="python:code"):
        read_text("python:poems")


def test_labels_tell_texts_apart_and_leave_the_default_alone():
    assert corpus_suffix(None, False) == corpus_suffix("python:prose", False) == ""
    assert corpus_suffix("python:code", False) == ", source code"
    assert corpus_suffix(None, True) == ", shuffled tokens"
    assert corpus_suffix("books/mine.txt", True) == ", mine, shuffled tokens"
