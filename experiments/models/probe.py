"""Look at the queries, keys and values of every attention layer while a model runs its ordinary fused attention.

transformers hands them to whatever is registered under the model's attention name, after rotary embedding. We register
a function that lets an observer look and then calls `sdpa_attention_forward`, so the model's outputs are those of plain
sdpa to the last bit. A layer that hides keys of a long context attends a block of rows at a time, whose masks are made
then: nothing n x n exists. Soft-capped logits and learned sinks, which sdpa does not
know, are attended to here, a block of rows at a time.

Shape letters: H query heads, G KV heads, N tokens, D head dimension, V value dimension, R rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface

from experiments.cache import cap_, softmax
from experiments.errors import UserError
from experiments.models.masks import LateMask, attend_in_blocks, late_mask
from experiments.models.tiles import tiled

SOFTCAP = "softcap"
SINKS = ("s_aux", "sinks")  # what models call the logits of learned sinks, one of each query head
BLOCK = 256  # rows that are attended to at once where sdpa does not
NAME = "watched"  # a name with "sdpa" in it is refused by models that declare no sdpa support

# Arguments that a layer may hand over besides: they say what the mask, or the queries and keys, hold already, or
# what is to be returned. Whatever else is given may change the row, so it is refused by its name.
PLAIN = {
    "is_causal",
    "sliding_window",
    "position_ids",
    "cache_position",
    "position_embeddings",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "return_dict",
    "use_cache",
    "deterministic",
}
EAGER_GAP = 0.02  # in probability, beyond what rounding of the logits explains
# What these make of a row is not softmax(scale QK^T + mask), which this project measures.
MEANINGS = {
    "s_aux": "learned sinks of another shape than one a head",
    "sinks": "learned sinks of another shape than one a head",
    "position_bias": "a position bias",
    "cache": "a paged cache",
    "indices": "an index of the keys that are kept",
    "block_indices": "an index of the blocks that are kept",
}


@dataclass(frozen=True)
class Attention:
    """One layer's attention, as the model computes it for one sequence.

    Attributes
    ----------
    model
        Name of the model's class.
    layer
        Index of the layer.
    query_HND, key_GND, value_GNV
        After rotary embedding; H query heads share G KV heads, H / G each. With a cache there are more keys than
        queries, and the queries are those of the last keys.
    scale
        Factor on the dot products.
    causal
        True if a query sees its own key and those before it, and `mask` is None.
    mask
        Boolean or additive mask [1 or H, queries, keys] as handed to sdpa, or one that is made by rows; None if it is
        causal or full.
    softcap
        c if every logit becomes c tanh(logit / c) before the mask (Gemma 2); None if none does.
    sink_H
        Logits of the learned sinks (gpt-oss): an entry of each row of a head that has no value and is no key; None for
        none.
    """

    model: str
    layer: int
    query_HND: Tensor
    key_GND: Tensor
    value_GNV: Tensor
    scale: float
    causal: bool
    mask: Tensor | None
    softcap: float | None = None
    sink_H: Tensor | None = None

    @property
    def first(self) -> int:
        """The position of the first query: the number of keys that a cache held before."""
        return int(self.key_GND.shape[1] - self.query_HND.shape[1])

    def kv_head(self, head: int) -> int:
        """Return the KV head that serves query head `head`."""
        return head // (self.query_HND.shape[0] // self.key_GND.shape[0])

    def sinks_of(self, kv_head: int) -> Tensor | None:
        """Return the logits of the learned sinks of the query heads that share a KV head [H / G]; None for none."""
        return None if self.sink_H is None else self.sink_H.view(len(self.key_GND), -1)[kv_head]

    @property
    def masks(self) -> int:
        """How many masks there are: one of each head, or one of all."""
        return 1 if self.mask is None or isinstance(self.mask, LateMask) else len(self.mask)

    def visible(self, head: int, position_R: Tensor, keys: int) -> Tensor | None:
        """Return which of the first `keys` keys the queries at `position_R` see [R, keys], None if all.

        Raises
        ------
        UserError
            If the mask adds numbers to the logits instead of hiding keys.
        """
        if self.mask is None:
            key_N = torch.arange(keys, device=position_R.device)
            return key_N <= position_R[:, None] if self.causal else None
        if isinstance(self.mask, LateMask):
            return self.mask.rows(position_R - self.first, slice(keys))
        mask_RN = self.mask[min(head, self.mask.shape[0] - 1)][position_R - self.first, :keys]
        if mask_RN.dtype == torch.bool:
            return mask_RN
        shown_RN = mask_RN == 0
        if not bool((shown_RN | (mask_RN <= torch.finfo(mask_RN.dtype).min / 2)).all()):
            raise UserError(f"{self.model}: layer {self.layer} adds a bias to its logits, which is not measured")
        return shown_RN

    def sees_later_keys(self) -> bool:
        """Say whether a query sees a key that comes after its own."""
        if self.mask is None:
            return not self.causal and self.query_HND.shape[1] > 1
        queries, keys = self.query_HND.shape[1], self.key_GND.shape[1]
        position_R = self.first + torch.arange(queries, device=self.key_GND.device)
        later_RN = torch.arange(keys, device=position_R.device) > position_R[:, None]
        seen = (self.visible(head, position_R, keys) for head in range(self.masks))
        return any(bool((later_RN & visible_RN).any()) for visible_RN in seen if visible_RN is not None)


class _ObserverError(Exception):
    """What an observer has raised within a forward pass, which is not the model's fault; its cause says what."""


