"""What a sweep is called: the words of its command, the same when the command is repeated.

The process that launches a sweep writes them beside its jobs' folders, where the jobs of every launcher can read them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.durable import read_json, write_json

SWEEP = "sweep.json"
MOST = 128  # letters of a W&B group
# Overrides that say where and how, not what is measured: a sweep that is repeated elsewhere keeps its name.
ELSEWHERE = ("outputs", "tracking", "device", "memory_gb", "threads", "triton", "plan", "force")


def name_of(overrides: Iterable[str]) -> str:
    """Return the name of the sweep that a command line asks for, in whatever order its words stand.

    >>> name_of(["seed=0,1", "experiment=heads", "force=true"])
    'heads seed=0,1'
    """
    words = deciding(overrides)
    presets = sorted(word.partition("=")[2] for word in words if word.startswith("experiment="))
    others = sorted(word for word in words if not word.startswith("experiment="))
    name = " ".join(presets + others)
    if len(name) <= MOST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: MOST - len(digest) - 2]}… {digest}"


def deciding(overrides: Iterable[str]) -> list[str]:
    """Return the overrides that say what is measured, in their order."""
    return [word for word in overrides if word.lstrip("+~").partition("=")[0].split(".")[0] not in ELSEWHERE]


def write(folder: Path, overrides: Iterable[str], jobs: int = 0) -> None:
    """Write what a sweep is into the folder of its jobs, if it can be written; a job will say if nothing can.

    That is its name, its words, how many jobs it has (0 where that is not known), when it began, and which process
    launched it.
    """
    words = list(overrides)
    about: dict[str, Any] = {"name": name_of(words), "words": words, "jobs": jobs, "began": time.time()}
    about |= {"pid": os.getpid(), "node": platform.node()}
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SWEEP, about)


def read(folder_of_job: Path) -> str | None:
    """Return the name of the sweep that a job belongs to, None for a job alone."""
    return read_json(folder_of_job.parent / SWEEP).get("name") or None
