"""Each layer imports only what stands left of it, and figures neither fit nor read records."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GROUND = ("interrupt", "save", "settings", "stamp", "outcome")
COMMANDS = ("budget",)  # packages of a command of their own
LAYERS = ("ground", "records", "statistics", "studies", "figures", "publishing", "commands")
DRAWN = {"analysis.statistics.closed_forms"}  # formulas, of which a figure draws curves


def layer(module):
    """Return the layer of a module of analysis by its name."""
    part = module.split(".")[1] if "." in module else ""
    if part in LAYERS:
        return part
    return "ground" if part in (*GROUND, "") else "commands"


def imports(path):
    """List the modules of analysis that a file imports, by the names it gives."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "analysis")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module and node.module.split(".")[0] == "analysis":
                for alias in node.names:
                    whole = ROOT / Path(*node.module.split("."), alias.name)
                    is_module = whole.with_suffix(".py").exists() or (whole / "__init__.py").exists()
                    yield f"{node.module}.{alias.name}" if is_module else node.module


FILES = sorted(path for path in (ROOT / "analysis").rglob("*.py") if path != ROOT / "analysis" / "__init__.py")


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_the_layers_are_the_packages():
    packages = {path.parent.name for path in (ROOT / "analysis").glob("*/__init__.py")}
    assert packages == set(LAYERS) - {"ground", "commands"} | set(COMMANDS)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_import_runs_back_up(path):
    own = LAYERS.index(layer(name_of(path)))
    above = [module for module in imports(path) if LAYERS.index(layer(module)) > own]
    assert above == []


@pytest.mark.parametrize("path", [path for path in FILES if layer(name_of(path)) == "figures"], ids=name_of)
def test_figures_read_no_record_and_fit_nothing(path):
    used = [module for module in imports(path) if layer(module) in ("records", "statistics", "studies")]
    assert set(used) <= DRAWN


def test_a_study_draws_on_no_other():
    for script in (ROOT / "analysis" / "studies").glob("[!_]*.py"):
        shared = {"analysis.studies", "analysis.studies.provenance"}
        assert {module for module in imports(script) if layer(module) == "studies"} <= shared
