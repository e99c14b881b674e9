"""Where numbers come from: versions, git revision, peak memory."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import resource
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

PACKAGES = (
    "torch",
    "numpy",
    "pandas",
    "pyarrow",
    "transformers",
    "tokenizers",
    "gguf",
    "hydra-core",
    "safetensors",
)
ROOT = Path(__file__).resolve().parents[2]


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that touch the numbers."""
    result = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            result[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return result


@lru_cache(maxsize=1)
def git_revision() -> str | None:
    """Return the commit of this checkout, with `-dirty` if tracked files differ from it; None outside git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def peak_rss_mb() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    # On Linux getrusage starts a new program with what the process that started it had: the kernel's own mark does not.
    status = Path("/proc/self/status")
    if status.exists() and (mark := re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE)):
        return int(mark[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
