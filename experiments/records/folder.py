"""One run's folder: complete or absent.

Everything is written into a hidden folder beside it while the run goes on, the manifest last, and the whole is then
renamed into place: a killed run leaves no folder under its own name.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save_file
from torch import Tensor

from experiments.errors import UserError

PARTIAL = ".partial-"
GROUPS_HELD = 128  # groups of lines kept in memory before they go to disk


def run_folder(outputs: Path, run_id: str) -> Path:
    """Return the folder of a run."""
    return outputs / "runs" / run_id


def finished(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a complete run, None if there is no complete run in `folder`."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        complete = manifest["status"] == "complete"
    except (OSError, ValueError, TypeError, KeyError):
        return None
    tables = (folder / "rows.parquet", folder / "windows.parquet")
    return manifest if complete and all(map(_whole, tables)) else None


def _whole(parquet: Path) -> bool:
    """Say whether a parquet file ends with a footer that can be read: a truncated one does not."""
    try:
        pq.read_metadata(parquet)
    except (OSError, pa.ArrowException):
        return False
    return True


class Record:
    """The files of a run while it is measured: two growing tables, and attention matrices."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = _GrowingTable(folder / "rows.parquet")
        self.windows = _GrowingTable(folder / "windows.parquet")
        self._matrices: dict[str, Tensor] = {}
        self._facts: dict[str, dict[str, object]] = {}

    def add_matrix(self, name: str, matrix: Tensor, facts: dict[str, object]) -> None:
        """Keep one attention matrix and what its cells stand for."""
        self._matrices[name] = matrix
        self._facts[name] = facts

    def close(self, config_yaml: str, manifest: Callable[[], dict[str, Any]]) -> None:
        """Write what is still held, and the manifest last, so that its seconds and memory cover everything else."""
        self.rows.close()
        self.windows.close()
        if self._matrices:
            metadata = {"matrices": json.dumps(self._facts)}
            save_file(self._matrices, self.folder / "attention.safetensors", metadata=metadata)
        (self.folder / "config.yaml").write_text(config_yaml)
        (self.folder / "manifest.json").write_text(json.dumps(manifest(), indent=2) + "\n")


@contextmanager
def new_record(folder: Path) -> Iterator[Record]:
    """Give a record to write, and put it in place as `folder` once the context ends without an error.

    An older folder of the same run is replaced. After an error nothing is left.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    partial: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        mine = f"{PARTIAL}{folder.name}-{platform.node()}-"
        _remove_abandoned(folder.parent, mine)
        partial = Path(tempfile.mkdtemp(prefix=f"{mine}{os.getpid()}-", dir=folder.parent))
        partial.chmod(0o755)  # mkdtemp makes it private; results are for everyone who may read outputs/
        yield Record(partial)
        for path in partial.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        _put_in_place(partial, folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{folder}: cannot be written ({reason}); free space or choose another outputs=") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _remove_abandoned(runs: Path, prefix: str) -> None:
    """Remove what killed jobs of the same run on this machine have left."""
    for leftover in runs.glob(f"{prefix}*"):
        pid = leftover.name.removeprefix(prefix).split("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)


def _put_in_place(partial: Path, folder: Path) -> None:
    if not folder.exists():
        partial.rename(folder)
        return
    replaced = partial.with_name(f"{partial.name}-replaced")
    folder.rename(replaced)
    partial.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


class _GrowingTable:
    """A parquet file that grows by groups of lines, so that a long run does not hold its table in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: list[dict[str, np.ndarray]] = []
        self._writer: pq.ParquetWriter | None = None

    def append(self, columns: dict[str, np.ndarray]) -> None:
        """Add lines, given as columns of equal length."""
        self._held.append(columns)
        if len(self._held) >= GROUPS_HELD:
            self._flush()

    def close(self) -> None:
        """Write what is held and finish the file."""
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        if not self._held:
            return
        table = pa.table({name: np.concatenate([columns[name] for columns in self._held]) for name in self._held[0]})
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)
        self._held.clear()
