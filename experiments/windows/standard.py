"""The set of windows that a run measures, and the short names under which a user sets them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from experiments.errors import UserError
from experiments.part import fields_of
from experiments.windows import Visible, Windows, every_key

# Rules of the first records. Those that came later are part of what decides a run only where they have windows.
FIRST = ("fixed", "log", "power", "linear", "top_p", "threshold", "grid")


@dataclass
class Standard:
    """The window rules (docs/theory.md, section 1), with the parameters of each under a short name.

    `rules` holds the rules themselves (conf/windows/rules/*.yaml), which read the short names by interpolation, so that
    a rule is one file here and one yaml there.
    """

    fixed: list[int]
    log_powers: list[float]
    log_factors: list[float]
    exponents: list[float]
    scales: list[float]
    fractions: list[float]
    top_p: list[float]
    thresholds: list[float]
    own_top_p: list[float]
    own_threshold: list[float]
    ada: list[int]
    relative_threshold: list[float]
    peak_threshold: list[float]
    grid_per_octave: int
    rules: dict[str, Any] = field(default_factory=dict)
    version: ClassVar[int] = 1

    def identity(self) -> dict[str, object]:
        """Return the rules, which have read the other fields."""
        return {"rules": [fields_of(rule) for rule in self.rules.values() if rule.rule in FIRST or rule.coordinates(1)]}

    def check_source(self, source: Any) -> None:
        """Accept every source."""

    def at(self, length: int, visible: Visible = every_key) -> Windows:
        """Return the windows of all rules for rows of nominal context length `length`."""
        rules = list(self.rules.values())
        windows = Windows(rules, [rule.coordinates(length) for rule in rules])
        if not len(windows):
            raise UserError("no windows to measure: give windows.exponents, windows.fixed or another rule a value")
        return windows
