"""What it costs a model to read by methods within windows, tried on a model of random weights and few heads.

The trial has the heads of one KV head of the real model, of its dimension, in as few layers as the methods need, and
runs through the very code that measures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from numba.core.event import install_recorder
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from experiments.errors import UserError
from experiments.machine import Machine
from experiments.models.context import Context
from experiments.models.load import load_config
from experiments.models.probe import forward
from experiments.models.reading import Reading
from experiments.models.shape import head_dim, heads_of_layers, kv_heads_of_layers
from experiments.selectors import Selector
from experiments.windows import Windows

# Most tokens of a trial; seconds grow as the keys that are read.
CONTEXT, PREFILLED, DECODED = 4096, 1024, 256
WARM_UP = 48  # tokens, on which the kernels are compiled
VOCABULARY = 64
LOGIT_STD = 2.0  # about that of a real head: windows that go by the row are then of some keys, and not of all


def seconds_of_readings(
    source: Any, methods: Sequence[Selector], windows: Windows, machine: Machine, *, length: int, tokens: int
) -> float:
    """Return the seconds of attention that all methods take within all windows, in all layers, for one text.

    Parameters
    ----------
    length
        Tokens of the context.
    tokens
        How many of the last ones are read by the methods, after a context that was read densely; `length` of a prefill.

    Raises
    ------
    UserError
        If a method cannot read within a window.
    """
    config = load_config(source.located)
    groups = kv_heads_of_layers(config)
    layers = 1 + max(method.traits.layers_below for method in methods)
    model = _model(layers, max(heads_of_layers(config)[0] // groups[0], 1), head_dim(config), length)
    model.to(machine.device)
    prefill = tokens == length
    ends, weights = _ends(windows)
    for method in methods:
        with suppress(UserError):  # a window of so few keys may be below what the method needs
            _trial(
                model, [method], ends, weights, machine, min(WARM_UP, length), min(WARM_UP, length) if prefill else 1
            )

    def took(most: int, read: int) -> float:
        with install_recorder("numba:compile") as compiled:
            seconds = _trial(model, methods, ends, weights, machine, most, read)
        if compiled.buffer:  # kernels that fewer tokens did not ask for: compiled once, and not in every reading
            seconds = _trial(model, methods, ends, weights, machine, most, read)
        return seconds

    def seconds(most: int) -> float:
        if not prefill:
            read = min(tokens, DECODED, most - 1)
            return length / most * (tokens / read) * took(most, read)
        whole = took(most, most)
        if most == length:
            return whole
        # What grows as the tokens, and what as their square, by a trial of half as many.
        half = took(most // 2, most // 2)
        of_square = min(max(2 * whole - 4 * half, 0.0), whole)
        return of_square * (length / most) ** 2 + (whole - of_square) * length / most

    try:
        tried = seconds(min(length, PREFILLED if prefill else CONTEXT))
    except UserError:  # windows that are a share of the context may be large enough in the whole of it alone
        tried = seconds(length)
    return tried * sum(groups) / layers / machine.cores


def _trial(
    model: Any,
    methods: Sequence[Selector],
    windows: Windows,
    weights: Sequence[float],
    machine: Machine,
    length: int,
    tokens: int,
) -> float:
    """Return the seconds of one core, or of the card, that the model's layers take; a window counts as its weight."""
    token_N = torch.arange(length, device=machine.device) % VOCABULARY
    reading, context = Reading(model, methods, windows), Context(model)
    if tokens == length:
        through = partial(_read, model, token_N)
    else:
        reading.prompt(length, partial(context.read, token_N[: length - tokens]))
        through = partial(context.states, token_N[length - tokens :])
    clock = time.process_time if machine.device.type == "cpu" else time.perf_counter
    weight_of = dict(zip((tuple(name.values()) for name in windows.names()), weights, strict=True))
    total, start = 0.0, clock()
    for name, *_ in reading.by_methods(0, length, through):
        total += weight_of.get(tuple(name.values())[1:], 1.0) * (clock() - start)
        start = clock()
    return total


def _ends(windows: Windows) -> tuple[Windows, list[float]]:
    """Return the first and the last window of each rule, and how many windows each stands for."""
    ends = [list(dict.fromkeys([*part[:1], *part[-1:]])) for part in windows.coordinates]
    weights = [len(part) / len(kept) for part, kept in zip(windows.coordinates, ends, strict=True) for _ in kept]
    return Windows(windows.rules, ends), weights


def _model(layers: int, heads: int, dim: int, length: int) -> Any:
    dim += dim % 2  # which rotary embedding asks for
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=heads * dim,
        intermediate_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=1,
        head_dim=dim,
        max_position_embeddings=length,
        initializer_range=(LOGIT_STD / (heads * dim)) ** 0.5,  # queries and keys of so much variance
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaModel(config).eval()


def _read(model: Any, token_N: Tensor) -> Tensor:
    return forward(model, token_N)[0]
