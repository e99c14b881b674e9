"""The approximation runner: how far is each sparse row from the exact one, for every window at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from experiments import summary
from experiments.errors import UserError
from experiments.machine import Machine
from experiments.measures.block import measure_rows
from experiments.measures.matrix import attention_matrix
from experiments.measures.memory import rows_per_block
from experiments.plan import Plan, plan_of_rows
from experiments.ranges import MOST_LOGIT, check_range
from experiments.records.folder import Record
from experiments.rows import Rows
from experiments.runners import Findings
from experiments.schema import Job
from experiments.selectors import Selector, each
from experiments.sources import MatrixRequest, Source
from experiments.windows import Windows
from experiments.windows.standard import Standard

# Means over rows, as windows.parquet names them; the output errors are ratios of RMS and made apart.
MEANS = ("dropped_mass", "tv", "kl", "linf_truncated", "linf_renormalised", "l2_truncated", "l2_renormalised")

MOST_CELLS = 8192  # a side of a recorded matrix


@dataclass
class Approximation:
    """Measure every window of every row, and record the attention matrices that are asked for."""

    name: str = "approximation"
    matrix_layers: list[int] = field(default_factory=list)
    matrix_heads: list[int] = field(default_factory=list)
    matrix_size: int = 512
    window_variants: list[str] | None = None
    score_power: float | None = None

    def __post_init__(self) -> None:
        check_range("runner.score_power", self.score_power, above=0, most=MOST_LOGIT)  # null: softmax
        check_range("runner.matrix_size", self.matrix_size, least=1, most=MOST_CELLS)
        check_range("runner.matrix_layers", self.matrix_layers, least=0)
        check_range("runner.matrix_heads", self.matrix_heads, least=0)

    def identity(self) -> dict[str, object]:
        """Return every field; for softmax, without the power, as records were named before there was one."""
        return {name: value for name, value in asdict(self).items() if name != "score_power" or value is not None}

    def run(
        self,
        source: Source,
        selector: Selector,
        windows: Standard,
        machine: Machine,
        seed: int,
        record: Record,
        advance: Callable[[], None],
    ) -> None:
        """Measure everything that `source` pushes; call `advance` after each group of rows."""
        self._check_matrices(source)
        self._check_variants(source)
        resident = source.resident_bytes()
        selectors = each(selector)

        def block_size(rows: Rows, count: int) -> int:
            width = rows.value_NV.shape[1]
            return rows_per_block(len(rows), rows.keys, count, width, machine.memory_bytes, resident)

        def on_rows(rows: Rows) -> None:
            windowed = self.windowed(rows.variant)
            if self.score_power is not None:
                rows = replace(rows, power=self.score_power, variant=f"{rows.variant}, |x|^{self.score_power:g}")
            asked = windows.at(rows.length).of_head(rows.layer, rows.head) if windowed else Windows([], [])
            statistics, measured = measure_rows(rows, selectors, asked, block_size(rows, len(asked)))
            record.rows.append(_row_columns(rows, statistics, measured[0]["output"]))
            for chosen, of_selector in zip(selectors, measured, strict=True):
                if windowed:
                    record.windows.append(_window_columns(rows, chosen, asked, statistics, of_selector))
            advance()

        def on_matrix(rows: Rows) -> None:
            matrix, query_pool, key_pool = attention_matrix(rows, self.matrix_size, block_size(rows, 1))
            name = f"layer{rows.layer:02d}.head{rows.head:02d}.sample{rows.sample}.length{rows.length}"
            facts: dict[str, object] = {
                "layer": rows.layer,
                "head": rows.head,
                "sample": rows.sample,
                "length": rows.length,
                "query_pool": query_pool,
                "key_pool": key_pool,
                "kind": "full" if query_pool == key_pool == 1 else "pooled",
            }
            record.add_matrix(name, matrix, facts)

        source.stream(
            on_rows,
            seed=seed,
            device=machine.device,
            matrices=MatrixRequest(self.matrix_layers, self.matrix_heads),
            record=on_matrix,
        )

    def groups(self, source: Source, windows: Standard) -> int:
        """Return how many groups of rows (head x length x sample) there are."""
        return sum(batch.count for batch in source.batches())

    def plan(self, job: Job, machine: Machine) -> Plan:
        """Return what a job costs."""
        return plan_of_rows(job, machine)

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return the summary of the two tables."""
        rows = pd.read_parquet(folder / "rows.parquet", columns=summary.ROW_COLUMNS)
        windows = pd.read_parquet(folder / "windows.parquet", columns=summary.WINDOW_COLUMNS)
        selectors = windows["selector"].unique()
        label = manifest["label"] if selectors[0] == "oracle" else f"{manifest['label']}, keys kept by {selectors[0]}"
        title = f"{label}: {len(rows)} rows in {manifest['seconds']:.0f} s, peak {manifest['peak_rss_mb']:.0f} MB"
        first = windows[windows["selector"] == selectors[0]]
        if selectors[0] != "oracle":
            title += "\nk_min is of the most probable keys, whichever are kept; tau is of those kept"
        shown = [summary.table(rows, first, title), summary.sentence(rows)]
        if len(selectors) > 1:
            shown.append(summary.selectors(windows))
        return Findings([part for part in shown if part], {"label": label, **summary.findings(rows, first)})

    def windowed(self, variant: str) -> bool:
        """Say whether windows of the rows of a variant are recorded, or the rows alone."""
        return self.window_variants is None or variant in self.window_variants

    def _check_variants(self, source: Source) -> None:
        """Raise UserError if the windows of no measured variant are recorded."""
        measured = sorted({batch.variant for batch in source.batches()})
        if not any(map(self.windowed, measured)):
            raise UserError(
                f"runner.window_variants={self.window_variants} names none of the measured variants: "
                f"choose among {', '.join(measured)}, or null for all"
            )

    def _check_matrices(self, source: Source) -> None:
        """Raise UserError if matrices are asked for and no measured head is among them."""
        if not self.matrix_layers and not self.matrix_heads:
            return
        layers, heads = source.layers_and_heads()
        if not set(layers) & set(self.matrix_layers) or not set(heads) & set(self.matrix_heads):
            raise UserError(
                f"runner.matrix_layers={self.matrix_layers} and matrix_heads={self.matrix_heads} name no measured "
                f"head: give both, among layers {layers[0]}..{layers[-1]} and heads {heads[0]}..{heads[-1]}"
            )


