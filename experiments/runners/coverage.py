"""The coverage runner: how often a sample keeps its promise, by which keys are exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from rich.table import Table

from experiments.cache import NO_EARLIER_ROWS
from experiments.errors import UserError
from experiments.lazy import np, pd, torch
from experiments.machine import Machine
from experiments.measures.memory import rows_per_block
from experiments.plan import Plan, plan_of_rows
from experiments.ranges import MOST_KEYS, check_range
from experiments.records.folder import Record
from experiments.rows import Rows
from experiments.runners import Findings
from experiments.selectors.several import each
from experiments.sources import ReadsText
from experiments.tables import Table as RecordTable
from experiments.tables.coverage import COVERAGE

NUMBERS = ("covered", "sampled", "keys")


@dataclass
class Coverage:
    """Keep the first `exact` keys of each method, sample the others as is promised, and count the promises kept.

    The promise: the denominator of a row is within `epsilon` of the exact one in a share 1 - `delta` of the rows.
    """

    name: str = "coverage"
    exact: int = 64
    bases: list[float] = field(default_factory=partial(list, (0.01, 0.05)))
    epsilon: float = 0.1
    delta: float = 0.1
    draw: int = 0
    tables: ClassVar[tuple[RecordTable, ...]] = (COVERAGE,)
    version: ClassVar[int] = 1
    draws: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range("runner.exact", self.exact, least=1, most=MOST_KEYS)
        check_range("runner.bases", self.bases, above=0, most=1)
        if not self.bases:
            raise UserError("runner.bases is empty: name at least one share")
        check_range("runner.epsilon", self.epsilon, above=0, most=1)
        check_range("runner.delta", self.delta, least=1e-9, most=0.5)
        check_range("runner.draw", self.draw, least=0)

    def deciding(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return every field."""
        return fields

    def check(self, source: Any, selector: Any, windows: Any) -> None:
        """Raise UserError if a method keeps no keys, weighs them, or has no meaning on the source."""
        encoder = isinstance(source, ReadsText) and source.is_encoder()
        for method in each(selector):
            if method.traits.estimates:
                raise UserError(f"selector={method.name}: it keeps no keys, and some are to be exact; give another")
            if encoder and method.traits.looks_back:
                raise UserError(f"selector={method.name}: {NO_EARLIER_ROWS}")

    def groups(self, source: Any, selector: Any, windows: Any) -> int:
        """Return how many groups of rows (head x length x sample) there are."""
        return sum(batch.count for batch in source.batches())

    def plan(self, source: Any, selector: Any, windows: Any, machine: Machine) -> Plan:
        """Return what a job costs: about what its rows cost within windows."""
        return plan_of_rows(source, each(selector), windows, machine, source.batches())

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
        """Measure everything that `source` pushes; call `advance` after each group of rows."""
        methods, resident = each(selector), source.resident_bytes()

        def on_rows(groups: Sequence[Rows]) -> None:
            for rows in groups:
                for method in methods:
                    for base, measured in self._measured(rows, method, machine.memory_bytes, resident).items():
                        record.append(COVERAGE, self._lines(rows, method.name, base, measured))
                for _ in rows.heads:
                    advance()

        source.stream(on_rows, seed=seed, device=machine.device)

    def _measured(self, rows: Rows, method: Any, memory: int, resident: int) -> dict[float, dict[str, Any]]:
        """Return the numbers [R] of every base sample of a group of rows."""
        from experiments.measures.coverage import measure_coverage
        from experiments.selectors.interleave import ranks
        from experiments.selectors.random import random_integers
        from experiments.selectors.verified import chosen_order

        cache = rows.cache()
        answering = method.prepare(cache)
        size = rows_per_block(len(rows), rows.num_keys, 1, rows.value_NV.shape[1], memory, resident)
        parts: dict[float, list[dict[str, Any]]] = {base: [] for base in self.bases}
        for start in range(0, len(rows), size):
            block = rows.block(start, start + size)
            questions = block.questions()
            order_RN = chosen_order(method, answering, cache, questions)
            exact_RN = (ranks(order_RN) < self.exact) & questions.visible_RN
            number_RN = random_integers(questions, self.draw)
            for base, measured in parts.items():
                promise = base, self.epsilon, self.delta
                measured.append(measure_coverage(block.logits(), exact_RN, number_RN, *promise))
        return {
            base: {name: torch.cat([part[name] for part in measured]) for name in NUMBERS}
            for base, measured in parts.items()
        }

    def _lines(self, rows: Rows, method: str, base: float, measured: dict[str, Any]) -> dict[str, Any]:
        """Return one line per head: means over its rows."""
        heads = len(rows.heads)
        facts: dict[str, Any] = {
            "layer": rows.layer,
            "sample": rows.sample,
            "variant": rows.variant,
            "length": rows.length,
            "selector": method,
            "base": base,
            "rows": len(rows) // heads,
            "epsilon": self.epsilon,
            "delta": self.delta,
        }
        numbers = {name: measured[name].double().view(heads, -1).mean(1).cpu().numpy() for name in NUMBERS}
        return {name: np.repeat(fact, heads) for name, fact in facts.items()} | {"head": np.array(rows.heads)} | numbers

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of the promises kept."""
        lines = pd.read_parquet(folder / COVERAGE.file)
        title = (
            f"{manifest['label']}: share of rows whose denominator is within {self.epsilon:g}, "
            f"promised {1 - self.delta:g}; {self.exact} exact keys"
        )
        table = Table(title=title, title_justify="left", title_style="bold")
        for name in ("exact keys of", "base sample", "context", "kept", "sampled"):
            table.add_column(name, justify="left" if name == "exact keys of" else "right", no_wrap=True)
        for (method, base, length), part in lines.groupby(["selector", "base", "length"], sort=False):
            share = f"{part['sampled'].mean():.0%}"
            table.add_row(str(method), f"{base:.0%}", str(length), f"{part['covered'].mean():.2f}", share)
        return Findings([table], {})

    def curves(self, folder: Path) -> pd.DataFrame:
        """Return the promises kept over context length, a column per method and base sample."""
        lines = pd.read_parquet(folder / COVERAGE.file)
        wide = lines.pivot_table("covered", "length", ["selector", "base"])
        wide.columns = pd.Index([f"covered/{column[0]} {column[1]:g}" for column in wide.columns.to_list()])
        return wide
