"""One order of keys from several patterns, so that a mixed pattern has a meaning at every budget k.

Shape letters besides those of `experiments.rows`: M keys but the own one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from experiments.lazy import torch
from experiments.ranges import check_range

if TYPE_CHECKING:
    from torch import Tensor

NEVER = float("inf")  # the place of a key that a pattern does not have
TIE = 1e-9
LEAST_SHARE, MOST_SHARE = 1e-9, 1e3  # turns far apart would be lost beside the ties


def interleave(patterns: Sequence[tuple[float, Tensor]], visible_RN: Tensor) -> Tensor:
    """Return the turn [R, N] of every key where the patterns take turns, each in proportion to its share.

    Parameters
    ----------
    patterns
        Share and places [R, N] of each: 0 for the key that it takes first, NEVER for those it has not. The last
        pattern has every key.
    visible_RN
        Keys that a row can see; the others come last.
    """
    # Of equal turns the earlier pattern's is first.
    turns = [(place_RN + 1) / share + i * TIE for i, (share, place_RN) in enumerate(patterns)]
    turn_RN = reduce(torch.minimum, turns)
    return turn_RN.masked_fill_(~visible_RN, NEVER)


def check_share(key: str, share: float) -> None:
    """Raise UserError unless a pattern's share leaves turns that can be told apart."""
    check_range(key, share, least=LEAST_SHARE, most=MOST_SHARE)


def recency(block_keys: int, position_R: Tensor) -> Tensor:
    """Return the distance [R, N] of every key from its row's own, the place of a key in a sliding window."""
    key_N = torch.arange(block_keys, device=position_R.device)
    return (position_R[:, None] - key_N).abs().double()


def only(place_RN: Tensor, where_RN: Tensor) -> Tensor:
    """Return the places of the keys of a pattern, counted anew among themselves in the order of `place_RN`."""
    among_RN = place_RN.masked_fill(~where_RN, NEVER)
    return ranks(among_RN.argsort(dim=-1, stable=True)).double().masked_fill(~where_RN, NEVER)


def ranks(order_RN: Tensor) -> Tensor:
    """Return the place [R, N] of every key in an order."""
    rank_N = torch.arange(order_RN.shape[1], device=order_RN.device)
    return torch.empty_like(order_RN).scatter_(1, order_RN, rank_N.expand_as(order_RN))


def own_first(order_RN: Tensor, position_R: Tensor) -> Tensor:
    """Return the order with each row's own key moved to the front; rows of no position own the last key.

    Shape letters: M keys but the row's own.
    """
    own_R1 = position_R.clamp(max=order_RN.shape[1] - 1)[:, None]
    at_R1 = (order_RN == own_R1).int().argmax(-1, keepdim=True)
    place_M = torch.arange(order_RN.shape[1] - 1, device=order_RN.device)
    return torch.cat([own_R1, order_RN.gather(1, place_M + (place_M >= at_R1))], dim=1)
