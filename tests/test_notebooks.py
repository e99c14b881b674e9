"""Every notebook in examples/ runs from its first cell to its last, as a kernel would run it."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def script(path):
    """Return the code of a notebook as one script that prints what each cell ends with."""
    content = json.loads(path.read_text(encoding="utf-8"))
    lines = []
    for cell in content["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert not cell["outputs"], "a notebook is kept without its outputs, which would grow old"
        tree = ast.parse("".join(cell["source"]))  # no magic: plain Python, which no kernel is needed for
        if isinstance(tree.body[-1], ast.Expr):
            shown = ast.Call(ast.Name("print", ast.Load()), [tree.body[-1].value], [])
            tree.body[-1] = ast.copy_location(ast.Expr(shown), tree.body[-1])
        lines.append(ast.unparse(ast.fix_missing_locations(tree)))
    return "\n".join(lines)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", script(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Gaussian, s = 0.8" in done.stdout
    assert "extrapolated" in done.stdout


def test_there_is_one():
    assert NOTEBOOKS
