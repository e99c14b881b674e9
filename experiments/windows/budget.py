"""The windows of a budget file: each head of a model keeps what its own law says it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from experiments.errors import UserError
from experiments.ranges import check_range
from experiments.windows import Visible, Windows, every_key
from experiments.windows.head_laws import HeadLaws, check_model, head_laws, laws_hash, read_budget


@dataclass
class Budget:
    """Windows factor x alpha n^C with alpha and C of each head, from `file`.

    Attributes
    ----------
    file
        As `python -m analysis.budget` writes it.
    factors
        On every head's window; 1 is the budget itself.
    """

    file: str
    factors: list[float]
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not self.factors:
            raise UserError("windows.factors is empty: give numbers > 0, 1 for the budget itself")
        check_range("windows.factors", self.factors, above=0)

    def identity(self) -> dict[str, object]:
        """Return what decides the windows: the laws in the file, not its name."""
        return {
            "budget": laws_hash(read_budget(self.file)),
            "factors": self.factors,
            "laws": HeadLaws.version,
        }

    def check_source(self, source: Any) -> None:
        """Raise UserError if the file is of another model."""
        check_model(read_budget(self.file), self.file, source)

    def at(self, length: int, visible: Visible = every_key) -> Windows:
        """Return the windows for rows of nominal context length `length`.

        Raises
        ------
        UserError
            If the file does not support a context of that length.
        """
        content = read_budget(self.file)
        if length > content["supported_length"]:
            raise UserError(
                f"windows.file={self.file} holds up to {content['supported_length']:.0f} keys, not {length}: measure "
                "longer contexts, or write it with --extrapolate"
            )
        rule = head_laws(content, self.factors)
        return Windows([rule], [rule.coordinates(length)])
