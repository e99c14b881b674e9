"""The sketches runner: does a sketch tell what an approximation would leave, before it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from rich.table import Table

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
from experiments.tables import Table as RecordTable
from experiments.tables.sketches import SKETCHES

NONE = float("nan")
SHARES = (0.25, 0.5)  # of the rows, taken from each column of the output


@dataclass
class Sketches:
    """Estimate the tail of rows, the rank tail of all rows of a head, and record the column tail of its output.

    A column tail is of the rows that are sampled; give as many rows as the context has keys for whole columns.
    """

    name: str = "sketches"
    keys: list[int] = field(default_factory=partial(list, (16, 64)))
    widths: list[int] = field(default_factory=partial(list, (4, 16)))
    draw: int = 0
    tables: ClassVar[tuple[RecordTable, ...]] = (SKETCHES,)
    version: ClassVar[int] = 1
    draws: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range("runner.keys", self.keys, least=1, most=MOST_KEYS)
        check_range("runner.widths", self.widths, least=1, most=1024)
        check_range("runner.draw", self.draw, least=0)
        if not self.keys or not self.widths:
            raise UserError("runner.keys and runner.widths: name at least one of each")

    def deciding(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return every field."""
        return fields

    def check(self, source: Any, selector: Any, windows: Any) -> None:
        """Raise UserError if a context has no more keys than are taken away."""
        if min(source.lengths) <= max(self.keys):
            raise UserError(
                f"runner.keys has {max(self.keys)}, but source.lengths {min(source.lengths)}: give longer contexts"
            )

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

        def on_rows(groups: Sequence[Rows]) -> None:
            for rows in groups:
                for of_head in rows.of_each_head():
                    lines = list(self._lines(of_head, machine.memory_bytes, source.resident_bytes()))
                    facts: dict[str, Any] = {
                        "layer": rows.layer,
                        "head": of_head.heads[0],
                        "sample": rows.sample,
                        "variant": rows.variant,
                        "length": rows.length,
                        "rows": len(of_head),
                    }
                    columns = {name: np.repeat(fact, len(lines)) for name, fact in facts.items()}
                    columns |= {name: np.array([line[name] for line in lines]) for name in lines[0]}
                    record.append(SKETCHES, columns)
                    advance()

        source.stream(on_rows, seed=seed, device=machine.device)

    def _lines(self, rows: Rows, memory: int, resident: int) -> Iterator[dict[str, Any]]:
        """Yield the numbers of one head."""
        from experiments.measures import residual_sketch as sketch

        if rows_per_block(len(rows), rows.num_keys, 1, rows.value_NV.shape[1], memory, resident) < len(rows):
            raise UserError(f"{len(rows)} rows of {rows.num_keys} keys at once need more memory: give more memory_gb")
        p_RN = torch.softmax(rows.logits().double(), -1)
        norm_R = p_RN.norm(dim=-1)
        for k in self.keys:
            tail_R = sketch.tail_norm(p_RN, k)
            for width in self.widths:
                of_rows = sketch.CountSketch(rows.num_keys, width * k, self.draw, p_RN.device)
                ratio_R = of_rows.tail(of_rows.of(p_RN), k) / tail_R.clamp(min=1e-300)
                low, middle, high = ratio_R.quantile(torch.tensor([0.1, 0.5, 0.9]).to(ratio_R)).tolist()
                left = float((tail_R / norm_R).mean())
                yield _line("row", k, width * k, left, middle, low, high)
            if k < min(p_RN.shape):
                true = sketch.rank_tail(p_RN, k)
                for width in self.widths:
                    estimate = sketch.sketched_rank_tail(p_RN, k, width * k, self.draw)
                    yield _line("matrix", k, width * k, float(true / p_RN.norm()), float(estimate / true))
        output_RV = p_RN @ rows.value_NV.double()
        for share in SHARES:
            k = max(round(share * len(rows)), 1)
            yield _line("column", k, 0, float(sketch.column_tail(output_RV, k).mean()))

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of the ratios."""
        lines = pd.read_parquet(folder / SKETCHES.file)
        table = Table(
            title=f"{manifest['label']}: estimate over truth, medians over heads",
            title_justify="left",
            title_style="bold",
        )
        for name in ("of", "k", "width", "left", "ratio"):
            table.add_column(name, justify="left" if name == "of" else "right", no_wrap=True)
        for (of, k, width), part in lines.groupby(["of", "k", "width"], sort=False):
            ratio = part["ratio"].median()
            table.add_row(
                str(of), str(k), str(width), f"{part['left'].mean():.2f}", "" if ratio != ratio else f"{ratio:.2f}"
            )
        return Findings([table], {})

    def curves(self, folder: Path) -> pd.DataFrame:
        """Return the medians of the ratios over context length, a column per size."""
        lines = pd.read_parquet(folder / SKETCHES.file).dropna(subset="ratio")
        wide = lines.pivot_table("ratio", "length", ["of", "k", "width"], aggfunc="median")
        wide.columns = pd.Index([f"ratio/{name[0]} {name[1]} of {name[2]}" for name in wide.columns.to_list()])
        return wide


def _line(
    of: str, k: int, width: int, left: float, ratio: float = NONE, low: float = NONE, high: float = NONE
) -> dict[str, Any]:
    return {"of": of, "k": k, "width": width, "left": left, "ratio": ratio, "ratio_low": low, "ratio_high": high}
