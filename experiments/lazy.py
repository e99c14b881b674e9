"""Packages that take long to import, each imported when something of it is first used.

A configuration is composed of dataclasses whose methods compute with torch, but help, a list of runs or a refusal needs
only their fields. Files that composing imports take these names from here; all others import the packages themselves.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


class Lazy:
    """Stands for a module. Nothing else in the process sees it, unlike a loader that is put into `sys.modules`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._module: Any = None

    def __getattr__(self, attribute: str) -> Any:
        if self._module is None:
            self._module = importlib.import_module(self._name)
        return getattr(self._module, attribute)

    def __reduce__(self) -> tuple[type[Lazy], tuple[str]]:
        return Lazy, (self._name,)


if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
else:
    np, pd, pa, pq, torch = map(Lazy, ("numpy", "pandas", "pyarrow", "pyarrow.parquet", "torch"))

__all__ = ["np", "pa", "pd", "pq", "torch"]
