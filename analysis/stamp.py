"""Says what a result was made of; equal stamps mean that making it again would change nothing."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from analysis import save
from analysis.load import Run

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Stamp:
    """Provenance of one result: the command that makes it, its configuration, code and records, and its files.

    `code` is a hash of the sources that shape the result; `records` maps run ids to hashes of manifests, `labels` to
    what the result calls them; `results` maps the names of its files to their SHA-256, nothing before they are written.
    """

    command: str
    config: dict[str, Any]
    code: str
    records: dict[str, str]
    labels: dict[str, str]
    results: dict[str, str] = field(default_factory=dict)

    def matches(self, other: "Stamp") -> bool:
        """Tell whether both stand for results made of the same, whatever became of the files."""
        return replace(self, results={}) == replace(other, results={})

    def whole(self, results: Iterable[Path]) -> bool:
        """Tell whether the files are those that the stamp was written for: none lost, edited or cut."""
        return all(path.is_file() and _sha256(path) == self.results.get(path.name) for path in results)

    def write(self, path: Path, results: Iterable[Path]) -> None:
        """Write the stamp of these files; only after them, so that a torn result never looks fresh."""
        made = replace(self, results={result.name: _sha256(result) for result in results if result.is_file()})
        if made != read(path):
            save.write_text(path, json.dumps(asdict(made), indent=2, sort_keys=True) + "\n")


def make(command: str, configs: Sequence[DictConfig], scripts: Iterable[Path], runs: Iterable[Run]) -> Stamp:
    """Stamp a result made by the shared modules and scripts of its own, from given runs."""
    sources = [*sorted(PACKAGE.glob("*.py")), PACKAGE / "paper.mplstyle", PACKAGE / "figures/__init__.py"]
    code = hashlib.sha256()
    for source in [*sources, *scripts]:
        code.update(source.read_bytes())
    config = OmegaConf.to_container(OmegaConf.merge(*configs))
    assert isinstance(config, dict)
    # a round trip through JSON, or tuples and integer keys would never equal what is read back
    plain = json.loads(json.dumps(config))
    known = list(runs)
    return Stamp(
        command, plain, code.hexdigest(), {run.id: run.digest for run in known}, {run.id: run.label for run in known}
    )


def read(path: Path) -> Stamp | None:
    """Read a stamp; None if there is none, or none that can be understood."""
    try:
        stamp = Stamp(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return stamp if stamp and isinstance(stamp.results, Mapping) else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
