"""What is printed: as it is, for a path or a model's name may hold brackets, which rich takes for its markup."""

from __future__ import annotations

from typing import Any

from rich.console import Console


def terminal(**options: Any) -> Console:
    """Return a console that prints text as it is and leaves the folding of long lines to the terminal."""
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)
