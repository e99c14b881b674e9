"""The language runner: what a model's next-token loss becomes when every layer attends within its windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table

from experiments.curves import quality_over_length
from experiments.errors import UserError
from experiments.lazy import np, pd
from experiments.machine import Machine
from experiments.plan import Plan, memory_of
from experiments.ranges import MOST_KEYS, check_range
from experiments.records.folder import Record
from experiments.runners import ROW_FIELDS, Findings, without
from experiments.runners.phases import (
    DECODE,
    PHASES,
    PREFILL,
    check_decoded,
    check_layers,
    check_methods,
    checked_windows,
    reading_bytes,
    readings,
    seconds_of_comparing,
)
from experiments.selectors.several import each
from experiments.tables import Table as RecordTable
from experiments.tables.losses import LOSSES
from experiments.tables.place import at_longest, by_window, methods_of
from experiments.windows import DENSE

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.models.loss import Quality

QUARTERS = 4
LOSS_BYTES = 17  # of a line of losses.parquet


@dataclass
class Language:
    """Read each text sample densely, and by each method within each window, and record the loss of every token.

    Each row of a layer attends as the method answers, renormalised. A method without a budget reads once; its lines
    have the rule `any`, and what its rows read for keys. In the phase `prefill` the whole sample is read so, in one
    pass, each row within its own context. In the phase `decode` the text is read densely, and only the last
    `decode_tokens` tokens of each length attend within their windows to what is cached: what generation would see.
    Every number is labelled with its phase.
    """

    phase: str = PREFILL
    decode_tokens: int = 256
    layers: list[int] | None = None
    keep_first: int = 0
    keep_recent: int = 0
    name: str = "language"
    tables: ClassVar[tuple[RecordTable, ...]] = (LOSSES,)
    version: ClassVar[int] = 2  # agreement and KL
    draws: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise UserError(f"runner.phase={self.phase}: choose {' or '.join(PHASES)}")
        check_range("runner.decode_tokens", self.decode_tokens, least=2, most=MOST_KEYS)
        check_range("runner.keep_first", self.keep_first, least=0, most=MOST_KEYS)
        check_range("runner.keep_recent", self.keep_recent, least=0, most=MOST_KEYS)
        check_range("runner.layers", self.layers, least=0)
        if self.layers is not None and not self.layers:
            raise UserError("runner.layers is empty: give the layers that attend within windows, or null for all")

    def deciding(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields but for those of rows; a prefill reads the longest length alone, and decodes nothing."""
        fields = without(fields, ROW_FIELDS)
        if self.phase == DECODE:
            return fields
        longest = max(fields["source.lengths"])
        return without(fields, {"runner.decode_tokens"}) | {"source.lengths": [longest]}

    def check(self, source: Any, selector: Any, windows: Any) -> None:
        """Raise UserError if the source is no language model, or a method has no meaning in this phase."""
        requested = checked_windows(source, windows, self.name)
        check_layers(source, self.layers)
        if self.phase == DECODE:
            check_decoded(source, self.decode_tokens)
        check_methods(selector, requested, self.phase, self.name, self.keep_first + self.keep_recent)

    def groups(self, source: Any, selector: Any, windows: Any) -> int:
        """Return how often `run` will call `advance`: once per pass."""
        lengths = len(source.lengths) if self.phase == DECODE else 1
        return source.samples * lengths * (1 + readings(selector, checked_windows(source, windows, self.name)))

    def plan(self, source: Any, selector: Any, windows: Any, machine: Machine) -> Plan:
        """Return what a job costs: the source's estimate of a plain forward pass, and a trial of the methods."""
        from experiments.models.trial import seconds_of_readings

        requested, samples = checked_windows(source, windows, self.name), source.samples
        longest, lengths = max(source.lengths), source.lengths if self.phase == DECODE else [max(source.lengths)]
        read = longest if self.phase == PREFILL else self.decode_tokens
        tokens = len(lengths) * read - (self.phase == PREFILL)
        passes = readings(selector, requested)
        a_text = seconds_of_readings(source, each(selector), requested, machine, length=longest, tokens=read)
        every = len(source.layers_and_heads()[0])
        within = a_text * (every if self.layers is None else len(self.layers)) / every * sum(lengths) / longest
        compared = seconds_of_comparing(source, machine, samples * passes * tokens)
        return Plan(
            rows=samples * tokens,
            windows=len(requested),
            seconds=source.seconds(machine) * (1 + passes * tokens / longest) + samples * within + compared,
            memory_bytes=memory_of(source) + reading_bytes(source, selector, cached=self.phase == DECODE),
            disk_bytes=samples * tokens * (1 + passes) * LOSS_BYTES,
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
        """Measure the losses of every sample, densely and by each method within every window.

        Raises
        ------
        UserError
            If the model is no causal language model.
        """
        from experiments.models.context import Context
        from experiments.models.language_model import open_language_model
        from experiments.models.loss import DensePass
        from experiments.models.reading import Reading

        requested, methods = checked_windows(source, windows, self.name), each(selector)
        documents = source.documents(seed)
        decoded = [n - m for n in source.lengths for m in (0, self.decode_tokens)]
        cached = self.phase == DECODE
        contexts = [decoded] if cached else [[max(source.lengths)]]
        model = open_language_model(
            source, machine.device, next(iter(documents.values())), contexts, self.name, cached=cached
        )
        reading = Reading(
            model, methods, requested, layers=self.layers, keep_first=self.keep_first, keep_recent=self.keep_recent
        )

        def measure(sample: int, length: int, token_N: Tensor, read: Callable[[], Tensor]) -> None:
            first, place = length - len(token_N), {"sample": sample, "phase": self.phase, "length": length}
            name, state_NW, keys_N = reading.densely(length, read)
            dense = DensePass(model, state_NW, token_N)
            record.append(LOSSES, _lines(place | name, first, dense.itself(), keys_N))
            advance()
            for name, state_NW, keys_N in reading.by_methods(sample, length, read):
                record.append(LOSSES, _lines(place | name, first, dense.beside(state_NW), keys_N))
                advance()

        for sample, token_N in documents.items():
            if self.phase == PREFILL:
                measure(sample, len(token_N), token_N, partial(_read, model, token_N))
                continue
            context = Context(model)
            reading.prompt(len(token_N), partial(context.read, token_N[:-1]))
            for length in sorted(source.lengths, reverse=True):
                first = length - self.decode_tokens
                context.forget(first)
                measure(sample, length, token_N[first:length], partial(context.states, token_N[first:length]))

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of perplexities, whole and by quarters of the context."""
        losses, samples = at_longest(pd.read_parquet(folder / LOSSES.file))
        length, phase = int(losses["length"].iloc[0]), losses["phase"].iloc[0]
        first = losses["position"].min()
        losses = losses.assign(quarter=(losses["position"] - first) * QUARTERS // (length - first))
        title = (
            f"{manifest['label']}, {phase}, by {methods_of(losses)}: {samples} in {manifest['seconds']:.0f} s\n"
            "agreement: share of next tokens whose most probable one is the dense one; KL(dense || this) in nats\n"
            "Q1 ... Q4: perplexity over dense, by quarter of what was read"
        )
        table = Table(title=title, title_justify="left", title_style="bold")
        numbers = ("keys", "perplexity", "agreement", "KL", *(f"Q{q + 1}" for q in range(QUARTERS)))
        for name in ("window", *numbers):
            table.add_column(name, justify="left" if name == "window" else "right", no_wrap=True, min_width=6)
        dense = losses[losses["rule"] == DENSE].groupby("quarter")["loss"].mean()
        for name, lines in by_window(losses):
            ratios = np.exp(lines.groupby("quarter")["loss"].mean() - dense)
            perplexity = np.exp(lines["loss"].mean())
            near = f"{lines['agreement'].mean():.1%}", f"{lines['kl'].mean():.4f}"
            kept = f"{lines['keys'].mean():.0f}"
            table.add_row(name, kept, f"{perplexity:.3f}", *near, *(f"{r:.4f}" for r in ratios))
        return Findings([table], {})

    def curves(self, folder: Path) -> pd.DataFrame:
        """Return the mean loss, agreement and KL of each window, and of the dense pass, by stretches of the context."""
        return quality_over_length(pd.read_parquet(folder / LOSSES.file))


def _read(model: Any, token_N: Tensor) -> Tensor:
    from experiments.models.probe import forward

    return forward(model, token_N)[0]


def _lines(facts: dict[str, Any], first: int, quality: Quality, keys_N: np.ndarray) -> dict[str, np.ndarray]:
    """Return the lines of one pass: `position` is the place of the predicting token."""
    count = len(quality.loss_N)
    position_N = np.arange(first, first + count)
    return {name: np.repeat(value, count) for name, value in facts.items()} | {
        "position": position_N.astype(np.int32),
        "loss": quality.loss_N.numpy().astype(np.float32),
        "keys": keys_N[position_N].astype(np.float32),
        "agreement": quality.agreement_N.numpy().astype(np.float32),
        "kl": quality.kl_N.numpy().astype(np.float32),
    }
