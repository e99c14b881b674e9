"""One run's folder: complete or absent.

Everything is written into a hidden folder beside it, the manifest last, and the whole is then renamed into place: a
killed run leaves no folder under its own name.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from experiments.errors import UserError
from experiments.runners import Tables

PARTIAL = ".partial-"


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
    return manifest if complete and (folder / "rows.parquet").exists() else None


def save(folder: Path, config_yaml: str, tables: Tables, manifest: Callable[[], dict[str, Any]]) -> None:
    """Write one run's files and put them in place in one step; an older folder of the same run is replaced.

    Parameters
    ----------
    manifest
        Called last, so that its seconds and memory cover the writing too.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    partial: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=folder.parent))
        (partial / "config.yaml").write_text(config_yaml)
        tables.rows.to_parquet(partial / "rows.parquet", index=False)
        tables.windows.to_parquet(partial / "windows.parquet", index=False)
        if tables.matrices:
            facts = {"matrices": json.dumps(tables.matrix_facts)}
            save_file(tables.matrices, partial / "attention.safetensors", metadata=facts)
        (partial / "manifest.json").write_text(json.dumps(manifest(), indent=2) + "\n")
        partial.chmod(0o755)  # mkdtemp makes it private; results are for everyone the umask allows
        for path in partial.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if folder.exists():
            replaced = folder.with_name(f"{partial.name}-replaced")
            folder.rename(replaced)
            partial.rename(folder)
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            partial.rename(folder)
        partial = None
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); free space or change outputs=") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
