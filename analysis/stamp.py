"""Says what a result was made of; equal stamps mean that making it again would change nothing."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from analysis import save
from analysis.load import Run

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Stamp:
    """Provenance of one result: the command that makes it, its configuration, code and records.

    `code` is a hash of the sources that shape the result; `records` maps run ids to hashes of manifests.
    """

    command: str
    config: dict[str, Any]
    code: str
    records: dict[str, str]

    def matches(self, path: Path, results: Iterable[Path]) -> bool:
        """Tell whether all results exist and the stamp on disk says that they were made of the same."""
        return all(result.exists() for result in results) and read(path) == self

    def write(self, path: Path) -> None:
        """Write the stamp; only after its results, so that a torn result never looks fresh."""
        save.write_text(path, json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")


def make(command: str, configs: Sequence[DictConfig], script: Path | None, runs: Iterable[Run]) -> Stamp:
    """Stamp a result made by the shared modules and one script of its own, from given runs."""
    sources = [*sorted(PACKAGE.glob("*.py")), PACKAGE / "paper.mplstyle", PACKAGE / "figures/__init__.py"]
    code = hashlib.sha256()
    for source in [*sources, *([script] if script else [])]:
        code.update(source.read_bytes())
    config = OmegaConf.to_container(OmegaConf.merge(*configs))
    assert isinstance(config, dict)
    # a round trip through JSON, or tuples and integer keys would never equal what is read back
    plain = json.loads(json.dumps(config))
    return Stamp(command, plain, code.hexdigest(), {run.id: run.digest for run in runs})


def read(path: Path) -> Stamp | None:
    """Read a stamp; None if there is none, or none that can be understood."""
    try:
        return Stamp(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
