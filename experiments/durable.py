"""Writes that outlive a power cut: what a file says, and that it is there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(draft: Path, target: Path) -> None:
    """Move a written file to `target` in one step: a reader, even after a power cut, finds the old one or the new."""
    sync(draft)
    draft.replace(target)
    sync(target.parent)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a small file in one step: a reader sees the old content or the new."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    put_in_place(partial, path)


def read_json(path: Path) -> dict[str, Any]:
    """Return what `write_json` wrote; nothing if the file is not there or is not whole."""
    try:
        content = json.loads(path.read_text()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
