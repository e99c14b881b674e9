"""The decoding runner: seconds and bytes of one decode step's attention, dense and over the kept keys alone.

Both read the same cache, the keys and values that the model has made of the text. Selecting is timed apart: the oracle
reads every key to rank them, so what is left to gain with it is the reading of the values; a method with an index of
its own searches that instead, one that does not look at the query has found its keys beforehand, and what it took to
prepare a method for a whole cache is timed too.

Shape letters: H query heads, G KV heads, N keys, D head dimension, K keys that a row keeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table

from experiments.answers import Answer, Estimate, Kept, Subset
from experiments.cache import Block, cap_, softmax
from experiments.curves import means_of_windows
from experiments.errors import UserError
from experiments.lazy import np, pd, torch
from experiments.machine import Machine
from experiments.plan import Plan, memory_of
from experiments.ranges import check_range
from experiments.records.folder import Record
from experiments.runners import ROW_FIELDS, Findings, without
from experiments.runners.phases import DECODE, check_methods, checked_windows, reading_bytes
from experiments.selectors import Answering, Selector
from experiments.selectors.several import each
from experiments.tables import Table as RecordTable
from experiments.tables.decoding import DECODING
from experiments.tables.place import window_name
from experiments.windows import DENSE, OfEstimate, OfRelativeThreshold, OfThreshold, OfTolerance, PerLayer, Windows

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.models.earlier import EarlierQueries

# Rules whose windows the rows decide.
OF_ROWS = (OfTolerance, OfThreshold, OfRelativeThreshold, OfEstimate, PerLayer)
LINE_BYTES = 80
MOST_REPEATS = 1_000_000
# Seconds of the reference machine's core for a decode step with all its timings: of a layer, and of each byte of the
# weights, which are read once, and of the cache, which several timings read.
LAYER_SECONDS, WEIGHT_SECONDS, CACHE_SECONDS = 1.5e-3, 1e-10, 6e-10


@dataclass
class Decoding:
    """Decode the last token of each length `repeats` times with each selector, and time each layer's attention."""

    repeats: int = 7
    name: str = "decoding"
    tables: ClassVar[tuple[RecordTable, ...]] = (DECODING,)
    version: ClassVar[int] = 1
    draws: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range("runner.repeats", self.repeats, least=1, most=MOST_REPEATS)

    def deciding(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields but for those of rows."""
        return without(fields, ROW_FIELDS)

    def check(self, source: Any, selector: Any, windows: Any) -> None:
        """Raise UserError if the source is no language model, or a window is not one of the context length alone."""
        requested = checked_windows(source, windows, self.name)
        check_methods(selector, requested, DECODE, self.name)
        for method in each(selector):
            if method.traits.layers_below:
                raise UserError(
                    f"selector={method.name}: it makes no attention of its own, so runner={self.name} has nothing to "
                    f"time; leave it out of a set with ~selector.parts.{method.name}"
                )
        for rule, part in zip(requested.rules, requested.coordinates, strict=True):
            if part and isinstance(rule, OF_ROWS):
                name = {"threshold": "thresholds"}.get(rule.rule, rule.rule)
                raise UserError(
                    f"runner=decoding times windows of the context length alone: leave out windows.{name} (give "
                    f"windows.{name}=[])"
                )

    def groups(self, source: Any, selector: Any, windows: Any) -> int:
        """Return how often `run` will call `advance`: once per length, window and sample."""
        return source.samples * len(source.lengths) * len(checked_windows(source, windows, self.name))

    def plan(self, source: Any, selector: Any, windows: Any, machine: Machine) -> Plan:
        """Return what a job costs."""
        timed = self.groups(source, selector, windows) * len(each(selector))
        return Plan(
            rows=timed,
            windows=len(checked_windows(source, windows, self.name)),
            seconds=source.seconds(machine) + timed * (self.repeats + 1) * _step_seconds(source, machine),
            memory_bytes=memory_of(source) + reading_bytes(source, selector, cached=True),
            disk_bytes=timed * LINE_BYTES,
        )

    def run(
        self,
        source: Any,
        selector: Any,
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
            If the model is no causal language model.
        """
        from experiments.models.context import Context
        from experiments.models.language_model import open_language_model
        from experiments.models.reading import Reading

        requested, methods = checked_windows(source, windows, self.name), each(selector)
        documents = source.documents(seed)
        contexts = [[n - m for n in source.lengths for m in (0, 1)]]
        model = open_language_model(
            source, machine.device, next(iter(documents.values())), contexts, self.name, cached=True
        )
        reading = Reading(model, methods, requested)
        for sample, token_N in documents.items():
            context = Context(model)
            reading.prompt(len(token_N), partial(context.read, token_N[:-1]))
            for length in sorted(source.lengths, reverse=True):
                context.forget(length - 1)
                facts = {"sample": sample, "phase": DECODE, "length": length}
                layers = [Prepared(method, sample, reading.earlier) for method in methods]
                for w, name in enumerate(requested.names()):
                    for prepared in layers:
                        prepared.begin_window()
                        steps = [
                            _decode(model, context, token_N[length - 1 : length], prepared, requested.only(w))
                            for _ in range(1 + self.repeats)
                        ]
                        line = facts | {"selector": prepared.method.name, **name, "repeats": self.repeats}
                        line |= _line(steps) | {"index_seconds": sum(prepared.seconds.values())}
                        record.append(DECODING, {column: np.array([value]) for column, value in line.items()})
                    advance()

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of milliseconds per decode step."""
        steps = pd.read_parquet(folder / DECODING.file)
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
            table.add_row(
                f"{line['length']:.0f}",
                *([line["selector"]] if several else []),
                window_name(line["rule"], line["parameter"], line["scale"]),
                f"{line['k']:.0f}",
                *(f"{1e3 * seconds:.1f}" for seconds in times),
                f"{times[0] / (times[1] + times[2]):.1f}",
            )
        return Findings([table], {})

    def curves(self, folder: Path) -> pd.DataFrame:
        """Return the seconds of a decode step, per window."""
        return means_of_windows(
            pd.read_parquet(folder / DECODING.file), ["dense_seconds", "select_seconds", "attend_seconds"]
        )


def _decode(model: Any, context: Any, token_1: Tensor, prepared: Prepared, window: Windows) -> _Step:
    """Decode a token, forget it again and return what it took."""
    from experiments.models.probe import Attention, intercept

    step, before = _Step(), len(context)

    def attend(attention: Attention) -> Tensor:
        return step.attend(attention, prepared, window)

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


class Prepared:
    """A method, prepared once for the cache of each layer, and the seconds that took.

    The token that is decoded is the last key of the cache.
    """

    def __init__(self, method: Selector, sample: int, earlier: EarlierQueries | None) -> None:
        self.method = method
        self.seconds = {"prepare": 0.0, "choose": 0.0}  # once for a cache, and once for a window
        self._sample = sample
        self._earlier = earlier
        self._of_layer: dict[int, Answering] = {}
        self._known: dict[tuple[int, int], Kept] = {}

    def begin_window(self) -> None:
        """Forget the keys that were chosen for another window."""
        self._known.clear()
        self.seconds["choose"] = 0.0

    def answer(self, attention: Any) -> Answer:
        """Return the method's answer for a layer's last query, a row of each query head.

        A method that does not look at the query knows the keys before it comes, and that is part of preparing.
        """
        from experiments.models.attend import cache_of

        keys, heads = attention.key_GND.shape[1], len(attention.query_HND)
        device = attention.key_GND.device
        if attention.layer not in self._of_layer:
            if self._earlier is not None:
                self._earlier.add(attention)
            with _Timer(self.seconds, "prepare"):
                cache = cache_of(attention, range(len(attention.key_GND)), self._earlier)
                self._of_layer[attention.layer] = self.method.prepare(cache)
        block = Block(
            query_RD=attention.query_HND[:, 0],
            position_R=torch.full((heads,), keys - 1, device=device),
            num_keys=keys,
            visible=lambda: torch.ones(heads, keys, dtype=torch.bool, device=device),
            head_R=torch.arange(heads, device=device),
            layer=attention.layer,
            sample=self._sample,
            scale=attention.scale,
            softcap=attention.softcap,
        )
        answer = self._of_layer[attention.layer](block)
        if not isinstance(answer, Subset) or self.method.traits.looks_at_query:
            return answer
        return Subset(answer.order, quick_first=partial(self._beforehand, attention.layer, answer))

    def _beforehand(self, layer: int, answer: Subset, k: int) -> Kept:
        if (layer, k) not in self._known:
            with _Timer(self.seconds, "choose"):
                self._known[layer, k] = answer.first(k)
        return self._known[layer, k]


def _step_seconds(source: Any, machine: Machine) -> float:
    """Return about how long a decode step takes with all its timings, on average over the lengths."""
    from experiments.models.load import load_config
    from experiments.models.shape import head_dim, kv_heads_of_layers, parameters

    config = load_config(source.located)
    size = torch.finfo(getattr(torch, source.dtype)).bits // 8
    groups = kv_heads_of_layers(config)
    cache = 2 * size * sum(groups) * head_dim(config) * sum(source.lengths) / len(source.lengths)
    of_weights = size * parameters(config) * WEIGHT_SECONDS
    return machine.seconds(len(groups) * LAYER_SECONDS + of_weights + cache * CACHE_SECONDS, source.dtype)


class _Step:
    """One decode step: every layer's attention done densely, and as a method answers, each timed."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("dense_seconds", "select_seconds", "attend_seconds", "step_seconds"), 0.0)
        self.kept = self.rows = self.bytes_dense = self.bytes_selected = self.bytes_attended = 0

    def attend(self, attention: Any, prepared: Prepared, window: Windows) -> Tensor:
        """Return the output of the method [H, 1, V]."""
        layer_keys, attention = attention.key_GND.shape[1], _seen(attention)
        if prepared.method.traits.looks_back and attention.key_GND.shape[1] < layer_keys:
            raise UserError(
                f"{attention.model}: layer {attention.layer} hides old keys, and selector={prepared.method.name} goes "
                "by the rows that saw them: it is not timed there; give another selector"
            )
        query_HD, key_GND, value_GNV = attention.query_HND[:, 0], attention.key_GND, attention.value_GNV
        heads, groups = len(query_HD), len(key_GND)
        keys, size = key_GND.shape[1], key_GND.element_size()
        width = key_GND.shape[2] + value_GNV.shape[2]
        seen_H, last_H = torch.full((heads,), keys), torch.full((heads,), layer_keys - 1)
        kept = window.of_heads(attention.layer, range(heads), seen_H, last_H).given_RW[:, 0].tolist()
        # The heads that share a KV head ask it together, so that dense attention copies nothing either.
        query_GSD = query_HD.reshape(groups, heads // groups, -1)
        with self.timed("dense_seconds"):
            _softmax_attention(query_GSD, key_GND, value_GNV, attention)
        with self.timed("select_seconds"):
            answer = prepared.answer(attention)
            first = None if isinstance(answer, Estimate) else answer.first(max(kept))
        with self.timed("attend_seconds"):
            if first is None:
                output_HV = _estimated(answer, kept, query_HD, prepared.method.name)
            else:
                output_HV = _over_kept(query_HD, key_GND, value_GNV, first, kept, attention)
        n_H, k_H = torch.full((heads,), float(keys)), torch.tensor(kept, dtype=torch.float64)
        read = float(prepared.method.keys_read(n_H, k_H, key_GND.shape[2]).mean())
        attended = float(k_H.mean()) if first is not None else read
        self.rows += heads
        self.kept += sum(kept)
        self.bytes_dense += groups * keys * width * size
        self.bytes_selected += round(groups * (read - attended) * width * size)
        self.bytes_attended += round(heads * attended * width * size)
        return output_HV[:, None]

    def timed(self, name: str) -> _Timer:
        """Return what adds the seconds of a block to those of this step."""
        return _Timer(self.seconds, name)


def _seen(attention: Any) -> Any:
    """Return a layer's attention over the keys that its last query sees: a sliding layer reads its window alone."""
    keys = attention.key_GND.shape[1]
    if attention.mask is None:
        return attention
    position_1 = torch.tensor([keys - 1], device=attention.key_GND.device)
    visible_HN = torch.cat([attention.visible(head, position_1, keys) for head in range(attention.masks)])
    if not bool((visible_HN == visible_HN[:1]).all()):
        raise UserError(f"{attention.model}: heads of layer {attention.layer} see different keys; they are not timed")
    index_N = visible_HN[0].nonzero()[:, 0]
    return replace(
        attention, key_GND=attention.key_GND[:, index_N], value_GNV=attention.value_GNV[:, index_N], mask=None
    )


def _over_kept(
    query_HD: Tensor, key_GND: Tensor, value_GNV: Tensor, first: Kept, kept: list[int], attention: Any
) -> Tensor:
    """Return softmax(scale q K^T) V over each head's kept keys, gathered from the cache [H, V].

    Heads that keep fewer than the most are filled up with keys that do not count.

    Raises
    ------
    UserError
        If keys are weighed, for they are for one number of them, and heads keep different numbers.
    """
    heads, most = first.key_RK.shape
    groups, keys, _ = key_GND.shape
    device = key_GND.device
    start_H1 = (torch.arange(heads, device=device) // (heads // groups) * keys)[:, None]
    flat = (start_H1 + first.key_RK).flatten()
    key_HKD = key_GND.reshape(groups * keys, -1).index_select(0, flat).view(heads, most, -1)
    value_HKV = value_GNV.reshape(groups * keys, -1).index_select(0, flat).view(heads, most, -1)
    added = None if first.log_weight_RK is None else first.log_weight_RK.to(query_HD.dtype)[:, None]
    if min(kept) < most:
        if added is not None:
            raise UserError("a selector that weighs its keys needs windows that are alike for all heads")
        kept_H1 = torch.tensor(kept, device=device)[:, None]
        added = (torch.arange(most, device=device) < kept_H1)[:, None]
    return _softmax_attention(query_HD[:, None], key_HKD, value_HKV, attention, added)[:, 0]


def _softmax_attention(
    query_XSD: Tensor, key_XND: Tensor, value_XNV: Tensor, attention: Any, added: Tensor | None = None
) -> Tensor:
    """Return softmax(scale q K^T) V of the queries of each set of keys [X, S, V], with the layer's cap and sinks.

    No fused kernel at hand has a soft cap or learned sinks: there, dense attention and that over kept keys are both
    products and a softmax.

    Parameters
    ----------
    added
        Added to the logits, or True where a key counts [X, 1, N]; None for nothing.
    """
    sink_H = attention.sink_H
    if attention.softcap is None and sink_H is None:
        mask = None if added is None else added[None]
        return torch.nn.functional.scaled_dot_product_attention(
            query_XSD[None], key_XND[None], value_XNV[None], attn_mask=mask, scale=attention.scale
        )[0]
    logits_XSN = cap_((query_XSD * attention.scale) @ key_XND.mT, attention.softcap)
    if added is not None:
        logits_XSN = logits_XSN.masked_fill(~added, -torch.inf) if added.dtype == torch.bool else logits_XSN + added
    return softmax(logits_XSN, None if sink_H is None else sink_H.view(query_XSD.shape[:2])) @ value_XNV


def _estimated(answer: Answer, kept: list[int], query_HD: Tensor, name: str) -> Tensor:
    """Return the output of an estimate [H, V]."""
    assert isinstance(answer, Estimate)
    if answer.output is None:
        raise UserError(f"selector={name}: without an output of its own it is not timed: it would read every value")
    return answer.output(torch.tensor(kept, device=query_HD.device)).to(query_HD.dtype)


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