@contextmanager
def intercept(model: Any, attend: Callable[[Attention], Tensor | None]) -> Iterator[None]:
    """Hand each attention layer of a forward pass of `model` inside the context to `attend`.

    What `attend` returns, [H, N, V], is taken as the layer's output; if it returns None, the layer attends as plain
    sdpa does. Both interfaces get the name: without a mask function of its own, transformers would silently drop the
    padding and sliding-window masks.

    Raises
    ------
    UserError
        From the forward pass, if a layer's attention is not plain softmax, or a query, key or value is not finite.
    """
    unnumbered = itertools.count()  # layers that carry no index of their own come in order

    def layer_attention(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        **extra: Any,
    ) -> tuple[Tensor, None]:
        layer = getattr(module, "layer_idx", None)
        layer = next(unnumbered) if layer is None else int(layer)
        softcap, sink_H = _cap_and_sinks(query.shape[1], extra)
        known = PLAIN | ({SOFTCAP} if softcap is not None else set()) | (set(SINKS) if sink_H is not None else set())
        if unknown := sorted(name for name in set(extra) - known if extra[name] is not None):
            what = MEANINGS.get(unknown[0], f"an argument that is not known here, {unknown[0]}")
            raise UserError(f"{_name(model)}: layer {layer} has {what}, which is not plain softmax attention")
        _check_finite(model, layer, query, key, value)
        late = attention_mask if isinstance(attention_mask, LateMask) else None
        if attention_mask is not None and late is None:
            attention_mask = attention_mask.expand(-1, -1, query.shape[2], -1)
        declared = extra.get("is_causal")
        causal = getattr(module, "is_causal", True) if declared is None else declared
        attention = Attention(
            model=_name(model),
            layer=layer,
            query_HND=query[0],
            key_GND=key[0],
            value_GNV=value[0],
            scale=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
            causal=bool(causal) and attention_mask is None,
            mask=None if attention_mask is None else attention_mask[0] if late is None else late,
            softcap=softcap,
            sink_H=sink_H,
        )
        try:
            output_HNV = attend(attention)
        except Exception as error:
            raise _ObserverError from error
        if output_HNV is None and (softcap is not None or sink_H is not None):
            output_HNV = attend_densely(attention)
        if output_HNV is not None:
            return output_HNV.transpose(0, 1)[None].to(query.dtype).contiguous(), None

        def attend_plainly(*block: Tensor | None) -> Tensor:
            return sdpa_attention_forward(module, *block, scaling=scaling, dropout=dropout, **extra)[0]

        if late is not None:
            return attend_in_blocks(attend_plainly, late, query, key, value), None
        return attend_plainly(query, key, value, attention_mask), None

    before = model.config._attn_implementation
    AttentionInterface.register(NAME, layer_attention)
    AttentionMaskInterface.register(NAME, late_mask)
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def watch(model: Any, look: Callable[[Attention], None]) -> AbstractContextManager[None]:
    """Let `look` see each attention layer while the model attends as plain sdpa does; see `intercept`."""

    def attend(attention: Attention) -> None:
        look(attention)

    return intercept(model, attend)


