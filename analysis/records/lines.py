"""The lines of one table of all runs, held in few bytes, and frames of those that somebody asks for.

A million lines name some hundred places, so what names a line is held as codes; what was measured is as wide as in the
file. The configuration of a run is joined when a frame is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from experiments.tables import KINDS, Table

SAME = ("label", "design", "seed")  # runs that share them have lines of one design, each of which is kept once
UNCODED = ("position",)  # almost every line has another
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Coded:
    """A column of few different values: which of the `levels`, in rising order, each line has; -1 for none."""

    codes: NDArray[Any]
    levels: NDArray[Any]

    def isin(self, allowed: Sequence[object]) -> Mask:
        """Tell which lines have one of the values allowed, of which None stands for a missing one."""
        known = [None in allowed if _missing(value) else value in allowed for value in self.levels.tolist()]
        return np.array([*known, None in allowed])[self.codes]  # the last one is what the code -1 finds

    def series(self, mask: Mask | None, index: pd.RangeIndex) -> pd.Series:
        """Return the values of some lines; strings as categories, those that no line has too."""
        codes = self.codes if mask is None else self.codes[mask]
        if self.levels.dtype == object:
            return pd.Series(pd.Categorical.from_codes(codes, pd.Index(self.levels), validate=False), index=index)
        return pd.Series(self.levels[codes], index=index)


def _missing(value: object) -> bool:
    return value is None or value != value


class GrowingCodes:
    """A column of few different values while it is read."""

    def __init__(self) -> None:
        self._code: dict[Any, int] = {}
        self._parts: list[NDArray[Any]] = []

    def add(self, array: pa.Array) -> None:
        """Add the values of further lines."""
        if array.null_count and pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if not pa.types.is_dictionary(array.type):
            array = array.dictionary_encode(null_encoding="encode")
        values = [None if _missing(value) else value for value in array.dictionary.to_pylist()]
        code = np.array([self._code.setdefault(value, len(self._code)) for value in values])
        self._parts.append(narrowest(code[array.indices.to_numpy()], len(self._code)))

    def column(self, kind: str) -> Coded:
        """Return the column, of strings or of numbers by its numpy kind; nothing can be added then."""
        values = sorted(value for value in self._code if value is not None)
        if None in self._code and kind != "U":  # a number may be NaN
            values.append(None)
        rank = np.full(len(self._code), -1)
        rank[[self._code[value] for value in values]] = np.arange(len(values))
        types = {"U": object, "i": np.int32, "f": np.float64}
        return Coded(narrowest(rank, len(values))[joined(self._parts)], np.array(values, types[kind]))


def narrowest(codes: NDArray[Any], count: int) -> NDArray[Any]:
    """Return codes below `count` in as few bytes as they take, with room for -1."""
    return codes.astype(np.min_scalar_type(-max(count, 1)))


def joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Return the parts of a column as one and forget them."""
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    parts.clear()
    return whole


class GrowingLines:
    """The lines of a table while they are read, run by run."""

    def __init__(self, table: Table, columns: Iterable[str]) -> None:
        self.table = table
        keys = [column.name for column in table.keys]
        self.columns = [*keys, *(name for name in table.columns if name in set(columns) and name not in keys)]
        self._codes = {name: GrowingCodes() for name in keys if name not in UNCODED}
        self._numbers: dict[str, list[NDArray[Any]]] = {name: [] for name in self.columns if name not in self._codes}
        self._present: set[str] = set()
        self.counts: list[int] = []

    def add(self, chunks: Iterable[pa.Table]) -> None:
        """Add the lines of a further run; a column that it lacks is NaN there."""
        count = 0
        for chunk in chunks:
            count += len(chunk)
            for name in self.columns:
                if name not in chunk.column_names:
                    self._numbers[name].append(np.full(len(chunk), np.nan, np.float32))
                    continue
                self._present.add(name)
                array = chunk[name].combine_chunks()
                array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
                if name in self._codes:
                    self._codes[name].add(array)
                else:
                    self._numbers[name].append(array.to_numpy(zero_copy_only=False))
        self.counts.append(count)

    def lines(self, described: pd.DataFrame) -> Lines:
        """Return all lines, joined with what describes their runs; nothing can be added then."""
        which = np.repeat(narrowest(np.arange(len(self.counts)), len(self.counts)), self.counts)
        columns: dict[str, Coded | NDArray[Any]] = {}
        for name in self.columns:
            if name in self._codes:
                columns[name] = self._codes.pop(name).column(KINDS[self.table.columns[name].type])
            elif name in self._present:
                columns[name] = joined(self._numbers.pop(name))
        return Lines(which, columns, described)


