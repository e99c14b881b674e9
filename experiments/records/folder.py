"""One run's folder: complete or absent.

Everything is written into a hidden folder beside it while the run goes on, the manifest last, and the whole is then
renamed into place: a killed run leaves no folder under its own name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
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
REPLACED = "-replaced"  # what a folder that gives way to a new one is called meanwhile
_LEFTOVER = re.compile(rf"\{PARTIAL}(?P<run>[^-]+)-(?P<node>.+)-(?P<pid>\d+)-[^-]+({REPLACED})?")
MANIFEST = "manifest.json"
GROUPS_HELD = 128  # groups of lines kept in memory before they go to disk


def run_folder(outputs: Path, run_id: str) -> Path:
    """Return the folder of a run."""
    return outputs / "runs" / run_id


def finished(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a complete and undamaged run, None if there is no such run in `folder`."""
    manifest, _ = inspect(folder)
    return manifest


def inspect(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Return the manifest of a complete and undamaged run and "", or None and what is wrong with the folder.

    Every file is compared with the SHA-256 that the manifest, written last, has of it, and the manifest with its own.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["status"] != "complete":
            return None, f"its manifest says {manifest['status']!r}"
        if manifest["seal"] != _hash_of_manifest(manifest):
            return None, "its manifest is not the one that was written"
        for name, digest in manifest["files"].items():
            if _sha256(folder / name) != digest:
                return None, f"{name} is not the file that was written"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return None, " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return manifest, ""


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, with the SHA-256 of every other file of the folder and of the manifest itself."""
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    content = manifest | {"files": files}
    content["seal"] = _hash_of_manifest(content)
    (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")


def _hash_of_manifest(manifest: dict[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Record:
    """The files of a run while it is measured: growing tables, of which a runner fills its own, and matrices."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = _GrowingTable(folder / "rows.parquet")
        self.windows = _GrowingTable(folder / "windows.parquet")
        self.losses = _GrowingTable(folder / "losses.parquet")
        self.retrieval = _GrowingTable(folder / "retrieval.parquet")
        self.decoding = _GrowingTable(folder / "decoding.parquet")
        self._matrices: dict[str, Tensor] = {}
        self._facts: dict[str, dict[str, object]] = {}

    def add_matrix(self, name: str, matrix: Tensor, facts: dict[str, object]) -> None:
        """Keep one attention matrix and what its cells stand for."""
        self._matrices[name] = matrix
        self._facts[name] = facts

    def close(self, config_yaml: str, manifest: Callable[[], dict[str, Any]]) -> None:
        """Write what is still held, and the manifest last, so that its seconds and memory cover everything else."""
        for table in (self.rows, self.windows, self.losses, self.retrieval, self.decoding):
            table.close()
        if self._matrices:
            metadata = {"matrices": json.dumps(self._facts)}
            save_file(self._matrices, self.folder / "attention.safetensors", metadata=metadata)
        (self.folder / "config.yaml").write_text(config_yaml)
        seal(self.folder, manifest())


@contextlib.contextmanager
def new_record(folder: Path, *, replace: bool = False) -> Iterator[Record]:
    """Give a record to write, and put it in place as `folder` once the context ends without an error.

    An older folder of the same run is replaced if it is damaged or `replace` is set; otherwise another process was
    quicker, and its record, which is the same, stays. After an error nothing is left.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    partial: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        mine = f"{PARTIAL}{folder.name}-{platform.node()}-"
        partial = Path(tempfile.mkdtemp(prefix=f"{mine}{os.getpid()}-", dir=folder.parent))
        partial.chmod(0o755)  # mkdtemp makes it private; results are for everyone who may read outputs/
        yield Record(partial)
        for path in partial.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        _put_in_place(partial, folder, replace)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{folder}: cannot be written ({reason}); free space or choose another outputs=") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def abandoned(runs: Path) -> list[Path]:
    """Return what killed jobs of this machine have left in `runs`; of others nobody here can say."""
    left = []
    for path in sorted(runs.glob(f"{PARTIAL}*")):
        parts = _LEFTOVER.fullmatch(path.name)
        if parts and parts["node"] == platform.node() and not lives(int(parts["pid"])):
            left.append(path)
    return left


def lives(pid: int) -> bool:
    """Say whether a process of this machine still runs; one that is dead but not yet buried does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def tidy(folder: Path) -> None:
    """Remove what killed jobs of a run have left, and put back a record that was being replaced."""
    for path in abandoned(folder.parent):
        if not path.name.startswith(f"{PARTIAL}{folder.name}-"):
            continue
        if not (path.name.endswith(REPLACED) and _renamed(path, folder)):
            shutil.rmtree(path, ignore_errors=True)


def _put_in_place(partial: Path, folder: Path, replace: bool) -> None:
    replaced = partial.with_name(f"{partial.name}{REPLACED}")
    while not _renamed(partial, folder):
        if not replace and finished(folder):
            return
        shutil.rmtree(replaced, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):  # another process is just replacing it too
            folder.rename(replaced)
    shutil.rmtree(replaced, ignore_errors=True)


def _renamed(source: Path, target: Path) -> bool:
    """Rename a folder unless there is one of that name; return whether it was done."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


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
