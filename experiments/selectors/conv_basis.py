"""Convolution bases (after arXiv 2405.05219): a causal matrix as a sum of few Toeplitz blocks.

Shape letters besides those of `experiments.cache`: B bases, T lags, M columns of a base.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Estimate
from experiments.cache import Block, Cache
from experiments.errors import UserError
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits

if TYPE_CHECKING:
    from torch import Tensor

MODES = ("search", "best")
MOST_BEST = 512  # keys, for starts that are found in O(n^3)
MOST_LAGS = 4096
SAMPLED_COLUMNS = 256  # whose distances from their neighbours set the threshold of the search


@dataclass
class ConvBasis:
    """Let every key copy, lag by lag, the logits of the nearest base at or before it, and take the softmax of those.

    A base is a start s; its kernel holds the exact products of key s with the queries from s on. Row i gives key j the
    logit that query s + i - j gave key s. `search` finds starts as the paper does: the next is the first whose first
    `lags` logits differ from the present kernel's by a threshold, found by bisection, which supposes that columns
    between two starts agree. `best` are the starts of the least squared error of the matrix, by dynamic programming in
    O(n^3), to 512 keys: the floor of the method. A window of k keys has k bases. It looks at the queries of all
    positions up to the row's; kernels take b n d once, a row then about b logits, and all rows together FFTs of
    O(b n V log n).
    """

    name: str = "conv_basis"
    mode: str = "search"
    lags: int = 16
    quantile: float = 0.25
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"selector.mode={self.mode}: choose {' or '.join(MODES)}")
        check_range("selector.lags", self.lags, least=1, most=MOST_LAGS)
        check_range("selector.quantile", self.quantile, least=0, most=1)

    @property
    def traits(self) -> Traits:
        """It is refreshed by every key: a row's starts are found from the queries up to its own."""
        return Traits(estimates=True, looks_back=True, looks_at_query=True, flops=_flops)

    def prepare(self, cache: Cache) -> Answering:
        """Return the rows; what the search compares is computed once for all of them."""
        cache.check_no_learned_sink(self.name)
        asked = [Asked(cache, kv_head, self.lags) for kv_head in range(len(cache.key_GND))]

        def answer(block: Block) -> Estimate:
            block.check_dot_products(self.name)
            if self.mode == "best" and block.num_keys > MOST_BEST:
                raise UserError(f"selector.mode=best finds its starts among at most {MOST_BEST} keys: give search")
            per_head = len(block) // len(asked)
            parts = [slice(g * per_head, (g + 1) * per_head) for g in range(len(asked))]

            @lru_cache(maxsize=2)
            def starts(most: int) -> list[Tensor]:
                return [self._starts(asked[g], block, rows, most) for g, rows in enumerate(parts)]

            def row(k_R: Tensor, logsumexp_R: Tensor) -> Tensor:
                budgets = [int(k) for k in k_R.tolist()]
                largest = max(budgets)  # of a search, fewer starts are the first of more
                found = {most: starts(most) for most in (set(budgets) if self.mode == "best" else [largest])}
                w_RN = torch.full((len(block), block.num_keys), -torch.inf, dtype=torch.float64, device=k_R.device)
                for r, k in enumerate(budgets):
                    g = r // per_head
                    start_B = found[k if self.mode == "best" else largest][g][r - g * per_head, :k]
                    own = int(block.own_R1[r])
                    query_D = block.query_RD[r].double() * block.scale
                    columns = asked[g].of_head(int(block.head_R[r]), own, query_D)
                    w_RN[r, : own + 1] = copied_row(columns, start_B, own)
                w_RN.masked_fill_(~block.visible_RN, -torch.inf)
                return (w_RN - logsumexp_R[:, None]).exp()

            return Estimate(row)

        return answer

    def _starts(self, asked: Asked, block: Block, rows: slice, most: int) -> Tensor:
        """Return the starts [R, most] of the bases of some rows; a start beyond a row's own key is none."""
        own_R = block.own_R1[rows, 0]
        if self.mode == "search":
            return asked.searched_starts(block.head_R[rows], own_R + 1, most, self.quantile)
        start_RB = own_R.new_full((len(own_R), most), block.num_keys)
        for r, own in enumerate(own_R.tolist()):
            query_D = block.query_RD[rows][r].double() * block.scale
            found = best_starts(asked.of_head(int(block.head_R[rows][r]), own, query_D), most)
            start_RB[r, : len(found)] = torch.tensor(found)
        return start_RB

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k: a row has as many logits and, of sums over values between starts, as many values."""
        return k


def _flops(n: Tensor, k: Tensor, head_dim: int, value_dim: int) -> Tensor:
    """Return the multiply-adds of a row: three FFTs of length 2 n per base and value over n rows, and b logits."""
    k = k.minimum(n)
    return 3 * k * (value_dim + 1) * (2 * n).log2() + k * head_dim


class OfHead:
    """The logits of one query head, column by column, up to a position; of float64."""

    def __init__(self, query_ND: Tensor, key_ND: Tensor) -> None:
        self.query_ND, self.key_ND = query_ND, key_ND

    def kernel(self, start: int) -> Tensor:
        """Return the logits of key `start` with the queries from it on [keys - start]."""
        return self.query_ND[start:] @ self.key_ND[start]


class Asked:
    """The queries and keys of a KV head up to any position, and what the search compares of them."""

    def __init__(self, cache: Cache, kv_head: int, lags: int) -> None:
        self._cache, self._kv_head, self._lags = cache, kv_head, lags
        self._key_ND = cache.key_GND[kv_head].double()

    @cached_property
    def _query_SND(self) -> Tensor:
        return self._cache.earlier_queries(self._kv_head, 0, self._cache.num_keys).double()

    @cached_property
    def _first_SNT(self) -> Tensor:
        """The first logits of every column that has as many."""
        columns = max(self._cache.num_keys - self._lags + 1, 0)
        if not columns:
            return self._query_SND.new_zeros(len(self._query_SND), 0, self._lags)
        window_SNDT = self._query_SND.unfold(1, self._lags, 1)
        return torch.einsum("sndt,nd->snt", window_SNDT, self._key_ND[:columns])

    def of_head(self, head: int, own: int, own_D: Tensor) -> OfHead:
        """Return the columns of a query head up to a position, at which the query is `own_D`, times the scale."""
        query_ND = torch.cat([self._query_SND[head % len(self._query_SND), :own], own_D[None]])
        return OfHead(query_ND, self._key_ND[: own + 1])

    def searched_starts(self, head_R: Tensor, keys_R: Tensor, most: int, quantile: float) -> Tensor:
        """Return the starts [R, most] that a search by bisection finds, all rows at once; one beyond all keys is none.

        Parameters
        ----------
        quantile
            Of the distances of neighbouring columns: the threshold at which a new base begins.
        """
        beyond, head_R = self._cache.num_keys, head_R % len(self._query_SND)
        start_RB = keys_R.new_full((len(keys_R), most), beyond)
        start_RB[:, 0] = 0
        last_R = keys_R - self._lags - 1  # the last column whose lags all lie before the row's own query
        if len(self._first_SNT[0]) and int(last_R.max()) > 0:
            apart_SN = (self._first_SNT[:, 1:] - self._first_SNT[:, :-1]).abs().sum(-1)
            spread_X = torch.linspace(0, 1, SAMPLED_COLUMNS, dtype=torch.float64, device=keys_R.device)
            at_RX = (spread_X * (last_R - 1).clamp(min=0)[:, None]).round().long()
            threshold_R = apart_SN[head_R[:, None], at_RX].quantile(quantile, dim=1)
            self._bisect(start_RB, head_R, last_R, threshold_R)
        every_R = most >= keys_R
        return torch.where(every_R[:, None], torch.arange(most, device=keys_R.device), start_RB)

    def _bisect(self, start_RB: Tensor, head_R: Tensor, last_R: Tensor, threshold_R: Tensor) -> None:
        """Fill in the starts after the first."""
        here_R, open_R = start_RB[:, 0], last_R > 0

        def differs(column_R: Tensor) -> Tensor:
            column_R = column_R.clamp(min=0, max=self._first_SNT.shape[1] - 1)
            apart_RT = self._first_SNT[head_R, column_R] - self._first_SNT[head_R, here_R]
            return apart_RT.abs().sum(-1) >= threshold_R

        for b in range(1, start_RB.shape[1]):
            low_R, high_R = here_R + 1, last_R
            for _ in range(self._cache.num_keys.bit_length()):
                middle_R = (low_R + high_R).div(2, rounding_mode="floor")
                found_R = differs(middle_R)
                busy_R = low_R < high_R
                high_R = torch.where(busy_R & found_R, middle_R, high_R)
                low_R = torch.where(busy_R & ~found_R, middle_R + 1, low_R)
            open_R = open_R & (low_R <= last_R) & differs(low_R)
            if not bool(open_R.any()):
                return
            start_RB[:, b] = torch.where(open_R, low_R, start_RB[:, b])
            here_R = torch.where(open_R, low_R, here_R)


def copied_row(columns: OfHead, start_B: Tensor, own: int) -> Tensor:
    """Return the logits [own + 1] that the last row has where every key copies its base lag by lag.

    `start_B` ascends; starts beyond the row's own key have no part in it.
    """
    key_N = torch.arange(own + 1, device=start_B.device)
    start_N = start_B[torch.searchsorted(start_B, key_N, right=True) - 1]
    return (columns.query_ND[start_N + own - key_N] * columns.key_ND[start_N]).sum(-1)


def best_starts(columns: OfHead, most: int) -> list[int]:
    """Return the `most` starts of the least squared error of the weights over the whole triangle (dynamic programming).

    A base at s serves the columns s to t - 1; its error is added up over their entries. O(n^3 + b n^2).
    """
    logits_NN = columns.query_ND @ columns.key_ND.T
    n = len(logits_NN)
    causal_NN = torch.ones(n, n, dtype=torch.bool, device=logits_NN.device).tril()
    lse_N = logits_NN.masked_fill(~causal_NN, -torch.inf).logsumexp(-1)
    p_NN = (logits_NN - lse_N[:, None]).exp().masked_fill(~causal_NN, 0.0)
    cost_NN = torch.full((n, n + 1), torch.inf, dtype=torch.float64)  # of columns s..t-1 by base s
    row_N = torch.arange(n, device=logits_NN.device)
    for start in range(n):
        kernel_T = columns.kernel(start)
        lag_NM = row_N[:, None] - row_N[None, start:]  # i - j
        copied_NM = kernel_T[lag_NM.clamp(min=0, max=n - 1 - start)]
        seen_NM = (lag_NM >= 0) & (lag_NM < n - start)
        w_NM = (copied_NM - lse_N[:, None]).exp().masked_fill(~seen_NM, 0.0)
        cost_NN[start, start + 1 :] = (w_NM - p_NN[:, start:]).square().sum(0).cumsum(0).cpu()
    least_N, chosen = cost_NN[0, 1:].clone(), []  # of columns 0..t-1 with one base
    for _ in range(1, min(most, n)):
        # the last base starts at s, and the columns before it have one base fewer
        total_NN = least_N[:-1, None] + cost_NN[1:, 1:]
        smallest_N, start_N = total_NN.min(0)
        chosen.append(start_N + 1)
        least_N = smallest_N
    starts, stop = [], n
    for start_N in reversed(chosen):
        starts.append(int(start_N[stop - 1]))
        stop = starts[-1]
    return [0, *reversed(starts)]