@dataclass(frozen=True)
class Lines:
    """Lines of one table: the index of each one's run in `described`, a line per run, and the columns of the file."""

    run: NDArray[Any]
    columns: Mapping[str, Coded | NDArray[Any]]
    described: pd.DataFrame

    def __len__(self) -> int:
        return len(self.run)

    @property
    def names(self) -> list[str]:
        """All columns that a frame can have."""
        return [*self.columns, *self.described, "cluster"]

    def where(self, allowed: Mapping[str, Sequence[object]]) -> Mask:
        """Tell which lines have the values that are allowed; a column that there is not restricts nothing."""
        mask = np.ones(len(self), bool)
        for name, values in allowed.items():
            if name in self.described:
                of_run = self.described[name]
                mask &= (of_run.isin(list(values)) | (of_run.isna() & (None in values))).to_numpy()[self.run]
            elif isinstance(column := self.columns.get(name), Coded):
                mask &= column.isin(values)
        return mask

    def beside(self, mask: Mask, name: str, usual: object) -> Mask:
        """Keep of some lines those of labels that have another value in a column than the usual one, if only once."""
        column = self.columns[name]
        assert isinstance(column, Coded)
        runs = np.unique(self.run[mask & ~column.isin([usual])])
        labels = self.described["label"]
        return mask & labels.isin(labels.iloc[runs]).to_numpy()[self.run]

    def frame(self, names: Iterable[str], mask: Mask | None = None, wide: bool = False) -> pd.DataFrame:
        """Return some columns of some lines, in order; those that there are not are left out.

        Parameters
        ----------
        wide : numbers as int64 and float64, whatever the file holds.
        """
        count = len(self) if mask is None else int(mask.sum())
        index = pd.RangeIndex(count)
        series = {name: self._series(name, mask, index) for name in names if name in set(self.names)}
        if wide:
            for name, values in series.items():
                if values.dtype.kind in "if":
                    series[name] = values.astype(np.int64 if values.dtype.kind == "i" else np.float64)
        return pd.DataFrame(series, index=index, copy=False)

    def _series(self, name: str, mask: Mask | None, index: pd.RangeIndex) -> pd.Series:
        if name == "cluster":
            return self.cluster.series(mask, index)
        if name in self.described:
            which = self.run if mask is None else self.run[mask]
            values = self.described[name]
            stored = values if pd.api.types.is_numeric_dtype(values) else values.astype("category")
            return pd.Series(stored.array.take(which), index=index)
        column = self.columns[name]
        if isinstance(column, Coded):
            return column.series(mask, index)
        return pd.Series(column if mask is None else column[mask], index=index)

    @property
    def groups(self) -> NDArray[Any]:
        """Number of the design and seed that each run is of; of a text that is not shuffled, of the design alone.

        Its samples are numbered over all seeds: a piece that runs of two seeds have is the same.
        """
        read = (self.described["kind"] == "real") & ~self.described["shuffled"].astype(bool)
        told_apart = self.described.assign(seed=self.described["seed"].mask(read, 0))
        return told_apart.groupby([*SAME], sort=False).ngroup().to_numpy()

    @cached_property
    def cluster(self) -> Coded:
        """What a bootstrap may resample as independent: a document, or a draw of one design and seed.

        Another seed draws other Gaussian keys, but reads the same document again: that is no new evidence. The same
        seed draws the same keys in every run of a design.
        """
        sample = self.columns["sample"]
        assert isinstance(sample, Coded)
        first = self.described.groupby([*SAME])["run"].transform("first")
        origin = first.where(self.described["kind"] != "real", self.described["text_hash"]).astype(str).tolist()
        every = np.array([[f"{run}:{number}" for number in sample.levels.tolist()] for run in origin], dtype=object)
        place = self.run.astype(np.int64) * len(sample.levels) + sample.codes
        there = np.zeros(every.size, bool)
        there[place] = True
        values, code = np.unique(every.ravel()[there].astype(str), return_inverse=True)
        codes = np.zeros(every.size, np.int64)
        codes[there] = code
        return Coded(narrowest(codes, len(values))[place], values.astype(object))

    def each_once(self, keys: Sequence[str]) -> Lines:
        """Drop the lines that an earlier run of the same group has too; see `groups`."""
        group = self.groups
        repeated = np.bincount(group)[group] > 1
        if not repeated.any():
            return self
        again = np.flatnonzero(repeated[self.run])
        cluster, parts = self.cluster, {"group": group[self.run[again]]}
        for name, column in {"cluster": cluster, **{key: self.columns[key] for key in keys}}.items():
            parts[name] = (column.codes if isinstance(column, Coded) else column)[again]
        keep = np.ones(len(self), bool)
        keep[again] = ~pd.DataFrame(parts).duplicated().to_numpy()
        columns = {
            name: Coded(column.codes[keep], column.levels) if isinstance(column, Coded) else column[keep]
            for name, column in self.columns.items()
        }
        return Lines(self.run[keep], columns, self.described)

    def with_most_keys(self, rows: Lines, place: Sequence[str]) -> Lines:
        """Add `n`, the most keys that a row of the same place sees, 0 where `rows` have none.

        Rows of a group lie together, as they were measured, and so do its windows: each run of lines of one place is
        looked up once.
        """
        group = self.groups
        own, theirs = group[self.run].astype(np.int64), group[rows.run].astype(np.int64)
        places = group.max() + 1.0
        for name in place:
            one, other = self.columns[name], rows.columns[name]
            assert isinstance(one, Coded)
            assert isinstance(other, Coded)
            values = sorted({*one.levels.tolist(), *other.levels.tolist()})
            code = {value: i for i, value in enumerate(values)}
            places *= len(values)
            own *= len(values)
            own += np.array([code[value] for value in one.levels.tolist()])[one.codes]
            theirs *= len(values)
            theirs += np.array([code[value] for value in other.levels.tolist()])[other.codes]
        assert places < np.iinfo(np.int64).max
        n, starts = rows.columns["n"], _starts(theirs)
        assert not isinstance(n, Coded)
        most = pd.Series(np.maximum.reduceat(n, starts)).groupby(theirs[starts]).max()
        first = _starts(own)
        seen = np.repeat(most.reindex(own[first], fill_value=0).to_numpy(), np.diff(np.append(first, len(own))))
        return Lines(self.run, {**self.columns, "n": seen}, self.described)


def _starts(places: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return where a line is of another place than the one before it."""
    return np.flatnonzero(np.append(True, places[1:] != places[:-1]))