def check_watchable(model: Any, token_N: Tensor) -> bool:
    """Run a few tokens to see that every layer can be watched; return whether the model is causal.

    A model is causal if no query of any layer sees a later key. That is read off the layers' masks and flags, not
    tried out with other tokens: hidden states that are rounded or hardly move would tell nothing.

    Raises
    ------
    UserError
        By the model's name, if not every layer calls the attention interface exactly once, over all the tokens, or the
        rows that are seen there are not those of the model's own eager attention.
    """
    layers: list[int] = []
    causal: list[bool] = []
    seen: list[LayerRows] = []

    def look(attention: Attention) -> None:
        tokens = attention.query_HND.shape[1], attention.key_GND.shape[1], attention.value_GNV.shape[1]
        if set(tokens) != {len(token_N)}:
            raise UserError(
                f"{_name(model)}: layer {attention.layer} attends to {tokens[1]} keys where {len(token_N)} tokens are "
                "read; such a model cannot be measured"
            )
        layers.append(attention.layer)
        causal.append(not attention.sees_later_keys())
        seen.append(LayerRows.of(attention))

    with watch(model, look):
        forward(model, token_N)
    expected = model.config.get_text_config().num_hidden_layers
    if layers != list(range(expected)):
        raise UserError(
            f"{_name(model)}: {len(layers)} attention calls of {len(set(layers))} layers, where {expected} layers "
            "should call once each; this model does not go through transformers' attention interface and cannot be "
            "measured"
        )
    eager = _eager_rows(model, token_N)
    for index, layer in enumerate(seen if len(eager) == expected else []):
        if not layer.agrees(eager[index], compare_values=same_values(model, index)):
            raise UserError(
                f"{_name(model)}: rows of layer {index} are not those of the model's own eager attention; it does more "
                "than softmax over what the attention interface is given, and cannot be measured"
            )
    return all(causal)


def _cap_and_sinks(heads: int, extra: dict[str, Any]) -> tuple[float | None, Tensor | None]:
    """Return the soft cap and the logits of learned sinks [H] that a layer hands over; None for what it has not.

    What has not the shape of one logit a head, or of one number, is left to be refused as it is.
    """
    softcap = extra.get(SOFTCAP)
    cap = float(softcap) if isinstance(softcap, int | float) and softcap > 0 else None
    sinks = [extra[name] for name in SINKS if extra.get(name) is not None]
    is_sink = len(sinks) == 1 and isinstance(sinks[0], Tensor) and sinks[0].numel() == heads
    return cap, sinks[0].detach().flatten() if is_sink else None


def logits_of(attention: Attention, kv_head: int, start: int, stop: int) -> Tensor:
    """Return the scaled, capped, masked logits of some queries of the heads that share a KV head [H / G, R, N].

    Parameters
    ----------
    start, stop
        Of the queries of this pass, from 0.

    They are in float32 or better, -inf where a key is not visible.
    """
    shared = len(attention.query_HND) // len(attention.key_GND)
    heads = range(kv_head * shared, (kv_head + 1) * shared)
    keys = attention.key_GND.shape[1]
    dtype = torch.promote_types(attention.query_HND.dtype, torch.float32)
    query_SRD = attention.query_HND[heads.start : heads.stop, start:stop].to(dtype) * attention.scale
    logits_SRN = cap_(query_SRD @ attention.key_GND[kv_head].to(dtype).T, attention.softcap)
    position_R = attention.first + torch.arange(start, stop, device=logits_SRN.device)
    for index, head in enumerate(heads):
        visible_RN = attention.visible(head, position_R, keys)
        if visible_RN is not None:
            logits_SRN[index].masked_fill_(~visible_RN, -torch.inf)
    return logits_SRN


def attend_densely(attention: Attention) -> Tensor:
    """Return the outputs [H, N, V] of a layer with its soft cap and learned sinks, over all keys that it sees."""
    queries, outputs = attention.query_HND.shape[1], []
    for kv_head, value_NV in enumerate(attention.value_GNV):
        sink_S = attention.sinks_of(kv_head)
        blocks = []
        for start in range(0, queries, BLOCK):
            logits_SRN = logits_of(attention, kv_head, start, min(start + BLOCK, queries))
            row_SRN = softmax(logits_SRN, None if sink_S is None else sink_S[:, None])
            blocks.append(row_SRN @ value_NV.to(row_SRN.dtype))
        outputs.append(torch.cat(blocks, dim=1))
    return torch.cat(outputs)


