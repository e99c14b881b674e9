"""An order of keys by whole tiles of neighbours, each by one score.

Shape letters besides those of `experiments.cache`: P tiles, L keys of one, M tiles kept, K keys kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from experiments.answers import Kept, Subset
from experiments.cache import Block
from experiments.lazy import torch
from experiments.selectors.interleave import ranks, recency

if TYPE_CHECKING:
    from torch import Tensor


def whole_tiles(block: Block, size: int, score: Callable[[], Tensor], estimate: Callable[[Tensor], Tensor]) -> Subset:
    """Return the row's own tile, nearest key first, then whole tiles by falling scores, the latest key of each first.

    Parameters
    ----------
    size
        Keys of a tile; tiles start at multiples of it.
    score
        Returns a score of every tile [R, P], the last one not whole. Of the own tile and of later ones it is not used.
    estimate
        Makes of the scores what the method takes for the logarithm of the probability of each key of a tile.
    """

    def turn() -> Tensor:
        key_N = torch.arange(block.num_keys, device=block.query_RD.device)
        tile_N, own_R1 = key_N // size, block.own_R1 // size
        # of equal scores the latest tile is first
        rank_RP = ranks(score().flip(-1).argsort(dim=-1, descending=True, stable=True)).flip(-1)
        within_RN = torch.where(tile_N > own_R1, key_N % size, size - 1 - key_N % size)
        near_RN = recency(block.num_keys, block.position_R).long()
        turn_RN = torch.where(tile_N == own_R1, near_RN, (rank_RP[:, tile_N] + 2) * size + within_RN)
        return turn_RN.masked_fill_(~block.visible_RN, torch.iinfo(torch.int64).max)

    def log_p() -> Tensor:
        """Return the estimates of whole tiles for each of their keys; the own tile's keys are kept anyway."""
        tile_N = torch.arange(block.num_keys, device=block.query_RD.device) // size
        log_p_RN = estimate(score())[:, tile_N].masked_fill(tile_N == block.own_R1 // size, torch.inf)
        return log_p_RN.masked_fill_(~block.visible_RN, -torch.inf)

    def first(k: int) -> Kept:
        """Return the first keys of rows that see every key, of which the last is their own."""
        device, own = block.query_RD.device, (block.num_keys - 1) // size
        own_N = torch.arange(block.num_keys - 1, own * size - 1, -1, device=device)
        within_L = torch.arange(size - 1, -1, -1, device=device)
        wanted = min(max(-(-(k - len(own_N)) // size), 0), own)
        tile_RM = score()[:, :own].topk(wanted, sorted=True).indices
        kept_RK = (tile_RM[..., None] * size + within_L).flatten(1)
        return Kept(torch.cat([own_N.expand(len(block), -1), kept_RK], dim=1)[:, :k])

    return Subset.by_turn(turn, quick_first=first, log_p=log_p)


def tiles_of(tensor: Tensor, size: int, dim: int, fill: Tensor) -> Tensor:
    """Return a tensor with its keys [..., N, ...] dealt into tiles [..., P, L, ...]; `fill` fills up the last one."""
    missing = -tensor.shape[dim] % size
    shape = list(tensor.shape)
    shape[dim] = missing
    return torch.cat([tensor, fill.expand(shape)], dim=dim).unflatten(dim, (-1, size))
