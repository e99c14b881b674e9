"""How a runner of a language model lets it read: which phase, which windows, which methods."""

from __future__ import annotations

from typing import Any

from experiments.errors import UserError
from experiments.lazy import torch
from experiments.machine import Machine
from experiments.selectors import check_in_model, check_prefill, check_weighs
from experiments.selectors.several import each
from experiments.sources import ReadsText
from experiments.windows import Windows

LOGITS = 4  # float32 of every token of a stretch: of a dense pass, of another, and what the loss makes of them
# Seconds of the reference machine's core for one logit of a token that two passes are compared at, mostly for the KL.
COMPARED_SECONDS = 4e-8
PREFILL, DECODE = PHASES = ("prefill", "decode")


def checked_windows(source: Any, windows: Any, runner: str) -> Windows:
    """Return the windows of a runner that runs a model; raise UserError if the source has none."""
    if not isinstance(source, ReadsText):
        raise UserError(f"source={source.name}: runner={runner} needs a language model, e.g. source=smollm2")
    source.check_causal(runner)
    sizes: Any = source
    sizes.batches()
    result: Windows = windows.at(max(sizes.lengths), source.seen_keys)
    return result


def readings(selector: Any, windows: Windows) -> int:
    """Return how often a model reads by methods: within each window, or once where a method has no budget."""
    return sum(len(windows) if method.traits.has_budget else 1 for method in each(selector))


def seconds_of_comparing(source: Any, machine: Machine, tokens: int) -> float:
    """Return what it takes to compare with the dense pass at so many tokens, each of which has the whole vocabulary.

    Of a small model it is most of a pass that reads a few tokens.
    """
    from experiments.models.load import load_config

    return machine.seconds(tokens * load_config(source.located).vocab_size * COMPARED_SECONDS, source.dtype)


def reading_bytes(source: Any, selector: Any, *, cached: bool) -> int:
    """Return the size of what a language model takes beside its weights and activations.

    It keeps of a whole context the queries of every layer and head for methods that look back, and if `cached` the keys
    and values, twice, for they are copied when more is read; and it makes logits over the vocabulary.
    """
    from experiments.models.load import load_config
    from experiments.models.loss import BLOCK
    from experiments.models.shape import head_dim, heads_of_layers, kv_heads_of_layers

    config = load_config(source.located)
    size = torch.finfo(getattr(torch, source.dtype)).bits // 8
    queries = 4 * sum(heads_of_layers(config)) if any(method.traits.looks_back for method in each(selector)) else 0
    cache = 2 * size * sum(kv_heads_of_layers(config)) if cached else 0
    logits = LOGITS * 4 * min(BLOCK, max(source.lengths)) * config.vocab_size
    return 2 * max(source.lengths) * head_dim(config) * (queries + cache) + int(logits)


def check_methods(selector: Any, windows: Windows, phase: str, runner: str, always_kept: int = 0) -> None:
    """Raise UserError if a method has no meaning in a phase or in a window, or keeps no keys where some always are."""
    for method in each(selector):
        check_in_model(method, runner)
        if method.traits.has_budget:
            check_weighs(method, windows)
        if phase == PREFILL:
            check_prefill(method, runner)
        if always_kept and method.traits.estimates:
            raise UserError(
                f"selector={method.name} keeps no keys as such: leave out runner.keep_first and runner.keep_recent"
            )


def check_layers(source: Any, layers: list[int] | None) -> None:
    """Raise UserError if some of the layers that attend within windows are not the model's."""
    if layers is None:
        return
    everything = source.layers_and_heads()[0]
    if bad := [layer for layer in layers if layer not in everything]:
        raise UserError(f"runner.layers has {bad[0]}, but the model has layers {everything[0]}..{everything[-1]}")


def check_decoded(source: Any, decode_tokens: int) -> None:
    """Raise UserError if a length has no more tokens than are decoded of it."""
    if min(source.lengths) <= decode_tokens:
        raise UserError(
            f"source.lengths has {min(source.lengths)}, but runner.decode_tokens={decode_tokens} tokens of it "
            "are decoded: give longer lengths or fewer tokens"
        )
