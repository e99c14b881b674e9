"""One table of a record as a parquet file: written while it is measured, and read back. Nobody else opens these files.

Floats are byte-stream split and everything else is dictionary encoded, all of it compressed by zstd: a third of what
float64 and snappy take.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import UserError
from experiments.lazy import np, pa, pq
from experiments.tables import KINDS, Column, Table

if TYPE_CHECKING:
    import pandas as pd

LINES_HELD = 1 << 16  # in memory before they go to disk, as one row group
LINES_READ = 1 << 20  # at once


class GrowingTable:
    """A table that grows by groups of lines, so that a long run does not hold it in memory."""

    def __init__(self, path: Path, table: Table) -> None:
        self._path = path
        self._table = table
        self._held: list[dict[str, np.ndarray]] = []
        self._lines_held = 0
        self._writer: Any = None
        self.lines = 0

    def append(self, lines: dict[str, np.ndarray]) -> None:
        """Add lines, given as columns of equal length; raise ValueError unless they are those that are declared."""
        self._table.check(lines)
        self._held.append(lines)
        count = len(next(iter(lines.values())))
        self.lines += count
        self._lines_held += count
        if self._lines_held >= LINES_HELD:
            self._flush()

    def close(self) -> None:
        """Write what is held and finish the file."""
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        if not self._held:
            return
        columns = self._table.columns.values()
        stored = {c.name: narrowed(np.concatenate([lines[c.name] for lines in self._held]), c) for c in columns}
        arrays = [_array(stored, column) for column in columns]
        if self._writer is None:
            self._writer = _writer(self._path, self._table)
        self._writer.write_table(pa.Table.from_arrays(arrays, names=list(self._table.columns)))
        self._held.clear()
        self._lines_held = 0


def _writer(path: Path, table: Table) -> Any:
    floats = [name for name, column in table.columns.items() if column.type == "float32"]
    schema = pa.schema([(c.name, pa.string() if c.type == "str" else c.type) for c in table.columns.values()])
    others = [name for name in table.columns if name not in floats]
    return pq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=others, use_byte_stream_split=floats, write_statistics=False
    )


def narrowed(values: np.ndarray, column: Column) -> np.ndarray:
    """Return values in the type that is declared for their column.

    Raises
    ------
    UserError
        If one does not fit: a count that is larger, or a finite number that would become infinite.
    """
    if column.type == "str" or str(values.dtype) == column.type:
        return values
    with np.errstate(over="ignore", under="ignore"):
        stored: np.ndarray = values.astype(column.type)
    if column.type == "float32":
        stored[np.abs(stored) < np.finfo(np.float32).tiny] = 0  # it would have fewer digits than its neighbours
        fits = np.isfinite(stored) == np.isfinite(values)
    else:
        fits = stored == values
    if not fits.all():
        raise UserError(f"{column.name} of {values[~fits][0]:g} cannot be recorded as {column.type}")
    return stored


def _array(stored: dict[str, np.ndarray], column: Column) -> Any:
    values = stored[column.name]
    if column.type == "str":
        # few different ones: pyarrow makes a string of each line else
        names, which = np.unique(values, return_inverse=True)
        return pa.DictionaryArray.from_arrays(which.astype(np.int32), names.astype(object)).cast(pa.string())
    null = None if column.same_as is None else values == stored[column.same_as]
    return pa.array(values, mask=null)


def column_names(path: Path) -> list[str]:
    """Return the columns that a file has."""
    return list(pq.read_metadata(path).schema.names)


def chunks(path: Path, table: Table, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Read columns of a table's file, a million lines at a time: in the declared types, with nulls filled.

    Strings come as dictionaries.

    Parameters
    ----------
    columns
        Those wanted, of which a file that was made before one of them lacks it, unless `Table.older` says what it was;
        None for all.

    Raises
    ------
    OSError, ArrowException
        If the file is not to be read.
    """
    declared = table.columns
    wanted = list(declared) if columns is None else list(columns)
    metadata = pq.read_metadata(path)
    there = set(metadata.schema.names)
    strings = [name for name in wanted if name in there and declared[name].type == "str"]
    with pq.ParquetFile(path, metadata=metadata, read_dictionary=strings) as file:
        fill = {name: declared[name].same_as for name in wanted if name in there and declared[name].same_as}
        read = [name for name in declared if name in there and (name in wanted or name in fill.values())]
        for batch in file.iter_batches(batch_size=LINES_READ, columns=read):
            held = dict(zip(batch.schema.names, batch.columns, strict=True))
            arrays = {name: _declared(held[name], declared[name]) for name in held}
            for name, other in fill.items():
                arrays[name] = _filled(arrays[name], arrays[other])
            for name in (table.older.keys() - there) & set(wanted):
                arrays[name] = _declared(pa.repeat(table.older[name], len(batch)), declared[name])
            yield pa.table({name: arrays[name] for name in wanted if name in arrays})


def _declared(array: Any, column: Column) -> Any:
    """Return an array in its column's type: older records hold wider ones."""
    if column.type == "str":
        return array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    values = array.to_numpy(zero_copy_only=False)
    if str(values.dtype) == column.type or values.dtype.kind != KINDS[column.type]:
        return array
    return pa.array(narrowed(values, column), mask=np.asarray(array.is_null()) if array.null_count else None)


def _filled(array: Any, other: Any) -> Any:
    if not array.null_count:
        return array
    values, instead = (each.to_numpy(zero_copy_only=False) for each in (array, other))
    return pa.array(np.where(np.asarray(array.is_null()), instead, values))


def read(path: Path, table: Table, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read columns of a table's file, all by default, strings as categories; see `chunks`."""
    return pa.concat_tables(chunks(path, table, columns)).unify_dictionaries().to_pandas()