@dataclass(frozen=True)
class LayerRows:
    """The rows of a layer that reads a few tokens, which keys they see, and by how much rounding moves them.

    Queries R against keys N: with a cache there are fewer.
    """

    row_HRN: Tensor
    visible_HRN: Tensor
    rounding: float

    @classmethod
    def of(cls, attention: Attention) -> LayerRows:
        """Return the rows of one layer in float32."""
        queries, groups = attention.query_HND.shape[1], len(attention.key_GND)
        logits_HRN = torch.cat([logits_of(attention, kv_head, 0, queries) for kv_head in range(groups)]).float()
        visible_HRN = ~torch.isneginf(logits_HRN)
        row_HRN = softmax(logits_HRN, None if attention.sink_H is None else attention.sink_H[:, None])
        largest = float(logits_HRN[visible_HRN].abs().max())
        return cls(row_HRN, visible_HRN, torch.finfo(attention.query_HND.dtype).eps * largest)

    def agrees(self, other_HRN: Tensor, compare_values: bool) -> bool:
        """Say whether other rows are the same, or at least have no mass where no key is seen."""
        if other_HRN.shape != self.row_HRN.shape:
            return False
        hidden_mass = float((other_HRN * ~self.visible_HRN).sum(-1).max())
        gap = float((other_HRN - self.row_HRN).abs().max()) if compare_values else 0.0
        return hidden_mass <= EAGER_GAP and gap <= EAGER_GAP + 4 * self.rounding


def same_values(model: Any, layer: int) -> bool:
    """Say whether the rows of a layer have the same values in two passes that compute the same otherwise.

    In half precision the queries and keys of later layers are rounded otherwise in each, but see the same keys.
    """
    return layer == 0 or model.dtype in (torch.float32, torch.float64)


def _eager_rows(model: Any, token_N: Tensor) -> list[Tensor]:
    """Return the rows [H, N, N] of every layer as the model's own eager attention has them; none if it keeps none."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        rows = run(model, token_N, output_attentions=True).attentions
    finally:
        model.set_attn_implementation(before)
    return [layer[0].float() for layer in rows or () if layer is not None]


def body(model: Any) -> Any:
    """Return the part of a model that turns tokens into hidden states, without its head."""
    return model.base_model if model.base_model is not model else getattr(model, "model", model)


def forward(model: Any, token_N: Tensor) -> Tensor:
    """Run one sequence and return the last hidden states [1, N, width].

    Raises
    ------
    UserError
        By the model's name, if it does not run on tokens alone.
    """
    return run(model, token_N).last_hidden_state


def run(model: Any, token_N: Tensor, *, use_cache: bool = False, **options: Any) -> Any:
    """Run one sequence and return what the model's body does; see `forward`."""
    try:
        with torch.inference_mode(), tiled(model, len(token_N)):
            output = body(model)(input_ids=token_N[None].to(model.device), use_cache=use_cache, **options)
        output.last_hidden_state  # noqa: B018  what has none is no model of tokens
        return output
    except _ObserverError as error:
        raise error.__cause__ or error from None
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # models fail in many ways on what they are not made for
        if "memory" in str(error):
            raise
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
        raise UserError(
            f"{_name(model)}: does not run on {len(token_N)} tokens ({reason}); models of text alone are measured"
        ) from error


def _check_finite(model: Any, layer: int, query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise UserError if a query is not finite, or one of the keys and values that came with them."""
    new = query.shape[2]  # what a cache held before was seen when it came
    for what, tensor in (("queries", query), ("keys", key[:, :, -new:]), ("values", value[:, :, -new:])):
        if not bool(torch.stack(torch.aminmax(tensor)).isfinite().all()):  # one pass: either is NaN if a number is
            raise UserError(
                f"{_name(model)}: layer {layer} has {what}, and so logits, that are not finite in {tensor.dtype}; give "
                "source.dtype=float32 or bfloat16, or another checkpoint"
            )


def _name(model: Any) -> str:
    return type(model).__name__
