"""The text that a checkpoint reads: the user's own file, or English prose that ships with Python."""

from __future__ import annotations

import hashlib
from pathlib import Path

from experiments.errors import UserError


def read_text(path: str | None) -> str:
    """Return the text of `path`, or, without one, the language reference in the standard library's pydoc.

    Raises
    ------
    UserError
        If the file is missing or not UTF-8.
    """
    if path is None:
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"source.text={path}: {error.strerror or error}; give a readable text file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"source.text={path}: not UTF-8 at byte {error.start}; convert the file to UTF-8") from error


def text_hash(text: str) -> str:
    """Return the SHA-256 of the text."""
    return hashlib.sha256(text.encode()).hexdigest()
