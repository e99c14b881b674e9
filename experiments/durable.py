"""Writes that outlive a power cut: what a file says, and that it is there."""

from __future__ import annotations

import os
from pathlib import Path


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
