"""The approximation runner: how far is each sparse row from the exact one, for every window at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from experiments import curves, summary
from experiments.cache import NO_EARLIER_ROWS
from experiments.errors import UserError
from experiments.lazy import np, pd, torch
from experiments.machine import Machine
from experiments.measures.memory import rows_per_block
from experiments.plan import Plan, plan_of_rows
from experiments.ranges import MOST_LOGIT, check_range
from experiments.records.folder import Record
from experiments.records.table_file import read
from experiments.rows import Rows
from experiments.runners import Findings, without
from experiments.selectors import Selector, check_weighs, flops
from experiments.selectors.several import each
from experiments.sources import MatrixRequest, ReadsText
from experiments.tables import Table as RecordTable
from experiments.tables.attention import ATTENTION
from experiments.tables.rows import ROWS
from experiments.tables.unions import UNIONS
from experiments.tables.windows import MEANS, WINDOWS
from experiments.windows import PerLayer, Windows

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.measures.compute import Compute
    from experiments.measures.own import Place

Columns = dict[str, "Tensor"]
Lines = tuple[Rows, list[tuple[RecordTable, dict[str, Any]]]]
"""A group of rows, and the columns of the tables that come of it."""

UNION_BYTES = 50  # of an entry of consecutive rows: logits, weights, probabilities by row and by key, and masks
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
    tables: ClassVar[tuple[RecordTable, ...]] = (ROWS, WINDOWS, UNIONS, ATTENTION)
    version: ClassVar[int] = 2
    draws: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range("runner.score_power", self.score_power, above=0, most=MOST_LOGIT)  # null: softmax
        check_range("runner.matrix_size", self.matrix_size, least=1, most=MOST_CELLS)
        check_range("runner.matrix_layers", self.matrix_layers, least=0)
        check_range("runner.matrix_heads", self.matrix_heads, least=0)

    def deciding(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return every field, the size of matrices only if there are any."""
        return fields if self.matrix_layers else without(fields, {"runner.matrix_size"})

    def check(self, source: Any, selector: Any, windows: Any) -> None:
        """Raise UserError if no measured variant has windows, or matrices are asked for and of no measured head."""
        self._check_matrices(source)
        self._check_variants(source)
        if any(method.traits.layers_below for method in each(selector)):
            self._check_layers_below(source, each(selector))
        if (requested := windows.at(max(source.lengths))).by_estimate:
            self._check_estimates(source, each(selector), requested)
        if isinstance(source, ReadsText) and source.is_encoder():
            for method in each(selector):
                if method.traits.looks_back:
                    raise UserError(f"selector={method.name}: {NO_EARLIER_ROWS}")

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
        from experiments.measures.measure import measure_rows
        from experiments.measures.workers import Workers

        resident, methods, windows_at = source.resident_bytes(), each(selector), cache(windows.at)
        fitting = partial(rows_per_block, memory_bytes=machine.memory_bytes, resident_bytes=resident)
        shared: dict[Place, dict[int, Tensor]] = {}  # of the layer at hand

        def block_size(rows: Rows, count: int, side_by_side: int) -> int:
            return max(1, fitting(len(rows), rows.num_keys, count, rows.value_NV.shape[1]) // side_by_side)

        def windows_of(rows: Rows) -> Windows:
            return windows_at(rows.length) if self.windowed(rows.variant) else Windows([], [])

        def lines(rows: Rows, statistics: Columns, of_methods: list[Columns]) -> Lines:
            requested, of_rows = windows_of(rows), (ROWS, _row_columns(rows, statistics, of_methods[0]["output"]))
            pairs = zip(methods, of_methods, strict=True) if len(requested) else ()
            of_windows = [_window_columns(rows, method, requested, statistics, own) for method, own in pairs]
            return rows, [of_rows, *((WINDOWS, columns) for columns in of_windows)]

        def lines_of(rows: Rows, compute: Compute, side_by_side: int) -> Lines:
            prepared = rows.cache()
            answering = [method.prepare(prepared) for method in methods]
            requested = windows_of(rows)
            sizes = requested.of_heads(rows.layer, rows.heads, rows.n_R, rows.position_R)
            if shared:
                sizes = replace(sizes, shared=shared.get((rows.variant, rows.length, rows.kv_head), {}))
            block = block_size(rows, len(requested), side_by_side)
            return lines(rows, *measure_rows(rows, answering, sizes, block, compute))

        def lines_at_once(groups: Sequence[Rows]) -> list[Lines] | None:
            from experiments.measures import together

            if not together.serves(methods, windows_at(groups[0].length)):
                return None
            measured = together.measure_together(groups, windows_of, fitting, triton=machine.triton)
            return [lines(of.rows, of.statistics, [of.measures] * len(methods)) for of in measured]

        def on_rows(groups: Sequence[Rows]) -> None:
            if self.score_power is not None:
                groups = [self._by_power(rows) for rows in groups]
            if windows_at(groups[0].length).of_kind(PerLayer):
                from experiments.measures.own import share_layer

                windowed = [rows for rows in groups if self.windowed(rows.variant)]
                shared.update(share_layer(windowed, methods, windows_at))
            for rows, tables in workers.each(lines_of, groups, lines_at_once):
                for table, columns in tables:
                    record.append(table, columns)
                for _ in rows.heads:
                    advance()

        def unions_of(rows: Rows, compute: Compute, side_by_side: int) -> dict[str, Any]:
            from experiments.measures.unions import measure_unions

            needed = side_by_side * len(rows) * rows.num_keys * UNION_BYTES
            if needed > machine.memory_bytes - resident:
                raise UserError(
                    f"source.runs: {len(rows)} rows of {rows.num_keys} keys at once need {needed / 1e9:.1f} GB; give "
                    "shorter runs, or more memory_gb"
                )
            return _union_columns(rows, measure_unions(rows, source.runs, compute))

        def on_runs(groups: Sequence[Rows]) -> None:
            for lines in workers.each(unions_of, groups):
                record.append(UNIONS, lines)

        def on_matrix(rows: Rows) -> None:
            from experiments.measures.matrix import attention_matrix

            matrix, query_pool, key_pool = attention_matrix(rows, self.matrix_size, block_size(rows, 1, 1))
            kind = "full" if query_pool == key_pool == 1 else "pooled"
            place = {"layer": rows.layer, "head": rows.heads[0], "sample": rows.sample, "length": rows.length}
            facts = {"query_pool": query_pool, "key_pool": key_pool, "kind": kind}
            record.add_matrix(ATTENTION, matrix, place | facts)

        with Workers() as workers:
            source.stream(
                on_rows,
                seed=seed,
                device=machine.device,
                matrices=MatrixRequest(self.matrix_layers, self.matrix_heads),
                record=on_matrix,
                runs=on_runs,
            )

    def groups(self, source: Any, selector: Any, windows: Any) -> int:
        """Return how many groups of rows (head x length x sample) there are."""
        return sum(batch.count for batch in source.batches())

    def plan(self, source: Any, selector: Any, windows: Any, machine: Machine) -> Plan:
        """Return what a job costs."""
        measured = [batch for batch in source.batches() if self.windowed(batch.variant)]
        return plan_of_rows(source, each(selector), windows, machine, measured)

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return the summary of the two tables."""
        rows = read(folder / ROWS.file, ROWS, summary.ROW_COLUMNS)
        windows = read(folder / WINDOWS.file, WINDOWS, summary.WINDOW_COLUMNS)
        selectors = windows["selector"].unique()
        label = manifest["label"] if selectors[0] == "oracle" else f"{manifest['label']}, keys kept by {selectors[0]}"
        title = f"{label}: {len(rows)} rows in {manifest['seconds']:.0f} s, peak {manifest['peak_rss_mb']:.0f} MB"
        first = windows[windows["selector"] == selectors[0]]
        if selectors[0] != "oracle":
            title += "\nk_min is of the most probable keys, whichever are kept; tau is of those kept"
        shown = [summary.table(rows, first, title), summary.sentence(rows)]
        if len(selectors) > 1:
            shown.append(summary.selectors(windows))
        return Findings(
            [part for part in shown if part],
            {"label": label, "model": manifest["hashes"]["model"], **summary.findings(rows, first)},
        )

    def curves(self, folder: Path) -> pd.DataFrame:
        """Return the means over heads and samples of k_min and of the errors of each window."""
        rows = read(folder / ROWS.file, ROWS, curves.ROW_COLUMNS)
        windows = read(folder / WINDOWS.file, WINDOWS, curves.WINDOW_COLUMNS)
        return curves.curves_over_length(rows, windows)

    def windowed(self, variant: str) -> bool:
        """Say whether windows of the rows of a variant are recorded, or the rows alone."""
        return self.window_variants is None or variant in self.window_variants

    def _check_variants(self, source: Any) -> None:
        """Raise UserError if the windows of no measured variant are recorded."""
        measured = sorted({batch.variant for batch in source.batches()})
        if not any(map(self.windowed, measured)):
            raise UserError(
                f"runner.window_variants={self.window_variants} names none of the measured variants: "
                f"choose among {', '.join(measured)}, or null for all"
            )

    def _check_layers_below(self, source: Any, methods: Sequence[Selector]) -> None:
        """Raise UserError if a method needs more layers below than the source keeps."""
        kept = source.keep_layers if isinstance(source, ReadsText) else 0
        for method in methods:
            if method.traits.layers_below > kept:
                raise UserError(
                    f"selector={method.name}: it needs the layers below, and the source keeps {kept}: give a model "
                    f"and source.keep_layers={method.traits.layers_below}"
                )

    def _check_estimates(self, source: Any, methods: Sequence[Selector], windows: Windows) -> None:
        """Raise UserError if windows go by estimates that a method does not make, or by heads that are left out."""
        for method in methods:
            check_weighs(method, windows)
        if windows.of_kind(PerLayer) and isinstance(source, ReadsText) and source.heads is not None:
            raise UserError(
                f"windows.ada shares keys among all heads of a layer, and source.heads={source.heads} measures some: "
                "leave out source.heads"
            )

    def _by_power(self, rows: Rows) -> Rows:
        """Return the rows with attention in proportion to a power of the products."""
        if rows.softcap is not None or rows.sink_S is not None:
            raise UserError(
                f"runner.score_power={self.score_power:g}: attention in proportion to |q.k|^p has no soft cap "
                "and no learned sink, which this model has; leave it out"
            )
        return replace(rows, power=self.score_power, variant=f"{rows.variant}, |x|^{self.score_power:g}")

    def _check_matrices(self, source: Any) -> None:
        """Raise UserError if matrices are asked for and no measured head is among them."""
        if not self.matrix_layers and not self.matrix_heads:
            return
        layers, heads = source.layers_and_heads()
        if not set(layers) & set(self.matrix_layers) or not set(heads) & set(self.matrix_heads):
            raise UserError(
                f"runner.matrix_layers={self.matrix_layers} and matrix_heads={self.matrix_heads} name no measured "
                f"head: give both, among layers {layers[0]}..{layers[-1]} and heads {heads[0]}..{heads[-1]}"
            )


def _keys(rows: Rows, lines: int) -> dict[str, Any]:
    """Return the columns that say where `lines` lines of each head come from."""
    facts: dict[str, Any] = {"layer": rows.layer, "sample": rows.sample, "variant": rows.variant, "length": rows.length}
    columns = {name: np.repeat(fact, len(rows.heads) * lines) for name, fact in facts.items()}
    return columns | {"head": np.repeat(rows.heads, lines)}


def _union_columns(rows: Rows, lines: list[dict[str, float | int]]) -> dict[str, Any]:
    facts = {"layer": rows.layer, "kv_head": rows.kv_head, "sample": rows.sample, "length": rows.length}
    places = {name: np.repeat(fact, len(lines)) for name, fact in facts.items()}
    return places | {name: np.array([line[name] for line in lines]) for name in lines[0]}


def _row_columns(rows: Rows, statistics: dict[str, Tensor], output_R: Tensor) -> dict[str, Any]:
    measured = statistics | {"position": rows.position_R.cpu(), "output_norm": output_R.sqrt()}
    return _keys(rows, len(rows) // len(rows.heads)) | {name: values_R.numpy() for name, values_R in measured.items()}


def _window_columns(
    rows: Rows, selector: Selector, windows: Windows, statistics: dict[str, Tensor], measured: dict[str, Tensor]
) -> dict[str, Any]:
    """Return the lines of every head's windows: means over its rows, those that have a value.

    An estimate may fail in a row, or have no value at so small a budget.
    """
    heads, lines = len(rows.heads), len(rows.heads) * len(windows)
    k_RW, n_R1 = measured["k"].double(), statistics["n"].double()[:, None]
    dims = rows.key_ND.shape[1], rows.value_NV.shape[1]
    costs = selector.keys_read(n_R1, k_RW, dims[0]), flops(selector, n_R1, k_RW, *dims)
    outputs = ("output_truncated", "output_renormalised")
    names = [*(column.name for column in MEANS), *outputs]
    # one mean of all is quicker than each
    # where a budget is too small nothing is read
    read = [torch.where(measured["failed"].isnan(), torch.nan, cost) for cost in costs]
    every = torch.stack([k_RW, *read, *(measured[name] for name in names)]).unflatten(1, (heads, -1))
    means = every.mean(2)
    if means.isnan().any():
        means = every.nanmean(2)
    columns = dict(zip(("k", "keys_read", "flops", *names), means.flatten(1).numpy(), strict=True))
    for name in outputs:
        # of the same rows: where an estimate fails, its row counts in neither
        output_RW = measured["output"][:, None].expand_as(k_RW).masked_fill(measured[name].isnan(), torch.nan)
        error_HW = columns.pop(name).reshape(heads, -1) / output_RW.unflatten(0, (heads, -1)).nanmean(1).numpy()
        columns[name.replace("output", "output_error")] = np.sqrt(error_HW).ravel()
    named = {name: np.tile(np.array(values), heads) for name, values in windows.columns().items()}
    columns |= {"selector": np.repeat(selector.name, lines), "rows": np.repeat(len(rows) // heads, lines)}
    return _keys(rows, len(windows)) | named | columns
