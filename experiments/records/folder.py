"""One run's folder: complete or absent.

Everything is written into a draft, a hidden folder beside it, while the run goes on, the manifest last, and the whole
is then renamed into place: a killed run leaves no folder under its own name.

Whoever writes a draft holds a lock on a file in it. The kernel lets the lock go when that process ends, however it
ends, and knows it from other containers and, on a shared disk, from other machines. So a draft whose lock is free was
left behind; no name of a machine and no number of a process, which two containers may share, decides that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from experiments.durable import sync
from experiments.errors import UserError
from experiments.lazy import np
from experiments.records.identity import READABLE, SCHEMA_VERSION
from experiments.records.table_file import GrowingTable
from experiments.tables import PARQUET, Table
from experiments.tables.attention import ATTENTION

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

PARTIAL = ".partial-"
REPLACED = "-replaced"  # what a folder that gives way to a new one is called meanwhile
_LEFTOVER = re.compile(rf"\{PARTIAL}(?P<run>[^-]+)-(?P<node>.+)-(?P<pid>\d+)-[^-]+({REPLACED})?")
MANIFEST = "manifest.json"
LOCK = "lock"


def run_folder(outputs: Path, run_id: str) -> Path:
    """Return the folder of a run."""
    return outputs / "runs" / run_id


def finished(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a complete and undamaged run, None if there is no such run in `folder`."""
    return inspect(folder)[0]


def inspect(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Return the manifest of a complete and undamaged run and "", or None and what is wrong with the folder.

    Every file is compared with the SHA-256 that the manifest, written last, has of it, and the manifest with its own.
    """
    try:
        manifest = json.loads(_regular(folder / MANIFEST).read_text())
        if manifest["status"] != "complete":
            return None, f"its manifest says {manifest['status']!r}"
        if manifest["schema"] not in READABLE:
            return None, f"schema {manifest['schema']}, now {SCHEMA_VERSION}"
        if manifest["run_id"] != folder.name:
            return None, f"it is the record of run {manifest['run_id']}"
        if manifest["seal"] != _hash_of_manifest(manifest):
            return None, "its manifest is not the one that was written"
        for name, digest in manifest["files"].items():
            if _sha256(folder / name) != digest:
                return None, f"{name} is not the file that was written"
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return None, " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return manifest, ""


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, with the SHA-256 of every other file of the folder and of the manifest itself."""
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name not in (MANIFEST, LOCK)}
    content = manifest | {"files": files}
    content["seal"] = _hash_of_manifest(content)
    (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")


def _hash_of_manifest(manifest: dict[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _regular(path: Path) -> Path:
    """Return the path of a file; raise OSError if it is a pipe, say, that nobody may ever write to."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path.name} is no file")
    return path


def _sha256(path: Path) -> str:
    with _regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Record:
    """The files of a run while it is measured: the growing tables of its runner, and matrices."""

    def __init__(self, folder: Path, tables: Sequence[Table]) -> None:
        self.folder = folder
        self._growing = {table: GrowingTable(folder / table.file, table) for table in tables if table.suffix == PARQUET}
        self._matrices: dict[str, Tensor] = {}
        self._facts: dict[str, dict[str, object]] = {}

    def append(self, table: Table, lines: dict[str, np.ndarray]) -> None:
        """Add lines to a table of the runner's, given as columns of equal length, in any order."""
        self._growing[table].append(lines)

    def add_matrix(self, table: Table, matrix: Tensor, facts: dict[str, object]) -> None:
        """Keep one attention matrix and what its cells stand for."""
        if set(facts) != set(table.columns):
            raise ValueError(f"{table.file}: facts {sorted(facts)}, but {sorted(table.columns)} are declared")
        layer, head, sample, length = (facts[key.name] for key in table.keys)
        name = f"layer{layer:02d}.head{head:02d}.sample{sample}.length{length}"
        self._matrices[name] = matrix
        self._facts[name] = facts

    def close(self, config_yaml: str, manifest: Callable[[], dict[str, Any]]) -> None:
        """Write what is still held, and the manifest last, so that its seconds and memory cover everything else.

        Raises
        ------
        UserError
            If no line was written: there is nothing that a record could say.
        """
        for table in self._growing.values():
            table.close()
        if not any(table.lines for table in self._growing.values()):
            raise UserError("nothing was measured, so nothing is recorded: give layers, heads, lengths and samples")
        if self._matrices:
            from safetensors.torch import save_file

            metadata = {"matrices": json.dumps(self._facts)}
            save_file(self._matrices, self.folder / ATTENTION.file, metadata=metadata)
        (self.folder / "config.yaml").write_text(config_yaml)
        seal(self.folder, manifest())


@contextlib.contextmanager
def new_record(folder: Path, tables: Sequence[Table], *, replace: bool = False) -> Iterator[Record]:
    """Give a record to write, and put it in place as `folder` once the context ends without an error.

    An older folder of the same run is replaced if it is damaged or `replace` is set; otherwise another process was
    quicker, and its record, which is the same, stays. After an error nothing is left.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    # named before it is made, so that a Ctrl-C at any moment finds what to remove
    partial = folder.with_name(f"{PARTIAL}{folder.name}-{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}")
    lock: int | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = _make_draft(partial)
        yield Record(partial, tables)
        for path in partial.iterdir():
            sync(path)
        sync(partial)
        _put_in_place(partial, folder, replace)
        (folder / LOCK).unlink(missing_ok=True)
        for path in (folder, folder.parent, folder.parent.parent):
            sync(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{folder}: cannot be written ({reason}); free space or choose another outputs=") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _make_draft(partial: Path) -> int:
    """Make the draft of a run's folder; return the open file whose lock says that somebody writes it."""
    while True:
        partial.mkdir(exist_ok=True)
        try:
            partial.chmod(0o755)  # whatever the umask: results are for everyone who may read outputs/
            lock = os.open(partial / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # another job took it for one left behind, before it had a lock
            continue
        with contextlib.suppress(OSError):  # a disk without locks: nobody can take the draft for one left behind
            fcntl.flock(lock, fcntl.LOCK_EX)
        if (partial / LOCK).exists():
            return lock
        os.close(lock)


def abandoned(runs: Path) -> list[Path]:
    """Return what killed jobs have left in `runs`."""
    left = []
    for path in sorted(runs.glob(f"{PARTIAL}*")):
        with _claimed(path) as free:
            if free:
                left.append(path)
    return left


@contextlib.contextmanager
def _claimed(draft: Path) -> Iterator[bool]:
    """Say whether nobody writes a draft, or replaces the record that was moved aside; nobody begins to meanwhile."""
    owner = draft.with_name(draft.name.removesuffix(REPLACED))
    try:
        lock = os.open(owner / LOCK, os.O_RDWR)
    except FileNotFoundError:  # of an older version, or not a moment old
        parts = _LEFTOVER.fullmatch(draft.name)
        yield bool(parts and parts["node"] == platform.node() and not lives(int(parts["pid"])))
        return
    except OSError:  # of another user, who alone may say
        yield False
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:  # held, or on a disk that has no locks
        free = False
    try:
        yield free
    finally:
        os.close(lock)


def lives(pid: int) -> bool:
    """Say whether a process of this machine still runs; a zombie counts as not running."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def tidy(folder: Path) -> None:
    """Remove what killed jobs of a run have left, and put back a record that was being replaced."""
    for path in sorted(folder.parent.glob(f"{PARTIAL}{folder.name}-*")):
        with _claimed(path) as free:
            if free and not (path.name.endswith(REPLACED) and _renamed(path, folder)):
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
