"""The language runner: what a model's next-token loss becomes when every layer attends within its windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table
from torch import Tensor

from experiments.errors import UserError
from experiments.machine import Machine
from experiments.plan import PROCESS_BYTES, Plan
from experiments.ranges import MOST_KEYS, check_range
from experiments.records.folder import Record
from experiments.runners import Findings
from experiments.schema import Job
from experiments.selectors import Selector
from experiments.sources import Source
from experiments.windows import Windows

DENSE = "dense"
PREFILL, DECODE = PHASES = ("prefill", "decode")
QUARTERS = 4
SPARSE_OVER_DENSE = 2.0  # seconds of a pass within windows over those of a plain one: 1.5 of a prefill, more decoding
LOSS_BYTES = 12  # of a line of losses.parquet


@dataclass
class Language:
    """Read each text sample densely and within each window, and record the loss of every token.

    The windows are the oracle's: each row of a layer attends to its most probable keys alone, renormalised. In the
    phase `prefill` the whole sample is read so, in one pass, each row within its own context. In the phase `decode`
    the text is read densely, and only the last `decode_tokens` tokens of each length attend within their windows to
    what is cached: what generation would see. Every number is labelled with its phase.
    """

    phase: str = PREFILL
    decode_tokens: int = 256
    layers: list[int] | None = None
    keep_first: int = 0
    keep_recent: int = 0
    name: str = "language"

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise UserError(f"runner.phase={self.phase}: choose {' or '.join(PHASES)}")
        check_range("runner.decode_tokens", self.decode_tokens, least=2, most=MOST_KEYS)
        check_range("runner.keep_first", self.keep_first, least=0, most=MOST_KEYS)
        check_range("runner.keep_recent", self.keep_recent, least=0, most=MOST_KEYS)
        check_range("runner.layers", self.layers, least=0)
        if self.layers is not None and not self.layers:
            raise UserError("runner.layers is empty: give the layers that attend within windows, or null for all")

    def groups(self, source: Source, windows: Any) -> int:
        """Return how often `run` will call `advance`: once per pass."""
        if self.phase == DECODE and min(source.lengths) <= self.decode_tokens:
            raise UserError(
                f"source.lengths has {min(source.lengths)}, but runner.decode_tokens={self.decode_tokens} tokens of it "
                "are decoded: give longer lengths or fewer tokens"
            )
        lengths = len(source.lengths) if self.phase == DECODE else 1
        return source.samples * lengths * (1 + len(checked_windows(source, windows, self.name)))

    def plan(self, job: Job, machine: Machine) -> Plan:
        """Return what a job costs; seconds follow from the source's estimate of a plain forward pass."""
        self.groups(job.source, job.windows)  # refuses what cannot be run
        windows = checked_windows(job.source, job.windows, self.name)
        longest, samples = max(job.source.lengths), job.source.samples
        tokens = longest - 1 if self.phase == PREFILL else len(job.source.lengths) * self.decode_tokens
        passes = SPARSE_OVER_DENSE * len(windows) * (1.0 if self.phase == PREFILL else tokens / longest)
        return Plan(
            rows=samples * tokens,
            windows=len(windows),
            seconds=job.source.seconds() * (1 + passes),
            memory_bytes=PROCESS_BYTES + job.source.resident_bytes(),
            disk_bytes=samples * tokens * (1 + len(windows)) * LOSS_BYTES,
        )

    def run(
        self,
        source: Any,
        selector: Selector,
        windows: Any,
        machine: Machine,
        seed: int,
        record: Record,
        advance: Callable[[], None],
    ) -> None:
        """Measure the losses of every sample, densely and within every window.

        Raises
        ------
        UserError
            If the source is no causal language model, or the selector is not the oracle.
        """
        from experiments.models.context import Context
        from experiments.models.language_model import open_language_model
        from experiments.models.loss import token_losses
        from experiments.models.windowed import densely, within

        asked = checked_windows(source, windows, self.name)
        check_oracle(selector, self.name)
        layers = self._checked_layers(source)
        documents = source.documents(seed)
        decoded = [n - m for n in source.lengths for m in (0, self.decode_tokens)]
        cached = self.phase == DECODE
        contexts = [decoded] if cached else [[max(source.lengths)]]
        model = open_language_model(source, machine.device, documents[0], contexts, self.name, cached=cached)

        def measure(sample: int, length: int, first: int, read: Callable[[], Tensor]) -> None:
            with densely(model, length) as seen:
                losses_N = read()
            record.losses.append(_lines(asked, None, sample, self.phase, length, first, losses_N, seen.mean()))
            advance()
            for w in range(len(asked)):
                with within(
                    model, asked, w, length, layers=layers, keep_first=self.keep_first, keep_recent=self.keep_recent
                ) as kept:
                    losses_N = read()
                record.losses.append(_lines(asked, w, sample, self.phase, length, first, losses_N, kept.mean()))
                advance()

        for sample, token_N in enumerate(documents):
            if self.phase == PREFILL:
                measure(sample, len(token_N), 0, partial(token_losses, model, token_N))
                continue
            context = Context(model)
            context.read(token_N[: len(token_N) - self.decode_tokens])
            for length in sorted(source.lengths, reverse=True):
                first = length - self.decode_tokens
                context.forget(first)
                measure(sample, length, first, partial(_decoded, context, token_N[first:length]))

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of perplexities, whole and by quarters of the context."""
        losses = pd.read_parquet(folder / "losses.parquet")
        length, phase = int(losses["length"].max()), losses["phase"].iloc[0]
        losses = losses[losses["length"] == length]
        first = losses["position"].min()
        losses = losses.assign(quarter=(losses["position"] - first) * QUARTERS // (length - first))
        facts = f"{losses['sample'].nunique()} samples of {length} tokens in {manifest['seconds']:.0f} s"
        title = f"{manifest['label']}, {phase}: {facts}\nQ1 ... Q4: perplexity over dense, by quarter of what was read"
        table = Table(title=title, title_justify="left", title_style="bold")
        for name in ("window", "keys per row", "perplexity", *(f"Q{q + 1}" for q in range(QUARTERS))):
            table.add_column(name, justify="left" if name == "window" else "right", no_wrap=True, min_width=6)
        dense = losses[losses["rule"] == DENSE].groupby("quarter")["loss"].mean()
        for (rule, parameter, scale), lines in losses.groupby(["rule", "parameter", "scale"], dropna=False, sort=False):
            name = DENSE if rule == DENSE else f"{rule} {parameter:.3g} x {scale:.3g}"
            ratios = np.exp(lines.groupby("quarter")["loss"].mean() - dense)
            perplexity = np.exp(lines["loss"].mean())
            table.add_row(name, f"{lines['keys'].mean():.0f}", f"{perplexity:.3f}", *(f"{r:.4f}" for r in ratios))
        return Findings([table], {})

    def _checked_layers(self, source: Any) -> list[int] | None:
        everything = source.layers_and_heads()[0]
        if self.layers is not None and (bad := [layer for layer in self.layers if layer not in everything]):
            raise UserError(f"runner.layers has {bad[0]}, but the model has layers {everything[0]}..{everything[-1]}")
        return self.layers


def checked_windows(source: Any, windows: Any, runner: str) -> Windows:
    """Return the windows of a runner that runs a model; raise UserError if the source has none."""
    if not hasattr(source, "documents"):
        raise UserError(f"source={source.name}: runner={runner} needs a language model, e.g. source=smollm2")
    source.batches()
    return windows.at(max(source.lengths), source.seen_keys)


def check_oracle(selector: Selector, runner: str) -> None:
    """Raise UserError if the selector is not the oracle."""
    if selector.name != "oracle":
        raise UserError(f"selector={selector.name}: runner={runner} keeps the most probable keys, selector=oracle")


def _decoded(context: Any, token_N: Tensor) -> Tensor:
    return context.losses(token_N)[0]


def window_name(windows: Windows, index: int | None) -> dict[str, Any]:
    """Return `rule`, `parameter` and `scale` of a window, `dense` for None."""
    if index is None:
        return {"rule": DENSE, "parameter": np.nan, "scale": np.nan}
    return {name: values[index] for name, values in windows.columns().items()}


def _lines(
    windows: Windows,
    index: int | None,
    sample: int,
    phase: str,
    length: int,
    first: int,
    losses_N: Tensor,
    keys_N: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return the lines of one pass: `position` is the place of the predicting token."""
    count = len(losses_N)
    position = np.arange(first, first + count)
    facts = {"sample": sample, "phase": phase, "length": length, **window_name(windows, index)}
    return {name: np.repeat(value, count) for name, value in facts.items()} | {
        "position": position.astype(np.int32),
        "loss": losses_N.numpy().astype(np.float32),
        "keys": keys_N[position].astype(np.float32),
    }
