"""Run a model whose rows attend as a method answers within a window.

Shape letters: H query heads, G KV heads, R rows, N keys, V value dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from experiments.answers import Answer, TopK
from experiments.cache import Block, Cache, cap_
from experiments.errors import UserError
from experiments.measures.compute import Compute
from experiments.measures.output import output_of
from experiments.measures.own import log_p_of, own_needs, shared_keys
from experiments.models.below import LayersBelow
from experiments.models.earlier import EarlierQueries
from experiments.models.probe import Attention, intercept
from experiments.reference.exact import count_relative
from experiments.rows import check_finite
from experiments.selectors import Selector
from experiments.windows import Needs, Share

BLOCK = 256  # rows at a time: their logits stay in the cache


class LazyRows:
    """What a window rule may ask of a block of rows; what needs more than the visible keys is ranked when asked for."""

    def __init__(
        self,
        logits: Callable[[], Tensor],
        n_R: Tensor,
        compute: Compute,
        sink_R: Tensor | None = None,
        answer: Answer | None = None,
        shared_R: Tensor | None = None,
    ) -> None:
        """Take the rows, a method's answer, and how many keys they keep of those that the heads of a layer share."""
        self._logits = logits
        self._compute = compute
        self._sink_R = sink_R
        self._answer = answer
        self.n_R = n_R
        self.shared_R = shared_R
        self.above_RN: Tensor | None = None  # weights that are 0 but for the keys above the threshold asked for

    def own(self) -> Needs:
        """Return what tells the keys that the method needs by its own estimate."""
        return self if self._answer is None else own_needs(self._answer, self, self._sink_R, self._compute)

    def k_min(self, eta: float) -> Tensor:
        """Return the smallest k whose k most probable keys leave a dropped mass <= eta, per row [R] int64."""
        return self._compute.facts(self._logits(), etas=[eta], sink_R=self._sink_R).k_min(eta)

    def count_above(self, epsilon: float) -> Tensor:
        """Return #{j: p_j > epsilon} per row [R] int64, at least 1; a mask tells, and no row is ranked."""
        if self._sink_R is not None:
            facts = self._compute.facts(self._logits(), epsilons=[epsilon], sink_R=self._sink_R)
            return facts.count_above(epsilon).clamp(min=1)
        k_R, self.above_RN = self._compute.weights_above(self._logits(), epsilon)
        return k_R

    def count_relative(self, factor: float, of_peak: bool) -> Tensor:
        """Return #{j: p_j > factor / n}, or with `of_peak` #{j: p_j / max p > factor / n}, per row [R] int64."""
        return count_relative(self._logits(), self._sink_R, factor, of_peak)