def _place(rows: Rows) -> dict[str, Any]:
    return {
        "layer": rows.layer,
        "head": rows.head,
        "sample": rows.sample,
        "variant": rows.variant,
        "length": rows.length,
    }


def _row_columns(rows: Rows, statistics: dict[str, Tensor], output_R: Tensor) -> dict[str, Any]:
    columns = {name: values_R.numpy() for name, values_R in statistics.items()}
    place = {name: np.repeat(value, len(rows)) for name, value in _place(rows).items()}
    return place | {"position": rows.position_R.cpu().numpy()} | columns | {"output_norm": output_R.sqrt().numpy()}


def _window_columns(
    rows: Rows, selector: Selector, windows: Windows, statistics: dict[str, Tensor], measured: dict[str, Tensor]
) -> dict[str, Any]:
    output = measured["output"].mean()
    k_RW, n_R1 = measured["k"].double(), statistics["n"].double()[:, None]
    place = {name: np.repeat(value, len(windows)) for name, value in _place(rows).items()}
    return place | {
        "rows": np.repeat(len(rows), len(windows)),
        "selector": np.repeat(selector.name, len(windows)),
        **{name: np.array(values) for name, values in windows.columns().items()},
        "k": k_RW.mean(0).numpy(),
        "keys_read": selector.keys_read(n_R1, k_RW, rows.key_ND.shape[1]).mean(0).numpy(),
        **{name: measured[name].mean(0).numpy() for name in MEANS},
        "output_error_truncated": (measured["output_truncated"].mean(0) / output).sqrt().numpy(),
        "output_error_renormalised": (measured["output_renormalised"].mean(0) / output).sqrt().numpy(),
    }
