"""The attention of earlier rows, which methods that look back use.

Shape letters besides those of `experiments.cache`: T earlier rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.selectors.interleave import recency

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 256  # earlier rows at a time
MOST_OBSERVED = 4096  # earlier rows that are held together


class ScoresOfRows:
    """Scores of every key for each row, from the attention of the rows before it.

    The scores of the last positions are kept: query heads that share a KV head ask for the same ones.
    """

    def __init__(
        self,
        cache: Cache,
        score: Callable[[int, int], Tensor],
        combine: Callable[[Tensor], Tensor] | None,
    ) -> None:
        """Prepare scores that depend on a KV head and a position.

        Parameters
        ----------
        score
            Maps a KV head and a position to the scores of each query head [S, N].
        combine
            Makes one score [N] of those of all query heads; None if each head goes by its own.
        """
        self._heads = len(cache.key_GND)
        self._score = score
        self._combine = combine
        self._kept: dict[tuple[int, int], Tensor] = {}
        self._last: tuple[Tensor, Tensor, Tensor] | None = None  # positions, visible keys and turns

    def of(self, block: Block) -> Tensor:
        """Return the scores [R, N] of a block's keys."""
        rows_per_head = len(block) // self._heads
        keys_of_rows = [(row // rows_per_head, position) for row, position in enumerate(block.position_R.tolist())]
        if not set(keys_of_rows) <= set(self._kept):
            self._kept = {key: self._combined(*key) for key in sorted(set(keys_of_rows))}
        score_RXN = torch.stack([self._kept[key][..., : block.num_keys] for key in keys_of_rows])
        if self._combine is not None:
            return score_RXN
        return score_RXN[torch.arange(len(block)), block.head_R % score_RXN.shape[1]]

    def turns(self, block: Block, make: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the turns [R, N] that `make` makes of a block's scores.

        They are kept where query heads go by one score, for the next head of the same positions and visible keys.
        """
        if self._combine is None:
            return make(self.of(block))
        asked = block.position_R, block.visible_RN
        if self._last is None or not all(map(torch.equal, asked, self._last)):
            self._last = (*asked, make(self.of(block)))
        return self._last[2]

    def _combined(self, kv_head: int, position: int) -> Tensor:
        score_SN = self._score(kv_head, position)
        return score_SN if self._combine is None else self._combine(score_SN)


class Accumulated:
    """The attention that every key of a KV head has had so far, added up over rows, per query head.

    With `recent` only while it was among so many nearest keys.
    """

    def __init__(self, cache: Cache, kv_head: int, recent: int | None = None) -> None:
        self._cache, self._kv_head, self._recent = cache, kv_head, recent
        self._name = "attention" if recent is None else f"attention while one of {recent}"
        self._done = 0
        self._total_SN: Tensor | None = None

    def before(self, position: int) -> Tensor:
        """Return the attention [S, N] that every key has had from all rows before `position`, float64.

        With `recent` also from later rows, which add nothing to keys that are no longer recent.
        """
        if self._total_SN is None or (self._recent is None and position < self._done):
            self._done, self._total_SN = 0, self._zeros()
            if 0 < self._cache.prompt <= position:
                self._done = self._cache.prompt
                self._total_SN[:, : self._done] = self._cache.of_prompt(self._name, self._kv_head, self._of_prompt)
        self._add(self._total_SN, self._done, position)
        self._done = max(self._done, position)
        return self._total_SN.clone()

    def _of_prompt(self) -> Tensor:
        total_SN = self._zeros()
        self._add(total_SN, 0, self._cache.prompt)
        return total_SN[:, : self._cache.prompt]

    def _zeros(self) -> Tensor:
        shared = self._cache.earlier_rows(self._kv_head, 0, 1).shape[0]
        return torch.zeros(shared, self._cache.num_keys, dtype=torch.float64, device=self._cache.key_GND.device)

    def _add(self, total_SN: Tensor, start: int, stop: int) -> None:
        """Add the attention of the rows at positions start..stop-1."""
        for first in range(start, stop, CHUNK):
            last = min(first + CHUNK, stop)
            seen_STN = self._cache.earlier_rows(self._kv_head, first, last)
            if self._recent is not None:
                old_TN = recency(last, torch.arange(first, last, device=seen_STN.device)) >= self._recent
                seen_STN = seen_STN.masked_fill(old_TN, 0.0)
            total_SN[:, :last] += seen_STN.sum(1, dtype=torch.float64)


class Observed:
    """The attention of the rows just before a position; what is read for one position serves those after it."""

    def __init__(self, cache: Cache, kv_head: int, window: int) -> None:
        self._cache, self._kv_head, self._window = cache, kv_head, window
        self._start = self._stop = 0
        self._seen_STN: Tensor | None = None

    def before(self, position: int) -> Tensor:
        """Return the attention [S, T, position] of the T <= `window` rows just before a position."""
        start = max(position - self._window, 0)
        if self._seen_STN is None or start < self._start or position > self._stop:
            self._start, self._stop = start, max(min(position + CHUNK, self._cache.num_keys), 1)
            self._seen_STN = self._cache.earlier_rows(self._kv_head, self._start, self._stop)
        return self._seen_STN[:, start - self._start : position - self._start, :position]


def by_score(score_RN: Tensor, visible_RN: Tensor) -> Tensor:
    """Return the rank [R, N] of every key by falling scores; ties go to the lower key index.

    Pooled votes tie often: of a sink and its neighbours, the sink is to be first.
    """
    shown_RN = score_RN.masked_fill(~visible_RN, -torch.inf)
    order_RN = shown_RN.argsort(dim=-1, descending=True, stable=True)
    rank_RN = torch.empty_like(order_RN)
    rank_RN.scatter_(1, order_RN, torch.arange(score_RN.shape[1], device=score_RN.device).expand_as(rank_RN))
    return rank_RN.double()
