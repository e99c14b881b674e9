"""The text that a checkpoint reads: the user's own file, a pinned corpus, or what ships with Python.

Of a file only as much is held as is used; its hash is taken piece by piece.
"""

from __future__ import annotations

import codecs
import hashlib
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from experiments.errors import UserError
from experiments.ranges import written_out
from experiments.sources.corpora import CORPORA, PREFIX, corpus, corpus_text, is_corpus

PROSE, CODE = "python:prose", "python:code"
CODE_CHARACTERS = 1_000_000  # several times what twelve samples of 8192 tokens need
PIECE = 1 << 20  # characters read at once


def read_start(name: str | None, characters: int) -> str:
    """Return at most the first `characters` characters of the text that `name` stands for.

    Parameters
    ----------
    name
        A path; `corpus:NAME` for a pinned corpus; `python:prose`, or None, for the language reference in the standard
        library's pydoc; `python:code` for the standard library's own modules: these two change with Python's version. A
        byte-order mark is no part of a file's text.

    Raises
    ------
    UserError
        If the file is missing, no regular file or not UTF-8, or this Python has no such text.
    """
    start: list[str] = []
    for piece in _pieces(name):
        start.append(piece[:characters])
        characters -= len(piece)
        if characters <= 0:
            break
    return "".join(start)


def text_bytes(name: str | None) -> int:
    """Return the size of the text in bytes; see `read_start`."""
    if _in_memory(name):
        return sum(len(piece.encode()) for piece in _pieces(name))
    return _regular_file(str(name)).stat().st_size


def text_hash(name: str | None) -> str:
    """Return the SHA-256 of the whole text; see `read_start`."""
    if _in_memory(name):
        return _hash_of(name)
    status = _regular_file(str(name)).stat()
    return _hash_of_file(str(name), status.st_size, status.st_mtime_ns)


def corpus_suffix(name: str | None, shuffle: bool) -> str:
    """Return what a record's label says of its text: nothing for the default prose."""
    if name is None or name == PROSE:
        text = ""
    elif is_corpus(name):
        text = f", {corpus(name).label}"
    else:
        text = ", source code" if name == CODE else f", {Path(name).stem}"
    return text + (", shuffled tokens" if shuffle else "")


def _in_memory(name: str | None) -> bool:
    return name is None or name.startswith(("python:", PREFIX))


def _pieces(name: str | None) -> Iterator[str]:
    """Yield the text piece by piece."""
    if name is None or name == PROSE:
        yield _prose()
    elif name == CODE:
        yield _code()
    elif is_corpus(name):
        yield corpus_text(name)
    elif name.startswith("python:"):
        corpora = ", ".join(PREFIX + known for known in CORPORA)
        raise UserError(f"source.text={name}: choose {PROSE}, {CODE}, {corpora} or a text file")
    else:
        try:
            with _regular_file(name).open(encoding="utf-8-sig") as file:
                yield from iter(lambda: file.read(PIECE), "")
        except OSError as error:
            raise UserError(f"source.text={name}: {error.strerror or error}; give a readable text file") from error
        except UnicodeDecodeError as error:
            raise UserError(
                f"source.text={name}: not UTF-8 at byte {_bad_byte(name)}; convert the file to UTF-8"
            ) from error


def _bad_byte(name: str) -> int:
    """Return where a file stops to be UTF-8."""
    utf8, position = codecs.getincrementaldecoder("utf-8")(), 0
    with Path(name).expanduser().open("rb") as file:
        while piece := file.read(PIECE):
            held = len(utf8.getstate()[0])
            try:
                utf8.decode(piece)
            except UnicodeDecodeError as error:
                return position - held + error.start
            position += len(piece)
    return position


def _regular_file(name: str) -> Path:
    """Return the path of a text file; a pipe or a device would be waited for, or never end."""
    try:
        path = Path(written_out("source.text", name))
        path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"source.text={name}: {reason}; give a readable text file") from error
    if not path.is_file():
        raise UserError(f"source.text={name}: no regular file; give a readable text file")
    return path


def _hash_of(name: str | None) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(name):
        digest.update(piece.encode())
    return digest.hexdigest()


@cache
def _hash_of_file(name: str, size: int, modified_ns: int) -> str:
    return _hash_of(name)


@cache
def _prose() -> str:
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


@cache
def _code() -> str:
    """Join the modules of the standard library's top folder by name, but for private ones, some made per machine."""
    modules, size = [], 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*.py")):
        if size >= CODE_CHARACTERS:
            break
        modules.append(path.read_text(encoding="utf-8"))
        size += len(modules[-1])
    if not modules:
        raise UserError(f"source.text={CODE}: this Python comes without its library's sources; give a text file")
    return "\n\n".join(modules)
