"""The door of every runner that runs a language model: it is loaded, tried on a few tokens, and refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from experiments.errors import UserError
from experiments.models.context import Context
from experiments.models.load import CAUSAL, check_causal, load_config, load_model
from experiments.models.loss import check_head
from experiments.models.positions import check_one_regime
from experiments.models.probe import LayerRows, check_watchable, forward, same_values, watch
from experiments.models.visible import check_seen

TRIAL_TOKENS = 12


def open_language_model(
    source: Any, device: torch.device, token_N: Tensor, contexts: Iterable[Iterable[int]], runner: str, *, cached: bool
) -> Any:
    """Return the causal language model of a source, with its head.

    Parameters
    ----------
    token_N
        Tokens to try it on.
    contexts
        Numbers of tokens that share one cache, for each cache.
    runner
        Name of the runner, for messages.
    cached
        True if the runner reads on from a cache.

    Raises
    ------
    UserError
        By the model's name, if it is not causal, not every layer can be watched, its logits are not made of its last
        hidden states, or its positions differ between contexts that share a cache.
    """
    check_causal(source.located, runner)
    config = load_config(source.located)
    for tokens in contexts:
        check_one_regime(config, tokens, runner)
    model = load_model(source.located, getattr(torch, source.dtype), device, CAUSAL)
    trial_N = token_N[:TRIAL_TOKENS]
    if not check_watchable(model, trial_N):
        raise UserError(
            f"{type(model).__name__}: its rows see later tokens, so it is no causal language model; runner={runner} "
            "needs one, runner=approximation measures it"
        )
    check_seen(model, token_N[: max(source.lengths)], source.seen_keys)
    check_head(model, trial_N)
    if cached:
        check_cache(model, trial_N)
    return model


def check_kv_heads(model: Any, expected: Sequence[int]) -> None:
    """Raise UserError unless each layer has as many KV heads as its configuration says, before any is asked alone."""
    seen: list[int] = []
    with watch(model, lambda attention: seen.append(len(attention.key_GND))):
        forward(model, torch.zeros(2, dtype=torch.long))
    if seen != list(expected):
        layer = next((i for i, (one, other) in enumerate(zip(seen, expected, strict=False)) if one != other), 0)
        raise UserError(
            f"{type(model).__name__}: layer {layer} has {seen[layer]} KV heads, but its config.json says "
            f"{expected[layer]}; which heads share keys is not known, so that none is measured alone"
        )


def check_cache(model: Any, token_N: Tensor) -> None:
    """Raise UserError unless a token that is read from a cache has the rows that it has when all is read at once."""
    whole: list[LayerRows] = []
    step: list[LayerRows] = []
    with watch(model, lambda attention: whole.append(LayerRows.of(attention))):
        forward(model, token_N)
    context = Context(model)
    context.read(token_N[:-1])
    with watch(model, lambda attention: step.append(LayerRows.of(attention))):
        context.read(token_N[-1:])
    same = len(step) == len(whole) and all(
        decoded.agrees(together.row_HRN[:, -1:], compare_values=same_values(model, layer))
        for layer, (decoded, together) in enumerate(zip(step, whole, strict=True))
    )
    if not same:
        raise UserError(
            f"{type(model).__name__}: a token that is read from a cache of keys and values has other rows than in one "
            "pass, so that decoding is not measured; runner.phase=prefill may be"
        )
