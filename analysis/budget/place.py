"""Where a budget file goes: no file of another model, or of another kind of budget, is written over unasked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from analysis.budget.by_needs import NEEDS
from experiments.errors import UserError
from experiments.windows.head_laws import read_budget


def place_of(folder: Path, name: str | None, content: dict[str, Any]) -> Path:
    """Return where to write a budget; keys that were shared out are a file of their own.

    Raises
    ------
    UserError : if the name is no plain file name, or that of another model's budget.
    """
    called = name or re.sub(r"[^\w.-]+", "-", content["label"].lower()).strip("-.")
    if not name and content["by"] != NEEDS:
        called = f"{called}-{content['by']}"
    if called != Path(called).name or called.startswith("."):
        raise UserError(f"--name {called}: give a plain file name, without folders")
    path = folder / f"{called}.json"
    if not _is_of_another(path, content["model"]):
        return path
    if name:
        raise UserError(f"--name {name}: {path} is the budget of another model; give another name")
    return folder / f"{called}-{content['model'][:6]}.json"


def _is_of_another(path: Path, model: str) -> bool:
    if not path.exists():
        return False
    try:
        return bool(read_budget(str(path))["model"] != model)
    except UserError:  # damaged or of an older kind: there is nothing to keep
        return False
