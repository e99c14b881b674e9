"""Columns that several tables share: where a line comes from, and which window it is of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from experiments.tables import Column

if TYPE_CHECKING:
    import pandas as pd

LAYER = Column("layer", "int32", "index of the layer; 0 for the Gaussian source")
HEAD = Column("head", "int32", "index of the query head; 0 for the Gaussian source")
SAMPLE = Column("sample", "int32", "number of the document or draw, from 0")
VARIANT = Column(
    "variant",
    "str",
    "`plain`; `no_sink`: key 0 is hidden; `truncated_context`: the model reads the last n tokens alone; with "
    "`, |x|^p` for attention in proportion to |q.k|^p",
)
LENGTH = Column("length", "int32", "nominal context length that the line stands for", "keys")
PHASE = Column("phase", "str", "`prefill`: all that is read attends within its window; `decode`: the last tokens alone")
SELECTOR = Column("selector", "str", "name of the method; `dense` for attention to all keys", older="oracle")
RULE = Column(
    "rule",
    "str",
    "window rule; `dense` for attention to all keys, `any` for a method without a budget; of a budget file `budget`, "
    "and `budget_gains`, `budget_uniform`, `budget_pyramid` or `budget_zigzag` where it shares keys out so",
)
PARAMETER = Column("parameter", "float64", "C, b, beta, eta, eps or k of the rule; NaN for `dense` and `any`")
SCALE = Column("scale", "float64", "factor of the rule; NaN for `dense` and `any`")
WINDOW = (RULE, PARAMETER, SCALE)


def window_name(rule: str, parameter: float, scale: float) -> str:
    """Return the name of a window for people: `power 0.5 x 4`, `fixed 64`, `dense`."""
    if parameter != parameter:  # NaN: there is no window
        return rule
    return f"{rule} {parameter:.4g}" + ("" if scale == 1 else f" x {scale:.3g}")


def methods_of(lines: pd.DataFrame) -> str:
    """Return the names of the methods that lines are of, for people."""
    return ", ".join(name for name in map(str, lines["selector"].unique()) if name not in ("dense", "sharpened"))


def at_longest(lines: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the lines at the longest length, and for people how many tokens that are, of how many samples."""
    lengths = lines["length"].nunique()
    lines = lines[lines["length"] == lines["length"].max()]
    words = f"{lines['sample'].nunique()} samples of {lines['length'].iloc[0]} tokens"
    return lines, words if lengths == 1 else f"{words}, the longest of {lengths} lengths,"


def by_window(lines: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each window's lines with its name, the method's before it where there are several, as they come."""
    names = ["selector", *(column.name for column in WINDOW)]
    several = lines["selector"].nunique() > 2  # the one and `dense`
    for keys, part in lines.groupby(names, dropna=False, sort=False):
        selector, rule, parameter, scale = cast(tuple[str, str, float, float], keys)
        name = window_name(rule, parameter, scale)
        yield f"{selector}, {name}" if several and rule != "dense" else name, part
