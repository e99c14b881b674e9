"""Numbers and paths of a configuration: within their range, or refused by the name of their key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import ge, gt, le, lt
from pathlib import Path

from experiments.errors import UserError

MOST_KEYS = 2**31 - 1  # an index of a key has 32 bits in the kernels
MOST_LOGIT = 1e6  # float32 has no digits after the point beyond it, and softmax no second key


def check_range(
    key: str,
    numbers: float | Sequence[float] | None,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    symbol: str = "",
) -> None:
    """Raise UserError unless every number is finite and within its bounds; null has none.

    Parameters
    ----------
    key
        What the user sets, such as `windows.exponents`.
    least, most, above, below
        Bounds, the first two included.
    symbol
        What theory.md calls one of the numbers.
    """
    if numbers is None:
        return
    bounds = {">": (gt, above), ">=": (ge, least), "<": (lt, below), "<=": (le, most)}
    for number in [numbers] if isinstance(numbers, int | float) else numbers:
        if not math.isfinite(number) or any(b is not None and not holds(number, b) for holds, b in bounds.values()):
            wanted = " and ".join(f"{sign} {bound:.10g}" for sign, (_, bound) in bounds.items() if bound is not None)
            one = isinstance(numbers, int | float)
            given = f"{key}={number}" if one else f"{key} has {symbol + ' = ' if symbol else ''}{number}"
            raise UserError(f"{given}: give {'a number' if one else 'numbers'} {wanted or 'that is finite'}")


def written_out(key: str, path: str) -> str:
    """Return a path with ~ written out; raise UserError, naming the key, if it is empty or of a user unknown here."""
    if not path.strip():
        raise UserError(f"{key} is empty: give a path")
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise UserError(f"{key}={path}: no user of that name has a home here; write the path out") from error
