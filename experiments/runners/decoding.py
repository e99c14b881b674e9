"""The decoding runner: seconds and bytes of one decode step's attention, dense and over the kept keys alone.

Both read the same cache, the keys and values that the model has made of the text. Selecting is timed apart: the oracle
reads every key to rank them, so what is left to gain with it is the reading of the values; a selector with an index of
its own searches that instead, and what it took to make the index of a whole cache is timed too.

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
from experiments.ranges import check_range
from experiments.records.folder import Record
from experiments.runners import Findings
from experiments.runners.language import DECODE, DENSE, checked_windows, window_name
from experiments.schema import Job
from experiments.selectors import Found, Search, Selector, each
from experiments.sources import Source
from experiments.windows import Windows

LINE_BYTES = 80
MOST_REPEATS = 1_000_000
STEP_SECONDS = 0.3  # of a decode step of a small model at 8192 keys, all its timings


@dataclass
class Decoding:
    """Decode the last token of each length `repeats` times with each selector, and time each layer's attention."""

    repeats: int = 7
    name: str = "decoding"

    def __post_init__(self) -> None:
        check_range("runner.repeats", self.repeats, least=1, most=MOST_REPEATS)

    def groups(self, source: Source, windows: Any) -> int:
        """Return how often `run` will call `advance`: once per length, window and sample."""
        return source.samples * len(source.lengths) * len(checked_windows(source, windows, self.name))

    def plan(self, job: Job, machine: Machine) -> Plan:
        """Return what a job costs."""
        groups, timed = self.groups(job.source, job.windows), len(_with_index(job.selector))
        return Plan(
            rows=groups * timed,
            windows=len(checked_windows(job.source, job.windows, self.name)),
            seconds=job.source.seconds() + groups * timed * self.repeats * STEP_SECONDS,
            memory_bytes=PROCESS_BYTES + job.source.resident_bytes(),
            disk_bytes=groups * timed * LINE_BYTES,
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
            If the source is no causal language model, a window is not a function of the context length alone, or a
            selector has no index.
        """
        from experiments.models.context import Context
        from experiments.models.language_model import open_language_model

        asked = checked_windows(source, windows, self.name)
        selectors = _with_index(selector)
        documents = source.documents(seed)
        contexts = [[n - m for n in source.lengths for m in (0, 1)]]
        model = open_language_model(source, machine.device, documents[0], contexts, self.name, cached=True)
        for sample, token_N in enumerate(documents):
            context = Context(model)
            context.read(token_N[:-1])
            for length in sorted(source.lengths, reverse=True):
                context.forget(length - 1)
                place = {"sample": sample, "phase": DECODE, "length": length, "repeats": self.repeats}
                indices = [_Indices(chosen) for chosen in selectors]
                for w in range(len(asked)):
                    for index in indices:
                        steps = [
                            _decode(model, context, token_N[length - 1 : length], index, asked.only(w))
                            for _ in range(1 + self.repeats)
                        ]
                        facts = place | {"selector": index.selector.name} | window_name(asked, w) | _line(steps)
                        facts["index_seconds"] = index.seconds["index_seconds"]
                        record.decoding.append({name: np.array([value]) for name, value in facts.items()})
                    advance()

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of milliseconds per decode step."""
        steps = pd.read_parquet(folder / "decoding.parquet")
        title = (
            f"{manifest['label']}, {DECODE}: all layers' attention for one token, ms, median of "
            f"{steps['repeats'].max()};\n"
            "gain: dense over select and attend; the oracle selects by reading every key"
        )
        table = Table(title=title, title_justify="left", title_style="bold")
        several = steps["selector"].unique().size > 1
        for name in (
            "context",
            *(["selector"] if several else []),
            "window",
            "keys",
            DENSE,
            "select",
            "attend",
            "gain",
        ):
            table.add_column(name, justify="left" if name in ("selector", "window") else "right", no_wrap=True)
        window = ["length", "rule", "parameter", "scale", "selector"]
        means = steps.groupby(window, sort=False).mean(numeric_only=True)
        for _, line in means.reset_index().iterrows():
            times = (line["dense_seconds"], line["select_seconds"], line["attend_seconds"])
            scale = "" if line["scale"] == 1 else f" x {line['scale']:.3g}"
            table.add_row(
                f"{line['length']:.0f}",
                *([line["selector"]] if several else []),
                f"{line['rule']} {line['parameter']:.4g}{scale}",
                f"{line['k']:.0f}",
                *(f"{1e3 * seconds:.1f}" for seconds in times),
                f"{times[0] / (times[1] + times[2]):.1f}",
            )
        return Findings([table], {})


def _with_index(selector: Any) -> list[Any]:
    """Return the selectors to time; raise UserError if one cannot be, for it has no index."""
    chosen = each(selector)
    if bad := [part.name for part in chosen if not hasattr(part, "index")]:
        raise UserError(
            f"selector={bad[0]}: runner=decoding times selectors that search an index of their own: "
            "choose oracle, sinks, sliding, quest, sort_lsh or magic_pig, or selector=indexed for all"
        )
    return chosen


def _decode(model: Any, context: Any, token_1: Tensor, index: _Indices, window: Windows) -> _Step:
    """Decode a token, forget it again and return what it took."""
    from experiments.models.probe import Attention, intercept

    step, before = _Step(), len(context)

    def attend(attention: Attention) -> Tensor:
        return step.attend(attention, index, window)

    with intercept(model, attend), step.timed("step_seconds"):
        context.read(token_1)
    context.forget(before)
    return step


def _line(steps: list[_Step]) -> dict[str, float]:
    """Return the medians of the steps after the first, and what every one of them reads."""
    first = steps[0]
    medians = {name: float(np.median([step.seconds[name] for step in steps[1:]])) for name in first.seconds}
    sizes = {name: getattr(first, name) for name in ("bytes_dense", "bytes_selected", "bytes_attended")}
    return {"k": first.kept / first.rows, **sizes, **medians}


class _Indices:
    """One selector's index of every layer, made once and timed; the token decoded is the last of its keys."""

    def __init__(self, selector: Any) -> None:
        self.selector = selector
        self.seconds = {"index_seconds": 0.0}
        self._of_layer: dict[int, Search] = {}

    def of(self, layer: int, key_GND: Tensor) -> Search:
        """Return the search of a layer among the keys that its last query sees."""
        if layer not in self._of_layer:
            with _Timer(self.seconds, "index_seconds"):
                self._of_layer[layer] = self.selector.index(key_GND)
        return self._of_layer[layer]


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

    def attend(self, attention: Any, index: _Indices, window: Windows) -> Tensor:
        """Return the output of the kept keys [H, 1, V]."""
        query_HD, (key_GND, value_GNV) = attention.query_HND[:, 0], _seen(attention)
        heads, groups = len(query_HD), len(key_GND)
        keys, size = key_GND.shape[1], key_GND.element_size()
        width = key_GND.shape[2] + value_GNV.shape[2]
        kept = [int(window.of_head(attention.layer, head).keys(_Visible(keys))[0, 0]) for head in range(heads)]
        search = index.of(attention.layer, key_GND)
        # The heads that share a KV head ask it together, so that dense attention copies nothing either.
        query_GSD = query_HD.reshape(groups, heads // groups, -1)
        with self.timed("dense_seconds"):
            scaled_dot_product_attention(query_GSD[None], key_GND[None], value_GNV[None], scale=attention.scale)
        with self.timed("select_seconds"):
            found = search(query_HD, max(kept))
        with self.timed("attend_seconds"):
            output_HV = _over_kept(query_HD, key_GND, value_GNV, found, kept, attention.scale)
        n_H, k_H = torch.full((heads,), float(keys)), torch.tensor(kept, dtype=torch.float64)
        searched = float((index.selector.keys_read(n_H, k_H, key_GND.shape[2]) - k_H).mean())
        self.rows += heads
        self.kept += sum(kept)
        self.bytes_dense += groups * keys * width * size
        self.bytes_selected += round(groups * searched * width * size)
        self.bytes_attended += sum(kept) * width * size
        return output_HV[:, None]

    def timed(self, name: str) -> _Timer:
        """Return what adds the seconds of a block to those of this step."""
        return _Timer(self.seconds, name)


def _seen(attention: Any) -> tuple[Tensor, Tensor]:
    """Return the keys and values of a cache that its last query sees: a sliding layer reads its window alone."""
    keys = attention.key_GND.shape[1]
    if attention.mask is None:
        return attention.key_GND, attention.value_GNV
    position_1 = torch.tensor([keys - 1], device=attention.key_GND.device)
    visible_HN = torch.cat([attention.visible(head, position_1, keys) for head in range(len(attention.mask))])
    if not bool((visible_HN == visible_HN[:1]).all()):
        raise UserError(f"{attention.model}: heads of layer {attention.layer} see different keys; they are not timed")
    index_N = visible_HN[0].nonzero()[:, 0]
    return attention.key_GND[:, index_N], attention.value_GNV[:, index_N]


def _over_kept(
    query_HD: Tensor, key_GND: Tensor, value_GNV: Tensor, found: Found, kept: list[int], scale: float
) -> Tensor:
    """Return softmax(scale q K^T) V over each head's kept keys, gathered from the cache [H, V].

    Heads that keep fewer than the most are filled up with keys that do not count.

    Raises
    ------
    UserError
        If keys are weighed, for they are for one number of them, and heads keep different numbers.
    """
    heads, most = found.key_HK.shape
    groups, keys, _ = key_GND.shape
    device = key_GND.device
    start_H1 = (torch.arange(heads, device=device) // (heads // groups) * keys)[:, None]
    flat = (start_H1 + found.key_HK).flatten()
    key_HKD = key_GND.reshape(groups * keys, -1).index_select(0, flat).view(1, heads, most, -1)
    value_HKV = value_GNV.reshape(groups * keys, -1).index_select(0, flat).view(1, heads, most, -1)
    added = None if found.log_weight_HK is None else found.log_weight_HK.to(query_HD.dtype)[None, :, None]
    if min(kept) < most:
        if added is not None:
            raise UserError("a selector that weighs its keys needs windows that are alike for all heads")
        kept_H1 = torch.tensor(kept, device=device)[:, None]
        added = (torch.arange(most, device=device) < kept_H1)[None, :, None]
    query_HD = query_HD[None, :, None]
    return scaled_dot_product_attention(query_HD, key_HKD, value_HKV, attn_mask=added, scale=scale)[0, :, 0]


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
