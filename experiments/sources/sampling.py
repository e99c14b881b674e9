"""Checks and choices that every source shares: which lengths, and which rows of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.errors import UserError
from experiments.lazy import torch
from experiments.ranges import MOST_KEYS, check_range

if TYPE_CHECKING:
    from torch import Tensor

MOST_SAMPLES = 1_000_000


def check_sampling(lengths: list[int], rows: int, samples: int) -> None:
    """Raise UserError unless lengths, rows per length and samples can be measured."""
    if not lengths:
        raise UserError("source.lengths is empty: give context lengths in keys, such as [1024,4096]")
    check_range("source.lengths", lengths, least=1, most=MOST_KEYS)
    if len(set(lengths)) < len(lengths):
        raise UserError(f"source.lengths={lengths} names a length twice: name each once")
    check_range("source.rows", rows, least=1, most=MOST_KEYS)
    check_range("source.samples", samples, least=1, most=MOST_SAMPLES)


def stride_of(stride: int | None, lengths: list[int], rows: int) -> int:
    """Return how far apart the rows of a length are: as given, or so that they span an eighth of the shortest length.

    Neighbouring rows answer alike: sixteen of them are worth five or six that lie apart.
    """
    return max(min(lengths) // (8 * rows), 1) if stride is None else stride


def check_causal_rows(lengths: list[int], rows: int, stride: int | None) -> None:
    """Raise UserError if the rows of a length begin before its first position."""
    check_range("source.stride", stride, least=1, most=MOST_KEYS)
    distance = stride_of(stride, lengths, rows)
    if min(lengths) <= (rows - 1) * distance:
        apart = "" if distance == 1 else f", {distance} apart"
        raise UserError(
            f"source.rows={rows}{apart}: the rows of a length are its last positions, and the shortest length "
            f"{min(lengths)} has fewer; give fewer rows{'' if distance == 1 else ', a smaller source.stride'} or a "
            "longer length"
        )


def check_runs(runs: list[int], lengths: list[int]) -> None:
    """Raise UserError unless runs of consecutive rows can end at the last position of each length."""
    check_range("source.runs", runs, least=1, most=MOST_KEYS)
    if runs and max(runs) > min(lengths):
        raise UserError(
            f"source.runs has {max(runs)} rows, but the shortest length is {min(lengths)}: give shorter runs or longer "
            "lengths"
        )


def causal_positions(length: int, rows: int, stride: int) -> Tensor:
    """Return the positions [R] int64 that stand for `length`: the last one, and those before it, `stride` apart.

    A row sees its own key and those before it, so that n = position + 1 [T8].
    """
    return torch.arange(rows - 1, -1, -1) * -stride + length - 1
