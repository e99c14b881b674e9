"""What a method of attention may look at: keys and values of a context, what was asked of them, and a block of rows.

Shape letters besides those of `experiments.rows`: G KV heads, S query heads that share one (H = G S), T earlier rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Earlier:
    """What was asked of a KV head, by the S query heads that share it.

    Attributes
    ----------
    logits
        Maps positions start, stop to the scaled, masked logits [S, stop - start, stop] of the queries there.
    queries
        Maps positions start, stop to the queries there, times the scale [S, stop - start, D].
    kept
        What was made of the rows before a position, and that position, by the name of what it is; it holds for every
        pass that reads on from there.
    """

    logits: Callable[[int, int], Tensor]
    queries: Callable[[int, int], Tensor]
    kept: dict[str, tuple[int, Tensor]] = field(default_factory=dict)


Below = Callable[[int, "Tensor", "Tensor"], "Tensor | None"]
"""Maps a layer, query heads [R] that share a KV head and positions [R] to their attention [R, N] there; None if it
is not kept."""


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
    sink_GS
        Logits of the learned sinks of the query heads that share each KV head; None for none.
    to_come
        Returns all rows to come, for floors that no method can have; None where they are not known.
    below
        Returns rows of the layers below; None where none are kept.
    """

    key_GND: Tensor
    value_GNV: Tensor
    common: Callable[[], Tensor]
    prompt: int
    earlier: Sequence[Earlier] | None = None
    power: float | None = None
    sink_GS: Tensor | None = None
    to_come: Callable[[], Block] | None = None
    below: Below | None = None

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
        logits_STN = self.earlier[kv_head].logits(start, stop)
        if self.power is not None:
            hidden_STN = torch.isneginf(logits_STN)
            logits_STN = log_of_power(logits_STN, self.power).masked_fill_(hidden_STN, -torch.inf)
        return softmax(logits_STN, None if self.sink_GS is None else self.sink_GS[kv_head, :, None])

    def of_prompt(self, name: str, kv_head: int, make: Callable[[], Tensor]) -> Tensor:
        """Return what `make` makes of one KV head's rows before the prompt's end [..., prompt], once for all passes."""
        if self.earlier is None:
            return make()
        kept = self.earlier[kv_head].kept
        if name not in kept or kept[name][0] != self.prompt:
            kept[name] = (self.prompt, make())
        return kept[name][1]

    def earlier_queries(self, kv_head: int, start: int, stop: int) -> Tensor:
        """Return the scaled queries [S, stop - start, D] at positions start..stop-1 of one KV head.

        Raises
        ------
        UserError
            If no row comes before another, as in an encoder.
        """
        if self.earlier is None:
            raise UserError(NO_EARLIER_ROWS)
        return self.earlier[kv_head].queries(start, stop)

    def check_no_learned_sink(self, selector: str) -> None:
        """Raise UserError, naming the selector, if rows have a learned sink."""
        if self.sink_GS is not None:
            raise UserError(
                f"selector={selector}: it estimates whole rows, and says nothing of a learned sink, which this model "
                f"has; leave it out of a set with ~selector.parts.{selector}, or give one that keeps keys"
            )


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
    softcap
        As of `experiments.rows.Rows`.
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
    softcap: float | None = None

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

    def check_dot_products(self, selector: str) -> None:
        """Raise UserError, naming the selector, if logits are not the scaled dot products themselves."""
        if self.power is not None or self.softcap is not None:
            what = "this model caps them softly" if self.power is None else f"runner.score_power={self.power:g}"
            raise UserError(
                f"selector={selector}: its state is made for logits that are dot products, and {what}; leave it out of "
                f"a set with ~selector.parts.{selector}"
            )

    def logits(self, cache: Cache) -> Tensor:
        """Return the scaled, masked logits [R, N] in float32 or better; -inf where a key is not visible."""
        dtype = torch.promote_types(self.query_RD.dtype, torch.float32)
        query_GSD = (self.query_RD.to(dtype) * self.scale).unflatten(0, (len(cache.key_GND), -1))
        logits_RN = (query_GSD @ cache.key_GND[:, : self.num_keys].to(dtype).mT).flatten(0, 1)
        if self.power is not None:
            logits_RN = log_of_power(logits_RN, self.power)
        return cap_(logits_RN, self.softcap).masked_fill_(~self.visible_RN, -torch.inf)


def log_of_power(product: Tensor, power: float) -> Tensor:
    """Return ln |product|^power; log(0) = -inf, so the product is clamped to the smallest normal float."""
    return power * product.abs().clamp_(min=torch.finfo(product.dtype).tiny).log_()


def cap_(logits: Tensor, softcap: float | None) -> Tensor:
    """Cap logits softly, c tanh(logit / c) (Gemma 2, arXiv 2408.00118); None caps nothing.

    In place, unless they have gradients.
    """
    if softcap is None:
        return logits
    if logits.requires_grad:  # the gradient of tanh needs what it returned
        return softcap * (logits / softcap).tanh()
    return logits.div_(softcap).tanh_().mul_(softcap)


def softmax(logits_XN: Tensor, sink_X: Tensor | None) -> Tensor:
    """Return the probabilities of keys, which sum to less than 1 by the mass of a learned sink.

    Parameters
    ----------
    logits_XN
        -inf where a key is not visible.
    sink_X
        Logits of learned sinks, which broadcast against the rows; None for none.
    """
    if sink_X is None:
        return torch.softmax(logits_XN, dim=-1)
    sink_X1 = sink_X.to(logits_XN.dtype).expand(logits_XN.shape[:-1])[..., None]
    return torch.softmax(torch.cat([logits_XN, sink_X1], dim=-1), dim=-1)[..., :-1]
