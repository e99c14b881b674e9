"""What does a head attend to? Recorded attention matrices, as cells."""

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence
from analysis.records.matrices import Matrix
from analysis.settings import Settings
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Say of the matrix of every head what mass it puts where; of some heads, keep the cells."""
    if not evidence.matrices:
        raise NothingMeasured("no run recorded attention matrices")
    matrices = _one_per_head(evidence.matrices)
    lines, cells = [], []
    kept = np.linspace(len(matrices) - 1, 0, min(config.matrices, len(matrices))).round().astype(int)
    for i, matrix in enumerate(matrices):
        values = matrix.read()
        lines.append(_summary(matrix, values) | {"cells": bool(i in kept), "recorded": len(evidence.matrices)})
        if i in kept:
            cells.append(_cells(i, matrix, values, config.side))
    return {"attention": pd.DataFrame(lines), "attention_cells": pd.concat(cells, ignore_index=True)}


def _one_per_head(matrices: list[Matrix]) -> list[Matrix]:
    """Pick of each head the matrix that is pooled least, and of those the longest: it shows most."""
    best: dict[tuple[str, int, int], Matrix] = {}
    for matrix in sorted(matrices, key=lambda m: (m.key_pool * m.query_pool, -m.length, m.sample)):
        best.setdefault((matrix.label, matrix.layer, matrix.head), matrix)
    return [matrix for matrix in matrices if matrix in best.values()]


def _cells(index: int, matrix: Matrix, values: np.ndarray, side: int) -> pd.DataFrame:
    """Return a matrix as lines of cells, pooled to at most `side` of them each way: means over queries, sums over keys.

    Three significant digits, which is what a float16 holds; a cell of keys that its queries cannot see is null.
    """
    queries, keys = (-(-count // side) for count in values.shape)
    ends, starts = ((np.arange(count) + shift) for count, shift in zip(values.shape, (1, 0), strict=True))
    future = (starts * matrix.key_pool)[None, :] >= (ends * matrix.query_pool)[:, None]
    future &= (values == 0) & (matrix.kind == "real")
    rows, columns = (np.arange(0, count, step) for count, step in zip(values.shape, (queries, keys), strict=True))
    lines = np.diff(np.append(rows, values.shape[0]))[:, None]
    pooled = np.add.reduceat(np.add.reduceat(values, columns, axis=1), rows, axis=0) / lines
    pooled[np.logical_and.reduceat(np.logical_and.reduceat(future, columns, axis=1), rows, axis=0)] = np.nan
    rounded = [[float(f"{value:.3g}") for value in line] for line in pooled]
    about = {"matrix": index, "query_pool": queries * matrix.query_pool, "key_pool": keys * matrix.key_pool}
    return pd.DataFrame(rounded, columns=[f"key_{j}" for j in range(pooled.shape[1])]).assign(**about)


def _summary(matrix: Matrix, cells: np.ndarray) -> dict[str, object]:
    """Say of one matrix what the eye takes from it: mass on the first keys, and near the diagonal."""
    return {
        "label": matrix.label,
        "kind": matrix.kind,
        "seed": matrix.seed,
        "layer": matrix.layer,
        "head": matrix.head,
        "sample": matrix.sample,
        "length": matrix.length,
        "query_pool": matrix.query_pool,
        "key_pool": matrix.key_pool,
        "queries": cells.shape[0],
        "keys": cells.shape[1],
        "first_cell_mass": float(cells[:, 0].mean()),
        "diagonal_mass": float(np.diagonal(cells).mean()) if cells.shape[0] == cells.shape[1] else np.nan,
        "row_sum": float(cells.sum(1).mean()),
    }
