"""The run id: a hash of everything that decides the numbers, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from experiments import kernels, measures
from experiments.part import class_of, fields_of
from experiments.schema import Job
from experiments.selectors.several import each

SCHEMA_VERSION = 2  # raise it when a column changes its meaning: older records are then measured anew
READABLE = frozenset({1, 2})  # schemas whose records the analysis reads; `Table.older` has what they lack


def identity(job: Job) -> dict[str, Any]:
    """Return what decides the numbers, in plain values: the fields that the runner reads, and versions of the parts.

    Files and models stand as the hash of their content. The names of source and runner, the key and the name under
    which `several` holds its methods, outputs, tracking, launcher, device, memory, threads, triton, plan
    and force are no part.
    """
    source, runner = job.source, job.runner
    fields = {f"source.{name}": value for name, value in source.identity().items()}
    fields |= {f"runner.{name}": value for name, value in asdict(runner).items() if name != "name"}
    return {
        "schema": SCHEMA_VERSION,
        "measures": measures.VERSION,
        "kernels": kernels.VERSION,
        "source": class_of(source),
        "runner": class_of(runner),
        "fields": runner.deciding(fields),
        "windows": class_of(job.windows) | job.windows.identity(),
        "selectors": [fields_of(selector) for selector in each(job.selector)],
        "seed": job.seed if source.draws or runner.draws else None,
    }


def run_id(job: Job) -> str:
    """Return the shortened SHA-256 of the identity, 16 hexadecimal digits."""
    canonical = json.dumps(identity(job), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
