"""The decoding runner: seconds and bytes of one decode step's attention, dense and over the kept keys alone.

Both read the same cache, the keys and values that the model has made of the text. Selecting is timed apart: the oracle
reads every key to rank them, so what is left to gain with it is the reading of the values; a method with an index of
its own would pay for that index instead.

Shape letters: H query heads, G KV heads, N keys, D head dimension.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.table import Table
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from experiments.errors import UserError
from experiments.machine import Machine
from experiments.plan import PROCESS_BYTES, Plan
from experiments.records.folder import Record
from experiments.runners import Findings
from experiments.runners.language import DECODE, DENSE, check_oracle, checked_windows, window_name
from experiments.schema import Job
from experiments.selectors import Selector
from experiments.sources import Source

LINE_BYTES = 80
STEP_SECONDS = 0.3  # of a decode step of a small model at 8192 keys, all its timings


@dataclass
class Decoding:
    """Decode the last token of each length `repeats` times, and time each layer's attention, the variants in turn."""

    repeats: int = 7
    name: str = "decoding"

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise UserError(f"runner.repeats={self.repeats}: give a number >= 1")

    def groups(self, source: Source, windows: Any) -> int:
        """Return how often `run` will call `advance`: once per length, window and sample."""
        return source.samples * len(source.lengths) * len(checked_windows(source, windows, self.name))

    def plan(self, job: Job, machine: Machine) -> Plan:
        """Return what a job costs."""
        groups = self.groups(job.source, job.windows)
        return Plan(
            rows=groups,
            windows=len(checked_windows(job.source, job.windows, self.name)),
            seconds=job.source.seconds() + groups * self.repeats * STEP_SECONDS,
            memory_bytes=PROCESS_BYTES + job.source.resident_bytes(),
            disk_bytes=groups * LINE_BYTES,
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
        """Time the decode steps; medians over the repeats go into the record.

        Raises
        ------
        UserError
            If the source is no causal language model, or a window is not a function of the context length alone.
        """
        from experiments.models.context import Context
        from experiments.models.load import load_model
        from experiments.models.probe import Attention, intercept

        asked = checked_windows(source, windows, self.name)
        check_oracle(selector, self.name)
        model = load_model(source.located, getattr(torch, source.dtype), machine.device, "AutoModelForCausalLM")
        for sample, token_N in enumerate(source.documents(seed)):
            context = Context(model)
            context.read(token_N[:-1])
            for length in sorted(source.lengths, reverse=True):
                context.forget(length - 1)
                token_1 = token_N[length - 1 : length]
                for w in range(len(asked)):
                    window = asked.only(w)
                    steps = []
                    for _ in range(1 + self.repeats):
                        step = _Step()

                        def attend(attention: Attention, step: _Step = step, window: Any = window) -> Tensor:
                            return step.attend(attention, window)

                        with intercept(model, attend):
                            started = time.perf_counter()
                            context.read(token_1)
                            step.seconds["step_seconds"] = time.perf_counter() - started
                        context.forget(length - 1)
                        steps.append(step)
                    medians = {name: np.median([step.seconds[name] for step in steps[1:]]) for name in steps[0].seconds}
                    facts = {
                        "sample": sample,
                        "phase": DECODE,
                        "length": length,
                        "repeats": self.repeats,
                        **window_name(asked, w),
                        "k": steps[0].kept / steps[0].rows,
                        "bytes_dense": steps[0].bytes_dense,
                        "bytes_selected": steps[0].bytes_selected,
                        "bytes_attended": steps[0].bytes_attended,
                        **medians,
                    }
                    record.decoding.append({name: np.array([value]) for name, value in facts.items()})
                    advance()

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of milliseconds per decode step."""
        steps = pd.read_parquet(folder / "decoding.parquet")
        title = (
            f"{manifest['label']}, {DECODE}: all layers' attention for one token, ms, median of "
            f"{steps['repeats'].max()};\n"
            "the oracle selects by reading every key"
        )
        table = Table(title=title, title_justify="left", title_style="bold")
        for name in ("context", "window", "keys", DENSE, "select", "attend", "dense / attend"):
            table.add_column(name, justify="left" if name == "window" else "right", no_wrap=True)
        means = steps.groupby(["length", "rule", "parameter", "scale"], sort=False).mean(numeric_only=True)
        for _, line in means.reset_index().iterrows():
            times = (line["dense_seconds"], line["select_seconds"], line["attend_seconds"])
            table.add_row(
                f"{line['length']:.0f}",
                f"{line['rule']} {line['parameter']:.3g} x {line['scale']:.3g}",
                f"{line['k']:.0f}",
                *(f"{1e3 * seconds:.2f}" for seconds in times),
                f"{times[0] / times[2]:.1f}",
            )
        return Findings([table], {})


class _Visible:
    """All that a rule of n alone may ask of a row."""

    def __init__(self, n: int) -> None:
        self.n_R = torch.tensor([n])

    def k_min(self, eta: float) -> Tensor:
        raise UserError("runner=decoding times windows of the context length alone: leave out windows.top_p")

    def count_above(self, epsilon: float) -> Tensor:
        raise UserError("runner=decoding times windows of the context length alone: leave out windows.thresholds")


class _Step:
    """One decode step: every layer's attention done densely, and over its kept keys, each timed."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("dense_seconds", "select_seconds", "attend_seconds", "step_seconds"), 0.0)
        self.kept = self.rows = self.bytes_dense = self.bytes_selected = self.bytes_attended = 0

    def attend(self, attention: Any, window: Any) -> Tensor:
        """Return the output of the kept keys [H, 1, V]."""
        query_HD, key_GND, value_GNV = attention.query_HND[:, 0], attention.key_GND, attention.value_GNV
        heads, shared = len(query_HD), len(query_HD) // len(key_GND)
        keys, size = key_GND.shape[1], key_GND.element_size()
        width = key_GND.shape[2] + value_GNV.shape[2]
        kept = [int(window.of_head(attention.layer, head).keys(_Visible(keys))[0, 0]) for head in range(heads)]
        # The heads that share a KV head ask it together, so that dense attention copies nothing either.
        query_GSD = query_HD.reshape(len(key_GND), shared, -1)
        with self._timed("dense_seconds"):
            scaled_dot_product_attention(query_GSD[None], key_GND[None], value_GNV[None], scale=attention.scale)
        with self._timed("select_seconds"):
            logits_HN = (query_GSD @ key_GND.transpose(1, 2)).view(heads, keys)
            best_HK = logits_HN.topk(max(kept), sorted=True).indices
        with self._timed("attend_seconds"):
            output_HV = _over_kept(query_HD, key_GND, value_GNV, best_HK, kept, attention.scale)
        self.rows += heads
        self.kept += sum(kept)
        self.bytes_dense += len(key_GND) * keys * width * size
        self.bytes_selected += len(key_GND) * keys * key_GND.shape[2] * size
        self.bytes_attended += sum(kept) * width * size
        return output_HV[:, None]

    def _timed(self, name: str) -> Any:
        return _Timer(self.seconds, name)


def _over_kept(
    query_HD: Tensor, key_GND: Tensor, value_GNV: Tensor, best_HK: Tensor, kept: list[int], scale: float
) -> Tensor:
    """Return softmax(scale q K^T) V over each head's kept keys, gathered from the cache [H, V].

    Heads that keep fewer than the most are filled up with keys that do not count.
    """
    heads, most = best_HK.shape
    groups, keys, _ = key_GND.shape
    start_H1 = (torch.arange(heads, device=best_HK.device) // (heads // groups) * keys)[:, None]
    flat = (start_H1 + best_HK).flatten()
    key_HKD = key_GND.reshape(groups * keys, -1).index_select(0, flat).view(1, heads, most, -1)
    value_HKV = value_GNV.reshape(groups * keys, -1).index_select(0, flat).view(1, heads, most, -1)
    counted = None
    if min(kept) < most:
        kept_H1 = torch.tensor(kept, device=best_HK.device)[:, None]
        counted = (torch.arange(most, device=best_HK.device) < kept_H1)[None, :, None]
    query_HD = query_HD[None, :, None]
    return scaled_dot_product_attention(query_HD, key_HKD, value_HKV, attn_mask=counted, scale=scale)[0, :, 0]


class _Timer:
    """Add the seconds of a block to a sum; on a GPU, once its work is done."""

    def __init__(self, sums: dict[str, float], name: str) -> None:
        self._sums = sums
        self._name = name

    def __enter__(self) -> None:
        _wait()
        self._started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        _wait()
        self._sums[self._name] += time.perf_counter() - self._started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
