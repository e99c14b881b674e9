"""The columns runner: how much of the mass one set of keys holds, chosen on the same rows, others or another text.

Shape letters besides those of `experiments.rows`: K numbers of columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table

from experiments.errors import UserError
from experiments.lazy import np, pd
from experiments.machine import Machine
from experiments.measures.memory import BYTES_PER_KEY, rows_per_block
from experiments.plan import Plan, memory_of
from experiments.ranges import MOST_KEYS, check_range
from experiments.records.folder import Record
from experiments.rows import Rows
from experiments.runners import Findings, check_order
from experiments.tables import Table as RecordTable
from experiments.tables.columns import COLUMNS

if TYPE_CHECKING:
    from torch import Tensor

ENTRY_SECONDS = 1e-7  # of one core, for one key of one row: its probability, its rank in the row and its place in a sum
LINE_BYTES = 20
WAYS = 4  # to choose columns


@dataclass
class Columns:
    """Choose `keys` columns of each head by mean probability, and score them on the later half of the source's rows."""

    name: str = "columns"
    keys: list[int] = field(default_factory=partial(list, (64, 128, 256, 512, 1024, 2048, 4096)))
    tables: ClassVar[tuple[RecordTable, ...]] = (COLUMNS,)
    version: ClassVar[int] = 1
    draws: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range("runner.keys", self.keys, least=1, most=MOST_KEYS)
        if not self.keys:
            raise UserError("runner.keys is empty: name at least one number of columns")

    def deciding(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return every field."""
        return fields

    def check(self, source: Any, selector: Any, windows: Any) -> None:
        """Raise UserError if keys have no order, rows see later keys, or there is no half of the rows to choose on."""
        check_order(source, self.name)
        self._check_sizes(source)

    def _check_sizes(self, source: Any) -> None:
        if source.rows < 2:
            raise UserError("source.rows=1: columns are chosen on one half of the rows and scored on the other")
        if min(self.keys) > max(source.lengths):
            raise UserError(f"runner.keys={self.keys}: no context of {source.lengths} has so many keys")

    def groups(self, source: Any, selector: Any, windows: Any) -> int:
        """Return how many groups of rows (head x length x sample) there are."""
        return sum(batch.count for batch in source.batches())

    def plan(self, source: Any, selector: Any, windows: Any, machine: Machine) -> Plan:
        """Return what a job costs: the forward passes, and a sort of each row."""
        batches, resident = source.batches(), source.resident_bytes()
        for batch in batches:
            rows_per_block(batch.rows, batch.num_keys, 1, batch.head_dim, machine.memory_bytes, resident)
        entries = sum(batch.count * batch.rows * batch.num_keys for batch in batches)
        kept = sum(batch.count * batch.num_keys for batch in batches) // source.samples * 8
        at_once = max(batch.rows * batch.num_keys for batch in batches) * BYTES_PER_KEY
        return Plan(
            rows=sum(batch.count * batch.rows for batch in batches),
            windows=0,
            seconds=source.seconds(machine) + entries * ENTRY_SECONDS,
            memory_bytes=memory_of(source) + kept + min(machine.memory_bytes - resident, at_once),
            disk_bytes=sum(batch.count for batch in batches) * WAYS * len(self.keys) * LINE_BYTES,
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
        """Measure everything that `source` pushes; call `advance` after each group of rows."""
        resident = source.resident_bytes()
        before: dict[tuple[Any, ...], Tensor] = {}  # of each head, length and variant, what the last sample scored

        def on_rows(groups: Sequence[Rows]) -> None:
            for rows in groups:
                for of_head in rows.of_each_head():
                    for lines in self._lines(of_head, before, machine.memory_bytes, resident):
                        record.append(COLUMNS, lines)
                    advance()

        source.stream(on_rows, seed=seed, device=machine.device)

    def _lines(
        self, rows: Rows, before: dict[tuple[Any, ...], Tensor], memory: int, resident: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield the lines of one head by each way to choose."""
        from experiments.measures.columns import column_means, recalls

        ks = [k for k in self.keys if k <= rows.num_keys]
        if not ks:
            return
        size = rows_per_block(len(rows), rows.num_keys, 1, rows.value_NV.shape[1], memory, resident)
        half = len(rows) // 2  # rows come by their position
        earlier, later = rows.block(0, half), rows.block(half, len(rows))
        earlier_N, _ = column_means(earlier, ks, size)
        later_N, own_K = column_means(later, ks, size)
        place = rows.layer, rows.heads[0], rows.length, rows.variant
        chosen = {"same_rows": later_N, "earlier_rows": earlier_N}
        if place in before:
            chosen["other_text"] = before[place]
        before[place] = later_N
        facts: dict[str, Any] = {"layer": rows.layer, "head": rows.heads[0], "sample": rows.sample}
        facts |= {"variant": rows.variant, "length": rows.length, "rows": len(later)}
        recall = {way: recalls(mean_N, later_N, ks) for way, mean_N in chosen.items()} | {"each_row": own_K}
        for way, recall_K in recall.items():
            columns = {name: np.repeat(fact, len(ks)) for name, fact in (facts | {"chosen": way}).items()}
            yield columns | {"k": np.array(ks), "recall": recall_K.cpu().numpy()}

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of the mean recall over heads and samples."""
        lines = pd.read_parquet(folder / COLUMNS.file)
        title = f"{manifest['label']}: share of the mass on k columns, mean over all heads and samples"
        table = Table(title=title, title_justify="left", title_style="bold")
        ways = list(dict.fromkeys(lines["chosen"]))
        for name in ("variant", "context", "k", *(way.replace("_", " ") for way in ways)):
            table.add_column(name, justify="left" if name == "variant" else "right", no_wrap=True)
        for (variant, length, k), part in lines.groupby(["variant", "length", "k"], sort=False):
            mean = part.groupby("chosen")["recall"].mean()
            table.add_row(
                str(variant), str(length), str(k), *(f"{mean[way]:.3f}" if way in mean else "" for way in ways)
            )
        return Findings([table], {})

    def curves(self, folder: Path) -> pd.DataFrame:
        """Return the mean recall over context length, a column per number of columns and way to choose them."""
        lines = pd.read_parquet(folder / COLUMNS.file)
        of_way = {f"recall/{way}/{k}": part for (way, k), part in lines.groupby(["chosen", "k"], sort=False)}
        means = {name: part.groupby("length")["recall"].mean() for name, part in of_way.items()}
        return pd.DataFrame(means).rename_axis("length")
