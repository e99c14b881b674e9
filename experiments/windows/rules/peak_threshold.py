"""Peak threshold windows: all keys with p_j > (a / n) max p, n the keys that the row sees (arXiv 2512.12087)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from experiments.windows.rules.relative_threshold import RelativeThreshold


@dataclass
class PeakThreshold(RelativeThreshold):
    """As `RelativeThreshold`, of the row's largest probability."""

    rule: str = "peak_threshold"
    of_peak: ClassVar[bool] = True
