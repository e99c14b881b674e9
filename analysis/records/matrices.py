"""Recorded attention matrices: what there is, and reading one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from analysis.records.load import Run
from experiments.errors import UserError
from experiments.tables.attention import ATTENTION

FILE = ATTENTION.file


@dataclass(frozen=True)
class Matrix:
    """One recorded attention matrix; pools are in tokens per cell, 1 where nothing was pooled."""

    path: Path
    name: str
    run: str
    label: str
    kind: str
    seed: int
    layer: int
    head: int
    sample: int
    length: int
    query_pool: int
    key_pool: int

    def read(self) -> NDArray[np.float64]:
        """Read it, shape (queries, keys): mean over a cell's queries of the mass summed over its keys."""
        with safe_open(self.path, framework="numpy") as file:
            return file.get_tensor(self.name).astype(np.float64)


def recorded(runs: Sequence[Run]) -> list[Matrix]:
    """List the matrices of given runs, real models first, by label, layer, head, length and sample.

    None are read.

    Raises
    ------
    UserError : if a file cannot be read or does not say what its matrices are.
    """
    matrices = []
    for run in runs:
        path = run.file(FILE)
        if path is None:
            continue
        try:
            with safe_open(path, framework="numpy") as file:
                index = json.loads(file.metadata()["matrices"])
            for name, about in index.items():
                indices = {key: int(about[key]) for key in ("layer", "head", "sample", "length")}
                pools = {key: int(about[key]) for key in ("query_pool", "key_pool")}
                seed = int(run.manifest["seed"])
                matrices.append(Matrix(path, name, run.id, run.label, run.kind, seed, **indices, **pools))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as problem:
            raise UserError(
                f"cannot read {path} ({type(problem).__name__}): delete its run and measure it again"
            ) from problem
    return sorted(matrices, key=lambda m: (m.kind != "real", m.label, m.layer, m.head, m.length, m.sample, m.run))
