"""The language runner: what a model's next-token loss becomes when every layer attends within its windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.table import Table
from torch import Tensor

from experiments.errors import UserError
from experiments.machine import Machine
from experiments.measures import RowFacts
from experiments.plan import PROCESS_BYTES, Plan
from experiments.records.folder import Record
from experiments.runners import Findings
from experiments.schema import Job
from experiments.selectors import Selector
from experiments.sources import Source
from experiments.windows import Windows

DENSE = "dense"
QUARTERS = 4
SPARSE_OVER_DENSE = 2.5  # seconds of a forward pass within windows over those of a plain one, measured at 4096 tokens
LOSS_BYTES = 12  # of a line of losses.parquet


@dataclass
class Language:
    """Read each text sample densely and within each window, and record the loss of every token.

    The windows are the oracle's: each row of a layer attends to its most probable keys alone, renormalised. Every
    number is of the prefill: the whole sample in one pass, each row within its own context.
    """

    layers: list[int] | None = None
    keep_first: int = 0
    keep_recent: int = 0
    name: str = "language"

    def __post_init__(self) -> None:
        for option in ("keep_first", "keep_recent"):
            if getattr(self, option) < 0:
                raise UserError(f"runner.{option}={getattr(self, option)}: give a number of tokens >= 0")

    def groups(self, source: Source, windows: Any) -> int:
        """Return how often `run` will call `advance`: once per forward pass."""
        return source.samples * (1 + len(_checked(source, windows)))

    def plan(self, job: Job, machine: Machine) -> Plan:
        """Return what a job costs; seconds follow from the source's estimate of a plain forward pass."""
        windows = _checked(job.source, job.windows)
        tokens = job.source.samples * (max(job.source.lengths) - 1)
        return Plan(
            rows=tokens,
            windows=len(windows),
            seconds=job.source.seconds() * (1 + SPARSE_OVER_DENSE * len(windows)),
            memory_bytes=PROCESS_BYTES + job.source.resident_bytes(),
            disk_bytes=tokens * (1 + len(windows)) * LOSS_BYTES,
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
        from experiments.models.load import load_model
        from experiments.models.loss import token_losses
        from experiments.models.sparse_forward import attend_to_top_k

        asked = _checked(source, windows)
        if selector.name != "oracle":
            raise UserError(f"selector={selector.name}: runner=language keeps the most probable keys, selector=oracle")
        layers = self._checked_layers(source)
        auto = "AutoModelForCausalLM"
        model = load_model(source.located, getattr(torch, source.dtype), machine.device, auto)
        columns = asked.columns()
        for sample, token_N in enumerate(source.documents(seed)):
            record.losses.append(_lines(sample, DENSE, np.nan, np.nan, token_losses(model, token_N), None))
            advance()
            for w in range(len(asked)):
                kept = _Kept(asked, w, len(token_N))
                with attend_to_top_k(
                    model, kept, layers=layers, keep_first=self.keep_first, keep_recent=self.keep_recent
                ):
                    losses_N = token_losses(model, token_N)
                rule, parameter, scale = (columns[name][w] for name in ("rule", "parameter", "scale"))
                record.losses.append(_lines(sample, str(rule), float(parameter), float(scale), losses_N, kept.mean()))
                advance()

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of perplexities, whole and by quarters of the context."""
        losses = pd.read_parquet(folder / "losses.parquet")
        length = int(losses["position"].max()) + 1
        losses["quarter"] = losses["position"] * QUARTERS // length
        facts = f"{losses['sample'].nunique()} samples of {length} tokens in {manifest['seconds']:.0f} s"
        title = f"{manifest['label']}, prefill: {facts}\nQ1 ... Q4: perplexity over dense, by quarter of the context"
        table = Table(title=title, title_justify="left", title_style="bold")
        for name in ("window", "keys per row", "perplexity", *(f"Q{q + 1}" for q in range(QUARTERS))):
            table.add_column(name, justify="left" if name == "window" else "right", no_wrap=True)
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


class _Kept:
    """The keys that one window keeps, and how many it has kept at each position."""

    def __init__(self, windows: Windows, index: int, tokens: int) -> None:
        self._windows = windows
        self._index = index
        self._sum_N = torch.zeros(tokens, dtype=torch.float64)
        self._rows_N = torch.zeros(tokens, dtype=torch.float64)

    def __call__(self, exact: RowFacts, position_R: Tensor, layer: int, head: int) -> Tensor:
        k_R = self._windows.keys(exact)[:, self._index]
        position_R = position_R.cpu()
        self._sum_N[position_R] += k_R.cpu().double()
        self._rows_N[position_R] += 1
        return k_R

    def mean(self) -> np.ndarray:
        """Return the keys kept at each position, on average over the layers and heads that asked."""
        return (self._sum_N / self._rows_N.clamp(min=1)).numpy()


def _checked(source: Any, windows: Any) -> Windows:
    if not hasattr(source, "documents"):
        raise UserError(f"source={source.name}: runner=language needs a language model, e.g. source=smollm2")
    source.batches()
    return windows.at(max(source.lengths))


def _lines(
    sample: int, rule: str, parameter: float, scale: float, losses_N: Tensor, keys_N: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return the lines of one pass: `position` is the place of the predicting token, which sees `position` + 1 keys."""
    count = len(losses_N)
    position = np.arange(count)
    return {
        "sample": np.repeat(sample, count),
        "phase": np.repeat("prefill", count),
        "rule": np.repeat(rule, count),
        "parameter": np.repeat(parameter, count),
        "scale": np.repeat(scale, count),
        "position": position.astype(np.int32),
        "loss": losses_N.numpy().astype(np.float32),
        "keys": (position + 1.0 if keys_N is None else keys_N[:count]).astype(np.float32),
    }
