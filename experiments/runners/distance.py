"""The distance runner: how much attention a key gets by how far before the query it stands, per head.

Shape letters besides those of `experiments.rows`: B ranges of distances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.table import Table

from experiments.lazy import np, pd
from experiments.machine import Machine
from experiments.measures.memory import BYTES_PER_KEY, rows_per_block
from experiments.plan import Plan, memory_of
from experiments.ranges import check_range
from experiments.records.folder import Record
from experiments.rows import Rows
from experiments.runners import Findings, check_order
from experiments.tables import Table as RecordTable
from experiments.tables.distance import DISTANCE

ENTRY_SECONDS = 2e-8  # of one core, for the probability of one key of one row and its place in a sum
LINE_BYTES = 30
SHOWN = (1, 10, 100, 1000)  # distances in the table at the terminal


@dataclass
class Distance:
    """Average the probabilities of the source's rows by distance, `per_octave` ranges of distances per doubling."""

    name: str = "distance"
    per_octave: int = 8
    tables: ClassVar[tuple[RecordTable, ...]] = (DISTANCE,)
    version: ClassVar[int] = 1
    draws: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range("runner.per_octave", self.per_octave, least=1, most=64)

    def deciding(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return every field."""
        return fields

    def check(self, source: Any, selector: Any, windows: Any) -> None:
        """Raise UserError if keys have no order, as those of drawn rows, or a model's rows see later keys."""
        check_order(source, self.name)

    def groups(self, source: Any, selector: Any, windows: Any) -> int:
        """Return how many groups of rows (head x length x sample) there are."""
        return sum(batch.count for batch in source.batches())

    def plan(self, source: Any, selector: Any, windows: Any, machine: Machine) -> Plan:
        """Return what a job costs: the forward passes, and a sum over all entries of the rows."""
        batches, resident = source.batches(), source.resident_bytes()
        for batch in batches:
            rows_per_block(batch.rows, batch.num_keys, 1, batch.head_dim, machine.memory_bytes, resident)
        entries = sum(batch.count * batch.rows * batch.num_keys for batch in batches)
        lines = sum(batch.count * self.per_octave * batch.num_keys.bit_length() for batch in batches)
        at_once = max(batch.rows * batch.num_keys for batch in batches) * BYTES_PER_KEY
        return Plan(
            rows=sum(batch.count * batch.rows for batch in batches),
            windows=0,
            seconds=source.seconds(machine) + entries * ENTRY_SECONDS,
            memory_bytes=memory_of(source) + min(machine.memory_bytes - resident, at_once),
            disk_bytes=lines * LINE_BYTES,
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
        """Average everything that `source` pushes; call `advance` after each group of rows."""
        resident = source.resident_bytes()

        def on_rows(groups: Sequence[Rows]) -> None:
            for rows in groups:
                for of_head in rows.of_each_head():
                    record.append(DISTANCE, self._lines(of_head, machine.memory_bytes, resident))
                    advance()

        source.stream(on_rows, seed=seed, device=machine.device)

    def _lines(self, rows: Rows, memory: int, resident: int) -> dict[str, np.ndarray]:
        """Return the lines of one head: one per range of distances that a row has a key at."""
        from experiments.measures.distance import means_of_ranges, ranges, sums_by_distance

        size = rows_per_block(len(rows), rows.num_keys, 1, rows.value_NV.shape[1], memory, resident)
        distances = rows.num_keys
        sum_D, count_D = np.zeros(distances), np.zeros(distances, np.int64)
        for start in range(0, len(rows), size):
            more_D, counted_D = sums_by_distance(rows.block(start, start + size))
            sum_D += more_D
            count_D += counted_D
        start_B = ranges(distances, self.per_octave)
        pairs_B = np.add.reduceat(count_D, start_B)
        kept = pairs_B > 0  # what a sliding window hides has no line
        facts: dict[str, Any] = {
            "layer": rows.layer,
            "head": rows.heads[0],
            "sample": rows.sample,
            "variant": rows.variant,
            "length": rows.length,
            "rows": len(rows),
        }
        columns = {
            "distance": start_B,
            "last": np.append(start_B[1:], distances) - 1,
            "pairs": pairs_B,
            "probability": means_of_ranges(sum_D, count_D, start_B),
        }
        numbers = {name: column[kept] for name, column in columns.items()}
        return {name: np.repeat(fact, int(kept.sum())) for name, fact in facts.items()} | numbers

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of the mean over heads at a few distances."""
        lines = pd.read_parquet(folder / DISTANCE.file)
        title = f"{manifest['label']}: mean probability of a key by its distance, over all heads and samples"
        table = Table(title=title, title_justify="left", title_style="bold")
        for name in ("variant", "context", *map(str, SHOWN)):
            table.add_column(name, justify="left" if name == "variant" else "right", no_wrap=True)
        for (variant, length), part in lines.groupby(["variant", "length"], sort=False):
            at = [part[(part["distance"] <= d) & (d <= part["last"])]["probability"] for d in SHOWN]
            cells = (f"{of.mean():.2g}" if len(of) else "" for of in at)
            table.add_row(str(variant), str(length), *cells)
        return Findings([table], {})

    def curves(self, folder: Path) -> pd.DataFrame:
        """Return the mean probability over context length, a column per shown distance."""
        lines = pd.read_parquet(folder / DISTANCE.file)
        shown = {d: lines[(lines["distance"] <= d) & (d <= lines["last"])] for d in SHOWN}
        columns = {f"probability/{d}": part.groupby("length")["probability"].mean() for d, part in shown.items()}
        return pd.DataFrame(columns).rename_axis("length")
