"""The run id: a hash of everything that decides the numbers, and of nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from experiments.schema import Job

SCHEMA_VERSION = 1  # raise it when a column changes its meaning: older records are then measured anew


def identity(job: Job) -> dict[str, Any]:
    """Return what decides the numbers: source, windows, selector, runner and seed, in plain values.

    Files and models stand as the hash of their content; outputs, tracking, launcher, device, memory, threads and
    force are no part of it.
    """
    return {
        "schema": SCHEMA_VERSION,
        "source": job.source.identity(),
        "windows": _identity(job.windows),
        "selector": dataclasses.asdict(job.selector),
        "runner": _identity(job.runner),
        "seed": job.seed,
    }


def _identity(part: Any) -> dict[str, Any]:
    return dict(part.identity()) if hasattr(part, "identity") else dataclasses.asdict(part)


def run_id(job: Job) -> str:
    """Return the shortened SHA-256 of the identity, 16 hexadecimal digits."""
    canonical = json.dumps(identity(job), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
