"""What a job does with its source, selector and windows. One file per runner; the class is its own Hydra schema."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
from torch import Tensor


@dataclass
class Tables:
    """What a runner hands to the records: contract.md's two tables, and attention matrices with their metadata."""

    rows: pd.DataFrame
    windows: pd.DataFrame
    matrices: dict[str, Tensor] = field(default_factory=dict)
    matrix_facts: dict[str, dict[str, object]] = field(default_factory=dict)
