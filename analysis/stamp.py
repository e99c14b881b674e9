"""Says what a result was made of; equal stamps mean that making it again would change nothing."""

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from analysis import save

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("analysis", "experiments")


@dataclass(frozen=True)
class Stamp:
    """Provenance of one result: the command that makes it, its configuration, code and inputs, and its files.

    `code` is a hash of all modules that the result's own module can reach; `inputs` maps run ids to hashes of their
    manifests, or names of tables to hashes of their files; `labels` maps run ids to what the result calls them;
    `results` maps the names of its files to their SHA-256, nothing before they are written.
    """

    command: str
    config: dict[str, Any]
    code: str
    inputs: dict[str, str]
    labels: dict[str, str]
    results: dict[str, str] = field(default_factory=dict)

    def matches(self, other: "Stamp") -> bool:
        """Tell whether both stand for results made of the same, whatever became of the files."""
        return replace(self, results={}) == replace(other, results={})

    def whole(self, results: Iterable[Path]) -> bool:
        """Tell whether the files are those that the stamp was written for: none lost, edited or cut."""
        return all(path.is_file() and sha256(path) == self.results.get(path.name) for path in results)

    def write(self, path: Path, results: Iterable[Path]) -> None:
        """Write the stamp of these files; only after them, so that a torn result never looks fresh."""
        made = replace(self, results={result.name: sha256(result) for result in results if result.is_file()})
        if made != read(path):
            save.write_text(path, json.dumps(asdict(made), indent=2, sort_keys=True) + "\n")


def make(
    command: str,
    config: DictConfig,
    module: str,
    inputs: Mapping[str, str],
    labels: Mapping[str, str] | None = None,
    files: Sequence[Path] = (),
) -> Stamp:
    """Stamp a result made by a module of the project, such as `analysis.studies.phase`.

    Parameters
    ----------
    command : makes the result again.
    config : all settings that the module reads.
    module : its import closure is the code; `files` are read besides.
    inputs, labels : see `Stamp`.

    Raises
    ------
    ModuleNotFoundError : if a module of the closure does not exist.
    """
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    # a round trip through JSON, or tuples and integer keys would never equal what is read back
    plain = json.loads(json.dumps(plain))
    return Stamp(command, plain, code_of(module, files), dict(inputs), dict(labels or {}))


def code_of(module: str, files: Sequence[Path] = (), root: Path = ROOT) -> str:
    """Hash the import closure of a module, comments and docstrings apart, and further files as they are."""
    code = hashlib.sha256()
    for name, path in closure(module, root).items():
        code.update(f"{name} {_parsed(path.read_bytes(), name)[0]}\n".encode())
    for path in files:
        code.update(path.read_bytes())
    return code.hexdigest()


def closure(module: str, root: Path = ROOT) -> dict[str, Path]:
    """Return every module of the project that importing one reads, itself included: files by name, sorted.

    Imports are read from the source, those inside functions too. A package's `__init__` belongs to the closure of its
    modules; what the top packages' import is not followed, for no result is made there.

    Raises
    ------
    ModuleNotFoundError : if the project imports a module of its own that does not exist.
    """
    reached: dict[str, Path] = {}
    left = [module]
    while left:
        name = left.pop()
        if name in reached:
            continue
        path = _file(name, root)
        if path is None:
            raise ModuleNotFoundError(f"no module {name} below {root}")
        reached[name] = path
        parent = name.rpartition(".")[0]
        if not parent:
            continue
        left.append(parent)
        package = name if path.name == "__init__.py" else parent
        for base, attribute in _parsed(path.read_bytes(), package)[1]:
            left.append(base)
            if attribute and _file(f"{base}.{attribute}", root):
                left.append(f"{base}.{attribute}")
    return dict(sorted(reached.items()))


def _file(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def _parsed(source: bytes, package: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Hash a source without its comments and docstrings, and list its imports of the project: (module, attribute)."""
    tree = ast.parse(source)
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            imports += [(base, alias.name) for alias in node.names]
        for block in ("body", "orelse", "finalbody"):
            if isinstance(statements := getattr(node, block, None), list):
                setattr(node, block, [each for each in statements if not _is_text(each)])
    of_project = tuple(each for each in imports if each[0].split(".")[0] in PACKAGES)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), of_project


def _is_text(statement: ast.AST) -> bool:
    """Tell whether a statement is a string and no more, as a docstring is."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def read(path: Path) -> Stamp | None:
    """Read a stamp; None if there is none, or none that can be understood."""
    try:
        stamp = Stamp(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return stamp if stamp and isinstance(stamp.results, Mapping) else None


def sha256(path: Path) -> str:
    """Hash a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
