"""A tensor's name ends in the letters of its shape: each is explained atop its file, or in experiments/rows.py."""

import ast
import re
from pathlib import Path

import pytest

import experiments

ROOT = Path(experiments.__file__).parents[1]
FILES = sorted(path for part in ("experiments", "analysis") for path in (ROOT / part).rglob("*.py"))
LEGEND = re.compile(
    r"Shape letters?(?:,| besides those of `(?P<base>[a-z_.]+)`)?[^:]*:(?P<letters>.*?)(?:\n\n|$)", re.DOTALL
)
SUFFIX = re.compile(r"[a-z][a-z0-9_]*_(?P<letters>[A-Z0-9]*[A-Z][A-Z0-9]*)")


def explained(path):
    """Return the letters that a file's docstring explains, and the file that it names."""
    legend = LEGEND.search(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
    if legend is None:
        return set()
    own = set(re.findall(r"\b[A-Z]\b", legend["letters"]))
    return own | (explained(file_of(legend["base"])) if legend["base"] else set())


def file_of(module):
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def used(path):
    """Return the letters that names of a file end in, each with such a name."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    names += [node.arg for node in nodes if isinstance(node, ast.arg)]
    names += [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    found = [(name, match["letters"]) for name in names if (match := SUFFIX.fullmatch(name.lstrip("_")))]
    return {letter: name for name, letters in found for letter in letters if letter.isalpha()}


def test_the_letters_of_all_files_are_explained_and_used():
    assert {"R", "N", "D"} <= explained(ROOT / "experiments" / "rows.py")
    assert used(ROOT / "experiments" / "cache.py").keys() >= {"G", "N", "D"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_letter_of_a_shape_is_explained_atop_its_file(path):
    general = explained(ROOT / "experiments" / "rows.py") if path.is_relative_to(ROOT / "experiments") else set()
    missing = {letter: name for letter, name in used(path).items() if letter not in explained(path) | general}
    assert not missing, f"say what these letters stand for in a line of the file's docstring: {missing}"
