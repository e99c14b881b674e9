"""The gains runner: what a model loses where one layer, or one KV head, alone keeps few keys.

Shape letters besides those of `experiments.rows`: L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from rich.table import Table

from experiments.curves import QUALITY, means_of_windows
from experiments.errors import UserError
from experiments.lazy import np, pd
from experiments.machine import Machine
from experiments.plan import Plan, memory_of
from experiments.ranges import MOST_KEYS, check_range
from experiments.records.folder import Record
from experiments.runners import ROW_FIELDS, Findings, without
from experiments.runners.phases import (
    DECODE,
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
from experiments.tables.gains import EVERY_KV_HEAD, GAINS
from experiments.tables.place import WINDOW, at_longest, window_name

if TYPE_CHECKING:
    from experiments.models.loss import Quality

LAYER, KV_HEAD = UNITS = ("layer", "kv_head")
PASS_OVER_PLAIN = 3.0  # seconds of a pass of few tokens over those of as many in a long plain one
LEAST_TOKENS = 24  # a pass of fewer costs as much: it reads the weights
LINE_BYTES = 80


@dataclass
class Gains:
    """Read each text densely, and decode its last tokens once per layer that alone keeps few keys.

    The last `decode_tokens` tokens of each length are decoded from a cache that was made densely. In each pass one
    layer attends as the method answers within the window, and all others densely; with `per: kv_head` one KV head.
    """

    decode_tokens: int = 32
    per: str = LAYER
    layers: list[int] | None = None
    name: str = "gains"
    tables: ClassVar[tuple[RecordTable, ...]] = (GAINS,)
    version: ClassVar[int] = 1
    draws: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.per not in UNITS:
            raise UserError(f"runner.per={self.per}: choose {' or '.join(UNITS)}")
        check_range("runner.decode_tokens", self.decode_tokens, least=2, most=MOST_KEYS)
        check_range("runner.layers", self.layers, least=0)
        if self.layers is not None and not self.layers:
            raise UserError("runner.layers is empty: give the layers that keep few keys, or null for all")

    def deciding(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields but for those of rows."""
        return without(fields, ROW_FIELDS)

    def check(self, source: Any, selector: Any, windows: Any) -> None:
        """Raise UserError if the source is no language model, or a method has no window or no meaning in decoding."""
        requested = checked_windows(source, windows, self.name)
        check_layers(source, self.layers)
        check_decoded(source, self.decode_tokens)
        check_methods(selector, requested, DECODE, self.name)
        if without_budget := [method.name for method in each(selector) if not method.traits.has_budget]:
            raise UserError(f"selector={without_budget[0]} has no budget, which runner=gains needs")

    def groups(self, source: Any, selector: Any, windows: Any) -> int:
        """Return how often `run` will call `advance`: once per pass."""
        passes = 1 + len(self._units(source)) * readings(selector, checked_windows(source, windows, self.name))
        return int(source.samples * len(source.lengths) * passes)

    def plan(self, source: Any, selector: Any, windows: Any, machine: Machine) -> Plan:
        """Return what a job costs: the source's estimate of a plain forward pass, and a trial of the methods.

        Beside a unit's pass its whole layer is read by the method.
        """
        from experiments.models.trial import seconds_of_readings

        requested = checked_windows(source, windows, self.name)
        units, samples, lengths = len(self._units(source)), source.samples, source.lengths
        longest, read = max(lengths), self.decode_tokens
        passes = units * readings(selector, requested)
        a_text = seconds_of_readings(source, each(selector), requested, machine, length=longest, tokens=read)
        within = a_text * units / len(source.layers_and_heads()[0]) * sum(lengths) / longest
        plainly = 1 + PASS_OVER_PLAIN * passes * len(lengths) * max(read, LEAST_TOKENS) / longest
        compared = seconds_of_comparing(source, machine, samples * len(lengths) * passes * read)
        return Plan(
            rows=samples * len(lengths) * self.decode_tokens,
            windows=len(requested),
            seconds=source.seconds(machine) * plainly + samples * within + compared,
            memory_bytes=memory_of(source) + reading_bytes(source, selector, cached=True),
            disk_bytes=samples * len(lengths) * passes * LINE_BYTES,
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
        """Measure every sample, densely and with each unit alone within every window by each method.

        Raises
        ------
        UserError
            If the model is no causal language model, or its heads share KV heads otherwise than config.json says.
        """
        from experiments.models.context import Context
        from experiments.models.language_model import check_kv_heads, open_language_model
        from experiments.models.load import load_config
        from experiments.models.loss import DensePass
        from experiments.models.reading import Reading
        from experiments.models.shape import keys_seen_by_layers, kv_heads_of_layers

        requested, methods = checked_windows(source, windows, self.name), each(selector)
        documents = source.documents(seed)
        decoded = [n - m for n in source.lengths for m in (0, self.decode_tokens)]
        model = open_language_model(
            source, machine.device, next(iter(documents.values())), [decoded], self.name, cached=True
        )
        config = load_config(source.located)
        check_kv_heads(model, kv_heads_of_layers(config))
        reading = Reading(model, methods, requested)
        seen_LN = keys_seen_by_layers(config, np.arange(1, max(source.lengths) + 1))
        for sample, token_N in documents.items():
            context = Context(model)
            reading.prompt(len(token_N), partial(context.read, token_N[:-1]))
            for length in sorted(source.lengths, reverse=True):
                first = length - self.decode_tokens
                context.forget(first)
                last_N = token_N[first:length]
                read = partial(context.states, last_N)
                _, state_NW, _ = reading.densely(length, read)
                dense, place = DensePass(model, state_NW, last_N), {"sample": sample, "phase": DECODE, "length": length}
                dense_loss = float(dense.itself().loss_N.double().mean())
                advance()
                for unit in self._units(source):
                    for name, state_NW, keys_N in reading.by_methods(sample, length, read, **unit.options()):
                        line = place | name | unit.columns() | _means(dense.beside(state_NW))
                        line |= {
                            "keys": float(keys_N[first:].mean()),
                            "n": float(seen_LN[unit.layer, first:length].mean()),
                        }
                        line |= {"dense_loss": dense_loss}
                        record.append(GAINS, {column: np.array([value]) for column, value in line.items()})
                        advance()

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of what the layers lose alone, at the longest length."""
        lines, samples = at_longest(pd.read_parquet(folder / GAINS.file))
        unit = "KV head" if (lines["kv_head"] != EVERY_KV_HEAD).any() else "layer"
        title = (
            f"{manifest['label']}: one {unit} alone keeps few keys; {samples} in {manifest['seconds']:.0f} s\n"
            "KL(dense || this) in nats: summed over all, of the three that lose most, and which these are"
        )
        table = Table(title=title, title_justify="left", title_style="bold")
        for name in ("window", "keys", "loss added", "KL", "of three", f"{unit}s"):
            table.add_column(name, justify="left" if name == "window" else "right", no_wrap=True)
        for keys, part in lines.groupby(["selector", *(column.name for column in WINDOW)], sort=False):
            selector, rule, parameter, scale = cast(tuple[str, str, float, float], keys)
            name = f"{selector}, {window_name(rule, parameter, scale)}"
            of_unit = part.groupby(["layer", "kv_head"])["kl"].mean().sort_values(ascending=False)
            names = [f"{layer}" if head == EVERY_KV_HEAD else f"{layer}.{head}" for layer, head in of_unit.index[:3]]
            added = (part["loss"] - part["dense_loss"]).groupby([part["layer"], part["kv_head"]]).mean().sum()
            numbers = (f"{part['keys'].mean():.0f}", f"{added:.4f}", f"{of_unit.sum():.4f}", f"{of_unit[:3].sum():.4f}")
            table.add_row(name, *numbers, " ".join(names))
        return Findings([table], {})

    def curves(self, folder: Path) -> pd.DataFrame:
        """Return the mean loss, agreement and KL over all that keep few keys alone, a column per window."""
        return means_of_windows(pd.read_parquet(folder / GAINS.file), QUALITY)

    def _units(self, source: Any) -> list[_Unit]:
        return list(_units(source, self.layers, self.per))


class _Unit(NamedTuple):
    """What alone keeps few keys: a layer, or one KV head of it."""

    layer: int
    kv_head: int
    heads: int
    kv_heads: int
    key_dim: int

    def options(self) -> dict[str, Any]:
        """Return the options of `attend_by`."""
        return {"layers": [self.layer], "kv_heads": None if self.kv_head == EVERY_KV_HEAD else [self.kv_head]}

    def columns(self) -> dict[str, int]:
        """Return its columns in the record."""
        return self._asdict()


def _units(source: Any, layers: list[int] | None, per: str) -> Iterator[_Unit]:
    from experiments.models.load import load_config
    from experiments.models.shape import cache_dim, heads_of_layers, kv_heads_of_layers

    config = load_config(source.located)
    dim = cache_dim(config) or 0
    shapes = enumerate(zip(heads_of_layers(config), kv_heads_of_layers(config), strict=True))
    for layer, (heads, kv_heads) in shapes:
        if layers is None or layer in layers:
            for kv_head in [EVERY_KV_HEAD] if per == LAYER else range(kv_heads):
                yield _Unit(layer, kv_head, heads, kv_heads, dim)


def _means(quality: Quality) -> dict[str, float]:
    means = {"loss": quality.loss_N, "agreement": quality.agreement_N, "kl": quality.kl_N}
    return {name: float(values_N.double().mean()) for name, values_N in means.items()} | {"tokens": len(quality.kl_N)}
