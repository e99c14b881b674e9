"""Read a prompt, let a press cut its cache, and score the tokens that follow on what is left.

Shape letters: N tokens, H query heads, G KV heads, D head dimension, V value dimension, W width of the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from kvpress import BasePress, attention_patch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from experiments.errors import UserError
from experiments.models.loss import losses_of_states
from experiments.models.probe import Attention, intercept

MASKED = -100.0  # largest logit of a masked key, less that of the query's own key: however many there are, without mass


def pressed_cache(model: Any, prompt_N: Tensor, press: BasePress | None) -> DynamicCache:
    """Return the cache of a prompt after `press` has cut it, or whole if there is none."""
    cache = DynamicCache()
    with torch.inference_mode(), press(model) if press else nullcontext():
        model.model(input_ids=prompt_N[None], past_key_values=cache)
    return cache


def keys_kept(cache: DynamicCache) -> list[int]:
    """Return how many keys each layer holds for each of its KV heads."""
    return [layer.keys.shape[2] for layer in cache.layers]


def losses_on(model: Any, cache: DynamicCache, token_N: Tensor, first: int) -> Tensor:
    """Return -ln p of tokens 1..N-1 that follow a prompt, each given those before it and the cache, in nats [N - 1].

    All are decoded in one pass, which adds them to the cache; where keys are masked, in as few as kvpress can mask in.

    Parameters
    ----------
    cache
        Of the prompt that was read last, for kvpress keeps with the model which keys of it are masked.
    token_N
        The tokens after the prompt.
    first
        The position of the first of them. The cache is shorter than the prompt was, so transformers cannot know it.

    Raises
    ------
    UserError
        If keys are masked, and kvpress finds no key that the queries of one token leave alone.
    """
    return losses_of_states(model, states_on(model, cache, token_N[:-1], first), token_N)[0]


def states_on(model: Any, cache: DynamicCache, token_N: Tensor, first: int) -> Tensor:
    """Return the last hidden states [N, W] of tokens that follow a prompt; see `losses_on`."""
    layers = model.model.layers
    masked = any(getattr(layer.self_attn, "masked_key_indices", None) is not None for layer in layers)
    if not masked:
        with intercept(model, _attend):
            return _pass(model, cache, token_N, first)
    # kvpress masks within transformers' own attention, whose one mask is right: a masked cache keeps its length.
    held, states, start, step = keys_kept(cache)[0], [], 0, len(token_N)
    with _masking(model):
        while start < len(token_N):
            try:
                states.append(_pass(model, cache, token_N[start : start + step], first + start))
            except UserError:
                if step == 1:
                    raise
                cache.crop(held + start)  # layers before the one that failed have this pass's keys
                step //= 2
            else:
                start += step
    return torch.cat(states)


def _pass(model: Any, cache: DynamicCache, token_N: Tensor, first: int) -> Tensor:
    position_N = torch.arange(first, first + len(token_N))
    with torch.inference_mode():
        asked = {"past_key_values": cache, "position_ids": position_N[None]}
        return model.model(input_ids=token_N[None], **asked).last_hidden_state[0]


@contextmanager
def _masking(model: Any) -> Iterator[None]:
    """Refuse a pass in which keys that kvpress masks would be attended to.

    In their place it puts one key whose product with each query of a KV head and pass is negative. It looks no
    further: the product may be so small that these keys have mass. A query's own key is never masked, so that a
    logit far below that of its own key has none.
    """
    search, name = attention_patch.search_hyperplane, model.config._attn_implementation
    attend = ALL_ATTENTION_FUNCTIONS[name]
    of_layer: dict[str, Any] = {}  # at hand: the scale of its logits, and each query's logit of its own key

    def attending(
        module: Any, query_1HND: Tensor, key_1GND: Tensor, *given: Any, scaling: float, **options: Any
    ) -> Any:
        heads, queries = query_1HND.shape[1:3]
        own_1HND = key_1GND[:, :, -queries:].repeat_interleave(heads // key_1GND.shape[1], dim=1)
        own_GN = ((query_1HND * own_1HND).sum(-1) * scaling).reshape(key_1GND.shape[1], -1)
        of_layer.update(scale=scaling, own_GN=own_GN)
        return attend(module, query_1HND, key_1GND, *given, scaling=scaling, **options)

    def checked(query_GND: Tensor, *options: Any) -> Tensor:
        """Return kvpress's key for each KV head [G, D] of the queries of its heads [G, N, D]."""
        try:
            key_GD = search(query_GND, *options)
            logit_GN = (query_GND @ key_GD[:, :, None]).squeeze(-1) * of_layer["scale"]
            above = float((logit_GN - of_layer["own_GN"]).max())
        except ValueError:  # it found none
            above = math.inf
        if above > MASKED:
            raise UserError(
                f"kvpress finds no key that {query_GND.shape[1]} queries leave alone, by which it masks keys (its "
                f"largest logit less that of a query's own key is {above:.3g}, not under {MASKED:g}): compare ratios "
                "per layer"
            )
        return key_GD

    attention_patch.search_hyperplane, ALL_ATTENTION_FUNCTIONS[name] = checked, attending
    try:
        yield
    finally:
        attention_patch.search_hyperplane, ALL_ATTENTION_FUNCTIONS[name] = search, attend


def _attend(attention: Attention) -> Tensor:
    """Attend causally to the end of the layer's own keys.

    transformers makes one mask for all layers, of the length of the first layer's cache; here each has its own.
    """
    queries, keys = attention.query_HND.shape[1], attention.key_GND.shape[1]
    seen_NN = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    output_1HNV = scaled_dot_product_attention(
        attention.query_HND[None],
        attention.key_GND[None],
        attention.value_GNV[None],
        attn_mask=seen_NN,
        scale=attention.scale,
        enable_gqa=True,
    )
    return output_1HNV[0]
