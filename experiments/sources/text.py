"""The text that a checkpoint reads: the user's own file, or prose or source code that ships with Python."""

from __future__ import annotations

import hashlib
import sysconfig
from functools import cache
from pathlib import Path

from experiments.errors import UserError

PROSE, CODE = "python:prose", "python:code"
CODE_CHARACTERS = 1_000_000  # several times what twelve samples of 8192 tokens need


def read_text(name: str | None) -> str:
    """Return the text that `name` stands for.

    Parameters
    ----------
    name
        A path; `python:prose`, or None, for the language reference in the standard library's pydoc; `python:code` for
        the standard library's own modules.

    Raises
    ------
    UserError
        If the file is missing or not UTF-8, or this Python has no such text.
    """
    if name in (None, PROSE):
        return _prose()
    if name == CODE:
        return _code()
    if name.startswith("python:"):
        raise UserError(f"source.text={name}: choose {PROSE}, {CODE} or a text file")
    try:
        return Path(name).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"source.text={name}: {error.strerror or error}; give a readable text file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"source.text={name}: not UTF-8 at byte {error.start}; convert the file to UTF-8") from error


def corpus_suffix(name: str | None, shuffle: bool) -> str:
    """Return what a record's label says of its text: nothing for the default prose."""
    corpus = "" if name in (None, PROSE) else ", source code" if name == CODE else f", {Path(name).stem}"
    return corpus + (", shuffled tokens" if shuffle else "")


def text_hash(text: str) -> str:
    """Return the SHA-256 of the text."""
    return hashlib.sha256(text.encode()).hexdigest()


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
