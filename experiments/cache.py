"""What a method of attention may look at: keys and values of a context, what was asked of them, and a block of rows.

Shape letters besides those of `experiments.rows`: G KV heads, S query heads that share one (H = G S), T earlier rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from experiments.errors import UserError
from experiments.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

NO_EARLIER_ROWS = (
    "a selector that goes by earlier rows needs a causal source, and an encoder has none: choose another "
    "source, or leave the selector out of a set with ~selector.parts.NAME"
)

Earlier = Callable[[int, int], "Tensor"]
"""Maps positions start, stop to the scaled, masked dot products [S, stop - start, stop] of the queries there."""


@dataclass(frozen=True)
class Cache:
    """Keys and values of G KV heads over one context, from which a method prepares once.

    Attributes
    ----------
    key_GND, value_GNV
        After rotary embedding.
    common
        Returns `common_N`, which few methods ask for.
    prompt
        Position of the first row to come: the keys before it are the prompt's.
    earlier
        Per KV head, what was asked before any position by the S query heads that share it; None where no row comes
        before another, as in an encoder.
    power
        None for softmax; p for attention in proportion to |scale q.k|^p.
    """

    key_GND: Tensor
    value_GNV: Tensor
    common: Callable[[], Tensor]
    prompt: int
    earlier: Sequence[Earlier] | None = None
    power: float | None = None

    @property
    def num_keys(self) -> int:
        """The number of keys N, visible or not."""
        return self.key_GND.shape[1]

    @cached_property
    def common_N(self) -> Tensor:
        """True for keys that every row to come sees."""
        return self.common()

    def earlier_rows(self, kv_head: int, start: int, stop: int) -> Tensor:
        """Return the attention [S, stop - start, stop] of the rows at positions start..stop-1 of one KV head.

        Raises
        ------
        UserError
            If no row comes before another, as in an encoder.
        """
        if self.earlier is None:
            raise UserError(NO_EARLIER_ROWS)
        logits_STN = self.earlier[kv_head](start, stop)
        if self.power is not None:
            hidden_STN = torch.isneginf(logits_STN)
            logits_STN = log_of_power(logits_STN, self.power).masked_fill_(hidden_STN, -torch.inf)
        return torch.softmax(logits_STN, dim=-1)


@dataclass(frozen=True)
class Block:
    """R rows to answer, those of one KV head side by side, R / G each, against the first N keys of a cache.

    Attributes
    ----------
    query_RD
        After rotary embedding.
    position_R
        Place of each query in its sequence, from 0; also the index of its own key.
    num_keys
        The number of keys N, visible or not.
    visible
        Returns `visible_RN`, which the most probable keys are found without.
    head_R
        Query head of each row.
    layer, sample
        Where the rows come from.
    scale
        Factor on the dot products.
    power
        As of `Cache`.
    """

    query_RD: Tensor
    position_R: Tensor
    num_keys: int
    visible: Callable[[], Tensor]
    head_R: Tensor
    layer: int
    sample: int
    scale: float
    power: float | None = None

    def __len__(self) -> int:
        """Return the number of rows R."""
        return self.query_RD.shape[0]

    @cached_property
    def visible_RN(self) -> Tensor:
        """True where the row sees the key."""
        return self.visible()

    @property
    def n_R(self) -> Tensor:
        """Keys that each row sees."""
        return self.visible_RN.sum(-1)

    @property
    def own_R1(self) -> Tensor:
        """Each row's own key; a row that stands beyond the keys owns the last."""
        return self.position_R.clamp(max=self.num_keys - 1)[:, None]

    def logits(self, cache: Cache) -> Tensor:
        """Return the scaled, masked logits [R, N] in float32 or better; -inf where a key is not visible."""
        dtype = torch.promote_types(self.query_RD.dtype, torch.float32)
        query_GSD = (self.query_RD.to(dtype) * self.scale).unflatten(0, (len(cache.key_GND), -1))
        logits_RN = (query_GSD @ cache.key_GND[:, : self.num_keys].to(dtype).mT).flatten(0, 1)
        if self.power is not None:
            logits_RN = log_of_power(logits_RN, self.power)
        return logits_RN.masked_fill_(~self.visible_RN, -torch.inf)


def log_of_power(product: Tensor, power: float) -> Tensor:
    """Return ln |product|^power; log(0) = -inf, so the product is clamped to the smallest normal float."""
    return power * product.abs().clamp_(min=torch.finfo(product.dtype).tiny).log_()
