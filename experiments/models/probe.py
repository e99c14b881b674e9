"""Look at the queries, keys and values of every attention layer while a model runs its ordinary fused attention.

transformers hands them to whatever is registered under the model's attention name, after rotary embedding. We register
a function that lets an observer look and then calls `sdpa_attention_forward`, so the model's outputs are those of plain
sdpa to the last bit and nothing n x n exists on our account.
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
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from experiments.errors import UserError

NAME = "watched"  # a name with "sdpa" in it is refused by models that declare no sdpa support

# What these add is not softmax(scale QK^T + mask), the row that this project measures.
NOT_PLAIN = {
    "softcap": "soft-capped logits",
    "s_aux": "learned sinks",
    "position_bias": "a position bias",
    "cache": "a paged cache",
}


@dataclass(frozen=True)
class Attention:
    """One layer's attention, as the model computes it for one sequence.

    Attributes
    ----------
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
        Boolean or additive mask [1 or H, queries, keys] as handed to sdpa; None if it is causal or full.
    """

    layer: int
    query_HND: Tensor
    key_GND: Tensor
    value_GNV: Tensor
    scale: float
    causal: bool
    mask: Tensor | None

    @property
    def first(self) -> int:
        """The position of the first query: the number of keys that a cache held before."""
        return int(self.key_GND.shape[1] - self.query_HND.shape[1])

    def kv_head(self, head: int) -> int:
        """Return the KV head that serves query head `head`."""
        return head // (self.query_HND.shape[0] // self.key_GND.shape[0])

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
        mask_RN = self.mask[min(head, self.mask.shape[0] - 1)][position_R - self.first, :keys]
        if mask_RN.dtype == torch.bool:
            return mask_RN
        shown_RN = mask_RN == 0
        if not bool((shown_RN | (mask_RN <= torch.finfo(mask_RN.dtype).min / 2)).all()):
            raise UserError(f"layer {self.layer} adds a bias to its logits: such attention is not measured")
        return shown_RN


@contextmanager
def intercept(model: Any, attend: Callable[[Attention], Tensor | None]) -> Iterator[None]:
    """Hand each attention layer of a forward pass of `model` inside the context to `attend`.

    What `attend` returns, [H, N, V], is taken as the layer's output; if it returns None, the layer attends as plain
    sdpa does. Both interfaces get the name: without a mask function of its own, transformers would silently drop the
    padding and sliding-window masks.

    Raises
    ------
    UserError
        From the forward pass, if a layer's attention is not plain softmax.
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
        for name, what in NOT_PLAIN.items():
            if extra.get(name) is not None:
                raise UserError(
                    f"{type(model).__name__}: layer {layer} has {what}, which is not plain softmax attention"
                )
        declared = extra.get("is_causal")
        causal = getattr(module, "is_causal", True) if declared is None else declared
        output_HNV = attend(
            Attention(
                layer=layer,
                query_HND=query[0],
                key_GND=key[0],
                value_GNV=value[0],
                scale=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
                causal=bool(causal) and attention_mask is None,
                mask=None if attention_mask is None else attention_mask[0],
            )
        )
        if output_HNV is not None:
            return output_HNV.transpose(0, 1)[None].to(query.dtype).contiguous(), None
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **extra
        )

    before = model.config._attn_implementation
    AttentionInterface.register(NAME, layer_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
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

    Causality is tried out, not read off a flag: in a causal model the last token changes no earlier state.

    Raises
    ------
    UserError
        By the model's name, if not every layer calls the attention interface exactly once.
    """
    layers: list[int] = []
    last = int(token_N[-1])
    changed_N = token_N.clone()
    changed_N[-1] = last - 1 if last else 1
    with watch(model, lambda attention: layers.append(attention.layer)):
        states = forward(model, token_N)
    expected = model.config.get_text_config().num_hidden_layers
    if layers != list(range(expected)):
        raise UserError(
            f"{type(model).__name__}: {len(layers)} attention calls for {expected} layers; "
            "this model does not go through transformers' attention interface and cannot be measured"
        )
    return torch.allclose(states[:, :-1], forward(model, changed_N)[:, :-1], rtol=1e-3, atol=1e-4)


def forward(model: Any, token_N: Tensor) -> Tensor:
    """Run one sequence and return the last hidden states [1, N, width]."""
    with torch.inference_mode():
        output = model.base_model(input_ids=token_N[None].to(model.device), use_cache=False)
    return output.last_hidden_state
