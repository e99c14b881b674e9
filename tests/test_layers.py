"""Data flows one way through experiments/: a room imports itself and what stands before it, never what comes after."""

import ast
from pathlib import Path

import pytest

import experiments

ROOT = Path(experiments.__file__).parent
# In the order of the flow; rooms of one line do not import each other.
ROOMS = [
    ["known_models"],
    ["environment", "errors", "durable", "numba_cache", "lazy", "threads", "options"],
    ["ranges", "misspelt"],
    ["tables", "part", "tasks"],
    ["cache", "answers"],
    ["rows"],
    ["windows"],
    ["selectors"],
    ["reference"],
    ["kernels"],
    ["batched"],
    ["measures"],
    ["machine", "schema"],
    ["models"],
    ["sources"],
    ["records"],
    ["summary"],
    ["curves"],
    ["plan"],
    ["runners"],
    ["tracking"],
    ["command"],
    ["job", "status", "completion"],
    ["launch"],
]
RANK = {room: i for i, rooms in enumerate(ROOMS) for room in rooms}


def imports(path):
    """Return the modules of experiments that a file imports, wherever it does, but for the types of a signature."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {id(n) for node in ast.walk(tree) if _types_only(node) for n in ast.walk(node)}
    nodes = [node for node in ast.walk(tree) if id(node) not in hidden]
    from_names = [
        [node.module] if node.module != "experiments" else [f"experiments.{alias.name}" for alias in node.names]
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module
    ]
    names = [name for part in from_names for name in part]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return [name for name in names if name.startswith("experiments.")]


def _types_only(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def room(module):
    return module.split(".")[1]


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_runs_back_up(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert own in RANK, f"{own} is a new room: give it its place in the order"
    for module in imports(path):
        other = room(module)
        if other != own:
            assert RANK[other] < RANK[own], f"{path.relative_to(ROOT)} imports {module}, which comes after it"


def test_experiments_never_imports_the_analysis():
    for path in FILES:
        assert "analysis" not in {name.split(".")[0] for name in _every_import(path)}, path


def _every_import(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
