"""Sums over the records of a label, kept apart by head, context length and cluster."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]


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
        head_key = pd.MultiIndex.from_frame(frame[["layer", "head"]])
        head_keys = head_key.unique().sort_values()
        lengths, length = np.unique(frame["length"], return_inverse=True)
        names, cluster = np.unique(frame["cluster"].astype(str), return_inverse=True)
        shape = (len(head_keys), len(lengths), len(names))
        return cls(
            head_keys, lengths, np.ravel_multi_index((head_keys.get_indexer(head_key), length, cluster), shape), shape
        )

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
