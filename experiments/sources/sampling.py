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


def check_causal_rows(lengths: list[int], rows: int) -> None:
    """Raise UserError if a length has fewer positions than rows are asked for."""
    if min(lengths) < rows:
        raise UserError(
            f"source.rows={rows} exceeds the shortest length {min(lengths)}: "
            "the rows of a length are its last positions, so give fewer rows or a longer length"
        )


def causal_positions(length: int, rows: int) -> Tensor:
    """Return the positions [R] int64 that stand for `length`: the last R ones, so that n = position + 1 [T8]."""
    return torch.arange(length - rows, length)