def attend_by(
    model: Any,
    selector: Selector,
    keys_kept: Callable[[LazyRows, Tensor, int, int], Tensor],
    compute: Compute,
    *,
    share: Share | None = None,
    sample: int = 0,
    layers: Collection[int] | None = None,
    kv_heads: Collection[int] | None = None,
    keep_first: int = 0,
    keep_recent: int = 0,
    earlier: EarlierQueries | None = None,
    prompt: int | None = None,
) -> AbstractContextManager[None]:
    """Make every row of `model` attend as a method answers, renormalised.

    Parameters
    ----------
    keys_kept
        Maps a block of rows, their positions [R], the layer and the query head to the number of keys that they keep
        [R] int64, within [1, n].
    share
        How the heads of a layer share its keys; None if they share none.
    sample
        Number of the text, for methods that draw.
    layers
        Layers that do so, the others attend densely; None for all.
    kv_heads
        Likewise KV heads of these layers. Those of the others keep all keys and are not asked about by `keys_kept`.
    keep_first, keep_recent
        Tokens at the start, and up to the row's own, that are kept before all others. They count as keys kept; a row
        with a smaller window keeps all of them.
    earlier
        The queries of what was read before, for methods that look back; those of the passes within are added.
    prompt
        Tokens of the prompt, where several passes go on from it; None if it is all that is read before each pass.

    The method prepares once per KV head and pass. Rows are worked off in blocks against the keys they can see; nothing
    n x n is held.
    """
    below = LayersBelow(selector.traits.layers_below) if selector.traits.layers_below else None

    def attend(attention: Attention) -> Tensor | None:
        if earlier is not None:
            earlier.add(attention)
        if below is not None:
            below.add(attention)
        if layers is not None and attention.layer not in layers:
            return None
        heads, tokens, _ = attention.query_HND.shape
        output_HNV = attention.query_HND.new_empty(heads, tokens, attention.value_GNV.shape[-1], dtype=torch.float32)
        groups = len(attention.key_GND)
        shared_HT = (
            None if share is None else _shared(attention, selector, earlier, below, compute, sample, share, prompt)
        )
        for kv_head in range(groups):
            shared = slice(kv_head * heads // groups, (kv_head + 1) * heads // groups)
            query_HND = attention.query_HND[shared].float() * attention.scale
            check_finite(query_HND, attention.key_GND[kv_head].float(), f"layer {attention.layer}, KV head {kv_head}")
            answering = selector.prepare(cache_of(attention, range(kv_head, kv_head + 1), earlier, below, prompt))
            for start in range(0, tokens, BLOCK):
                stop = min(start + BLOCK, tokens)
                for head in range(shared.start, shared.stop):
                    rows = _Rows(attention, head, start, stop, compute)
                    answer, always_RN = answering(rows.block(sample)), rows.always_kept(keep_first, keep_recent)
                    shared_R = None if shared_HT is None else shared_HT[head, start:stop]
                    facts = LazyRows(rows.logits, rows.n_R, compute, rows.sink_R, answer, shared_R)
                    attends = kv_heads is None or kv_head in kv_heads
                    k_R = keys_kept(facts, rows.position_R, attention.layer, head) if attends else rows.n_R
                    if isinstance(answer, TopK) and always_RN is None and facts.above_RN is not None:
                        weight_RN = facts.above_RN  # the k most probable keys are those above the threshold
                        output_RV = (weight_RN @ rows.value_NV.float()) / weight_RN.sum(-1, keepdim=True)
                    else:
                        try:
                            output_RV = output_of(
                                answer, rows.logits, rows.value_NV, k_R, compute, always_RN, rows.sink_R
                            )
                        except UserError as error:  # of a method's own, which a set of them does not tell
                            raise UserError(f"selector={selector.name}: {error}") from None
                    output_HNV[head, start:stop] = output_RV
        return output_HNV

    return intercept(model, attend)


def _shared(
    attention: Attention,
    selector: Selector,
    earlier: EarlierQueries | None,
    below: LayersBelow | None,
    compute: Compute,
    sample: int,
    share: Share,
    prompt: int | None,
) -> Tensor:
    """Return the keys that each head keeps of those that a layer shares [H, T] for the T rows of a pass.

    All KV heads are prepared at once.
    """
    heads, tokens, _ = attention.query_HND.shape
    groups = len(attention.key_GND)
    answering = [selector.prepare(cache_of(attention, range(g, g + 1), earlier, below, prompt)) for g in range(groups)]

    def of_head(head: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        rows = _Rows(attention, head, start, stop, compute)
        answer = answering[attention.kv_head(head)](rows.block(sample))
        return log_p_of(answer, rows.logits, rows.sink_R).clone(), rows.n_R  # logits are good until the next are made

    of_heads = [partial(of_head, head) for head in range(heads)]
    return shared_keys(of_heads, tokens, attention.key_GND.shape[1], [share])[0]


def cache_of(
    attention: Attention,
    kv_heads: range,
    earlier: EarlierQueries | None,
    below: LayersBelow | None = None,
    prompt: int | None = None,
) -> Cache:
    """Return what a method may prepare from: neighbouring KV heads of a layer, before the queries of its pass."""
    keys, tokens = attention.key_GND.shape[1], attention.query_HND.shape[1]
    shared = len(attention.query_HND) // len(attention.key_GND)
    ends_2 = attention.first + torch.tensor([0, tokens - 1], device=attention.key_GND.device)

    def common() -> Tensor:
        common_N = torch.ones(keys, dtype=torch.bool, device=attention.key_GND.device)
        for kv_head in kv_heads:  # what the first and the last row see, those between see too
            visible_2N = attention.visible(kv_head * shared, ends_2, keys)
            if visible_2N is not None:
                common_N &= visible_2N.all(0)
        return common_N

    return Cache(
        key_GND=attention.key_GND[kv_heads.start : kv_heads.stop],
        value_GNV=attention.value_GNV[kv_heads.start : kv_heads.stop],
        common=common,
        prompt=attention.first if prompt is None else min(prompt, attention.first),
        earlier=None if earlier is None else [earlier.before(attention, kv_head) for kv_head in kv_heads],
        sink_GS=None
        if attention.sink_H is None
        else attention.sink_H.unflatten(0, (-1, shared))[kv_heads.start : kv_heads.stop],
        below=None if below is None else below.rows,
    )


class _Rows:
    """The rows start..stop-1 of one query head of a pass, against the keys that they can see."""

    def __init__(self, attention: Attention, head: int, start: int, stop: int, compute: Compute) -> None:
        self._attention, self._head, self._compute = attention, head, compute
        self._kv_head = attention.kv_head(head)
        self.num_keys = attention.first + (stop if attention.causal else attention.query_HND.shape[1])
        self.query_RD = attention.query_HND[head, start:stop]
        self.position_R = attention.first + torch.arange(start, stop, device=self.query_RD.device)
        self.value_NV = attention.value_GNV[self._kv_head, : self.num_keys]

    @cached_property
    def _visible_RN(self) -> Tensor | None:
        return self._attention.visible(self._head, self.position_R, self.num_keys)

    @cached_property
    def n_R(self) -> Tensor:
        """Keys that each row sees."""
        if self._attention.causal:
            return self.position_R + 1
        return torch.full_like(self.position_R, self.num_keys) if self._visible_RN is None else self._visible_RN.sum(-1)

    @property
    def sink_R(self) -> Tensor | None:
        """Logit of each row's learned sink; None for none."""
        sink_H = self._attention.sink_H
        return None if sink_H is None else sink_H[self._head].expand(len(self.query_RD))

    @cached_property
    def _made_logits(self) -> Tensor:
        query_RD = self.query_RD.float() * self._attention.scale
        key_ND = self._attention.key_GND[self._kv_head, : self.num_keys].float()
        logits_RN = cap_(self._compute.product(query_RD, key_ND), self._attention.softcap)
        if self._attention.causal:
            # Neighbouring rows differ in their last keys alone: no mask as large as the logits is made.
            rows = len(query_RD)
            later_RR = torch.ones(rows, rows, dtype=torch.bool, device=logits_RN.device).triu(1)
            logits_RN[:, self.num_keys - rows :].masked_fill_(later_RR, -torch.inf)
        elif self._visible_RN is not None:
            logits_RN.masked_fill_(~self._visible_RN, -torch.inf)
        return logits_RN

    def logits(self) -> Tensor:
        """Return the scaled, masked logits [R, N] in float32, good until those of the next block are made."""
        return self._made_logits

    def visible(self) -> Tensor:
        """Return which keys each row sees [R, N]."""
        if self._visible_RN is not None:
            return self._visible_RN
        return torch.ones(len(self.query_RD), self.num_keys, dtype=torch.bool, device=self.query_RD.device)

    def always_kept(self, first: int, recent: int) -> Tensor | None:
        """Return which visible keys come before all others [R, N]; None for none."""
        if not first and not recent:
            return None
        key_N = torch.arange(self.num_keys, device=self.position_R.device)
        age_RN = self.position_R[:, None] - key_N
        return ((key_N < first) | ((age_RN >= 0) & (age_RN < recent))) & self.visible()

    def block(self, sample: int) -> Block:
        """Return the rows as a method is asked about them."""
        return Block(
            query_RD=self.query_RD,
            position_R=self.position_R,
            num_keys=self.num_keys,
            visible=self.visible,
            head_R=torch.full_like(self.position_R, self._head),
            layer=self._attention.layer,
            sample=sample,
            scale=self._attention.scale,
            softcap=self._attention.softcap,
        )
