"""Rows of attention: what every source hands on and every measure receives.

Shape letters, here and in every file of this package: R rows (queries), N keys, D head dimension, V value dimension,
W windows, H query heads, G KV heads, S query heads that share one (in kernels: segments of a ranked row), T earlier
rows, X whatever a function does not tell apart.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from experiments.cache import Below, Block, Cache, Earlier, cap_, log_of_power
from experiments.errors import UserError
from experiments.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """R queries of the heads that share one KV head against the N keys of their context (theory.md section 1).

    Attributes
    ----------
    layer, kv_head, sample, variant, length
        Where the rows come from; `length` is the nominal context length they stand for, in tokens.
    head_R
        Query head of each row, rising; a source gives every head as many rows.
    position_R
        Place of each query in its sequence, counted from 0; also the index of the query's own key.
    query_RD, key_ND, value_NV
        After rotary embedding; keys and values are those of the heads' own KV head (GQA).
    scale
        Factor on the dot products, as the model applies it.
    visible_RN
        True where the query may see the key; None if every query sees every key, or `causal` says which.
    causal
        True if every query sees its own key and those before it.
    earlier
        What was asked before these rows, by all query heads that share these keys (GQA); None where no row comes before
        another.
    power
        None for softmax; p for attention in proportion to |scale q.k|^p, for which sets of keys are known that serve
        all queries (arXiv 2410.05462).
    softcap
        c if the model takes c tanh(logit / c) for every logit, before the mask (Gemma 2); None if it does not.
    sink_S
        Logits of the learned sinks of all query heads that share these keys (gpt-oss): an entry of the row without a
        value, which is no key and which every window keeps. None for none.
    below
        What returns rows of the layers below; None where none are kept.
    """

    layer: int
    head_R: Tensor
    sample: int
    variant: str
    length: int
    position_R: Tensor
    query_RD: Tensor
    key_ND: Tensor
    value_NV: Tensor
    scale: float
    visible_RN: Tensor | None = None
    causal: bool = False
    earlier: Earlier | None = None
    power: float | None = None
    kv_head: int = 0
    softcap: float | None = None
    sink_S: Tensor | None = None
    below: Below | None = None

    def __len__(self) -> int:
        """Return the number of rows R."""
        return self.query_RD.shape[0]

    @property
    def num_keys(self) -> int:
        """The number of keys N, visible or not."""
        return self.key_ND.shape[0]

    @cached_property
    def heads(self) -> list[int]:
        """The query heads, rising."""
        return self.head_R.unique_consecutive().tolist()

    @property
    def n_R(self) -> Tensor:
        """Keys that each row sees."""
        if self.causal:
            return self.position_R + 1
        return torch.full_like(self.position_R, self.num_keys) if self.visible_RN is None else self.visible_RN.sum(-1)

    @property
    def sink_R(self) -> Tensor | None:
        """Logit of each row's learned sink; None for none."""
        return None if self.sink_S is None else self.sink_S[self.head_R % len(self.sink_S)]

    def of_each_head(self) -> list[Rows]:
        """Return the rows of one head after the other."""
        ends = (self.head_R.diff() != 0).nonzero().flatten() + 1
        bounds = [0, *ends.tolist(), len(self)]
        return [self.block(start, stop) for start, stop in itertools.pairwise(bounds)]

    def block(self, start: int, stop: int) -> Rows:
        """Return rows start..stop-1 against the same keys, without copying the keys."""
        return replace(
            self,
            head_R=self.head_R[start:stop],
            position_R=self.position_R[start:stop],
            query_RD=self.query_RD[start:stop],
            visible_RN=None if self.visible_RN is None else self.visible_RN[start:stop],
        )

    def logits(self, out: Tensor | None = None) -> Tensor:
        """Return the scaled, masked logits [R, N] in float32 or better; -inf where a key is not visible.

        They are written into `out` if it is given.

        Raises
        ------
        UserError
            If a logit may not be finite.
        """
        dtype = torch.promote_types(self.query_RD.dtype, torch.float32)
        query_RD, key_ND = self.query_RD.to(dtype) * self.scale, self.key_ND.to(dtype)
        check_finite(query_RD, key_ND, f"layer {self.layer}, head {self.heads[0]}")
        logits_RN = torch.mm(query_RD, key_ND.T, out=out)
        if self.power is not None:
            logits_RN = log_of_power(logits_RN, self.power)
        if self.softcap is not None:
            cap_(logits_RN, self.softcap)
        if self.visible_RN is not None:
            logits_RN.masked_fill_(~self.visible_RN, -torch.inf)
        elif self.causal:
            # no row hides a key before the first row's own: no mask as large as the logits is made
            first = int(self.position_R.min()) + 1
            later_RN = torch.arange(first, self.num_keys, device=logits_RN.device) > self.position_R[:, None]
            logits_RN[:, first:].masked_fill_(later_RN, -torch.inf)
        return logits_RN

    def cache(self) -> Cache:
        """Return the keys and values with all that a method may prepare from."""
        return Cache(
            key_GND=self.key_ND[None],
            value_GNV=self.value_NV[None],
            common=lambda: self.visible().all(0),
            prompt=int(self.position_R.min()),
            earlier=None if self.earlier is None else [self.earlier],
            power=self.power,
            sink_GS=None if self.sink_S is None else self.sink_S[None],
            to_come=self.questions,
            below=self.below,
        )

    def questions(self) -> Block:
        """Return the rows as a method is asked about them."""
        return Block(
            query_RD=self.query_RD,
            position_R=self.position_R,
            num_keys=self.num_keys,
            visible=self.visible,
            head_R=self.head_R,
            layer=self.layer,
            sample=self.sample,
            scale=self.scale,
            power=self.power,
            softcap=self.softcap,
        )

    def visible(self) -> Tensor:
        """Return which keys each query sees [R, N]."""
        if self.visible_RN is not None:
            return self.visible_RN
        if self.causal:
            return torch.arange(self.num_keys, device=self.query_RD.device) <= self.position_R[:, None]
        return torch.ones(len(self), self.num_keys, dtype=torch.bool, device=self.query_RD.device)


def check_finite(query_RD: Tensor, key_ND: Tensor, where: str) -> None:
    """Raise UserError unless every product of these queries and keys is finite, by their norms (Cauchy-Schwarz)."""
    bound = float(query_RD.norm(dim=-1).amax().double() * key_ND.norm(dim=-1).amax().double())
    if not bound < torch.finfo(query_RD.dtype).max:
        raise UserError(
            f"{where}: logits up to {bound:.3g} are not finite in {query_RD.dtype}; give source.dtype=float32, another "
            "checkpoint or a smaller scale"
        )


def check_rows(highest_R: Tensor) -> None:
    """Raise UserError if the largest logit of a row [R] is not finite: it holds NaN or infinity, or sees no key."""
    if not bool(highest_R.isfinite().all()):
        bad = float(highest_R[~highest_R.isfinite()][0])
        what = "a row sees no key" if bad == -torch.inf else f"a row has the logit {bad}"
        raise UserError(f"{what}: no softmax is defined; give source.dtype=float32, or another checkpoint")
