"""Rotary factors that depend on the tokens of a pass: a shorter context is then no part of a longer pass [T8]."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from experiments.errors import UserError

LONG, DYNAMIC = "longrope", "dynamic"


def regime(config: Any, tokens: int) -> tuple[bool, ...]:
    """Return which rotary factors the model uses that reads up to position `tokens` - 1; equal ones rotate alike.

    Raises
    ------
    UserError
        If the factors follow from the longest of all passes so far, as those of dynamic NTK do beyond its limit.
    """
    long = []
    for rope in _ropes(config):
        kind = str(rope.get("rope_type", "default"))
        limit = rope.get("original_max_position_embeddings") or getattr(config, "max_position_embeddings", None) or 0
        if DYNAMIC in kind and tokens > limit:
            raise UserError(
                f"source.lengths has {tokens}: beyond {limit} tokens the rotary factors of this model ({kind}) depend "
                "on what it has read before, so that no row is defined by its context; give shorter lengths"
            )
        if kind == LONG and rope["short_factor"] != rope["long_factor"]:
            long.append(tokens > limit)
    return tuple(long)


def by_regime(config: Any, lengths: Iterable[int]) -> list[list[int]]:
    """Return the lengths, ascending, in groups that one pass over the longest of a group serves."""
    groups: dict[tuple[bool, ...], list[int]] = {}
    for length in sorted(lengths):
        groups.setdefault(regime(config, length), []).append(length)
    return list(groups.values())


def check_one_regime(config: Any, tokens: Iterable[int], runner: str) -> None:
    """Raise UserError if contexts of these numbers of tokens share one cache and are rotated by different factors."""
    counts = sorted(set(tokens))
    if len({regime(config, count) for count in counts}) > 1:
        raise UserError(
            f"runner={runner} reads contexts of {counts[0]} to {counts[-1]} tokens from one cache, but the rotary "
            "factors of this model change in between (longrope): give lengths on one side of its limit"
        )


def _ropes(config: Any) -> list[dict[str, Any]]:
    """Return the rotary settings of a model, one per kind of layer where they differ."""
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)]
    return nested or [rope]
