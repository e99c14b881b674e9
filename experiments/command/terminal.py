"""What is printed: as it is, for a path or a model's name may hold brackets, which rich takes for its markup."""

from __future__ import annotations

import os
import sys
from typing import Any

from rich.console import Console

WIDE = 200  # columns where there is no terminal


class Terminal(Console):
    """A console whose reader may leave, as `head` does: what is measured goes on, and the rest is printed nowhere."""

    def on_broken_pipe(self) -> None:
        """Print nothing more."""
        self.quiet = True
        drop_output()


def drop_output() -> None:
    """Send what is still printed nowhere, what Python flushes as it ends included."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def terminal(**options: Any) -> Terminal:
    """Return a console that prints text as it is and leaves the folding of long lines to the terminal."""
    if not (sys.stderr if options.get("stderr") else sys.stdout).isatty():
        options["width"] = WIDE  # whatever reads it may fold lines, but not find what was cut
    return Terminal(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)
