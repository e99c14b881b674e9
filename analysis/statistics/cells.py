"""Sums over the records of a label, kept apart by head, context length and cluster."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]


def numbered(column: pd.Series) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Return the number of each line's value among those of a column in rising order, and these values.

    Categories, which may be many more than there are, are in rising order already.
    """
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return pd.factorize(column.to_numpy(), sort=True)
    codes, values = column.cat.codes.to_numpy(), column.cat.categories.to_numpy(object)
    there = np.flatnonzero(np.bincount(codes, minlength=len(values)))
    number = np.zeros(len(values), np.intp)
    number[there] = np.arange(len(there))
    return number[codes], values[there]


def heads_of(frame: pd.DataFrame) -> tuple[NDArray[np.intp], pd.MultiIndex]:
    """Return the number of each line's head in rising order, and the layer and head of each."""
    (layer, layers), (head, heads) = numbered(frame["layer"]), numbered(frame["head"])
    index, places = pd.factorize(layer * len(heads) + head, sort=True)
    keys = [layers[places // len(heads)], heads[places % len(heads)]]
    return index, pd.MultiIndex.from_arrays(keys, names=["layer", "head"])


@dataclass(frozen=True)
class Cells:
    """Where each line of a table belongs: `index` (lines,) into an array of `shape` (heads, lengths, clusters).

    `head_keys` are the heads' layer and head, sorted; `lengths` nominal context lengths, ascending.
    """

    head_keys: pd.MultiIndex
    lengths: NDArray[np.int64]
    index: NDArray[np.intp]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "Cells":
        """Sort the lines of a table of `analysis.load` into cells."""
        head, head_keys = heads_of(frame)
        length, lengths = numbered(frame["length"])
        cluster, names = numbered(frame["cluster"])
        shape = (len(head_keys), len(lengths), len(names))
        return cls(head_keys, lengths, np.ravel_multi_index((head, length, cluster), shape), shape)

    def sums(self, values: Array | None = None) -> Array:
        """Sum values (lines,) in each cell, or count the lines; an array of `shape`."""
        return (
            np.bincount(self.index, values, minlength=int(np.prod(self.shape))).reshape(self.shape).astype(np.float64)
        )

    def most(self, values: Array) -> Array:
        """Largest of values (lines,) of each head and length, (heads, lengths); 0 where there is no line."""
        largest = np.zeros(int(np.prod(self.shape)))
        np.maximum.at(largest, self.index, values)
        return largest.reshape(self.shape).max(-1)
