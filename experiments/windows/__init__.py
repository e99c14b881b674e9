"""How many keys a row keeps: the window rules of theory.md section 1, and the set of windows that a run measures.

Shape letters: R rows, W windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from experiments.errors import UserError
from experiments.lazy import np, torch

if TYPE_CHECKING:
    from torch import Tensor

MOST_WINDOWS = 65_535  # the kernels count what lies between windows in 16 bits
# The columns that name a window (experiments/tables/place.py), where there is none.
DENSE = "dense"
DENSE_WINDOW = {"rule": DENSE, "parameter": math.nan, "scale": math.nan}
ANY_WINDOW = {"rule": "any", "parameter": math.nan, "scale": math.nan}  # of a method without a budget


Visible = Callable[["np.ndarray"], tuple["np.ndarray", "np.ndarray"]]
"""Maps context lengths n [N] to the keys that rows see of them [kinds, N], and the heads of each kind [kinds]."""


def every_key(n_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return that the rows of all heads see all n keys; see `Visible`."""
    return n_N[None], np.ones(1)


class RowFacts(Protocol):
    """What a window rule may ask about a block of exact rows."""

    @property
    def n_R(self) -> Tensor:
        """Keys each row can see [R] int64."""
        ...

    def k_min(self, eta: float) -> Tensor:
        """Return the smallest k >= 1 whose k most probable keys leave a dropped mass <= eta, per row [R] int64."""
        ...

    def count_above(self, epsilon: float) -> Tensor:
        """Return #{j: p_j > epsilon} per row [R] int64."""
        ...


class Rule(Protocol):
    """What the window set asks of a rule. One file per rule in `rules/`; the class is its own Hydra schema."""

    rule: str
    version: ClassVar[int]

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return `parameter` and `scale` (windows.parquet) of this rule's windows for rows of nominal `length`."""
        ...

    def sizes(self, exact: RowFacts, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return the real number of keys that each window asks for [R, W]; a rule of n alone reads only `n_R`."""
        ...


@runtime_checkable
class PerHead(Protocol):
    """A rule that differs between heads."""

    def of_head(self, layer: int, head: int) -> Rule:
        """Return the rule of one head; raise UserError if nothing is known of the head."""
        ...


@runtime_checkable
class AsksTolerances(Protocol):
    """A rule that asks rows for their smallest window at some dropped masses."""

    def tolerances(self) -> list[float]:
        """Return the dropped masses."""
        ...


@runtime_checkable
class AsksThresholds(Protocol):
    """A rule that asks rows for the number of keys above some probabilities."""

    def thresholds(self) -> list[float]:
        """Return the probabilities."""
        ...


class WindowSet(Protocol):
    """What a job asks of its windows; `version` is raised when they change for the same fields."""

    version: ClassVar[int]

    def identity(self) -> dict[str, object]:
        """Return what decides the windows, with files replaced by the hash of what is used of them."""
        ...

    def check_source(self, source: Any) -> None:
        """Raise UserError if the windows are not made for a source's model."""
        ...

    def at(self, length: int, visible: Visible = every_key) -> Windows:
        """Return the windows for rows of nominal context length `length`."""
        ...


@dataclass(frozen=True)
class Windows:
    """The windows measured for rows of one nominal length, rule after rule."""

    rules: list[Rule]
    coordinates: list[list[tuple[float, float]]]

    def __post_init__(self) -> None:
        """Refuse more windows than the kernels can count, and two of one name, whose lines could not be told apart.

        Raises
        ------
        UserError
            In either case.
        """
        if len(self) > MOST_WINDOWS:
            raise UserError(f"windows: {len(self)} of them, but a row has at most {MOST_WINDOWS}: give fewer")
        names = set()
        for rule, part in zip(self.rules, self.coordinates, strict=True):
            for parameter, scale in part:
                name = (rule.rule, float(parameter), float(scale))
                if name in names:
                    raise UserError(f"windows: {rule.rule} {parameter:g} x {scale:g} is there twice: name each once")
                names.add(name)

    def __len__(self) -> int:
        """Return the number of windows W."""
        return sum(len(part) for part in self.coordinates)

    @property
    def etas(self) -> list[float]:
        """Tolerances that rules ask of the rows, told beforehand so that one pass can serve all."""
        return [eta for rule in self.rules if isinstance(rule, AsksTolerances) for eta in rule.tolerances()]

    @property
    def epsilons(self) -> list[float]:
        """Thresholds that rules ask of the rows."""
        return [eps for rule in self.rules if isinstance(rule, AsksThresholds) for eps in rule.thresholds()]

    def only(self, index: int) -> Windows:
        """Return the set that has window number `index` alone."""
        for rule, part in zip(self.rules, self.coordinates, strict=True):
            if index < len(part):
                return Windows([rule], [[part[index]]])
            index -= len(part)
        raise IndexError("no such window")

    def of_head(self, layer: int, head: int) -> Windows:
        """Return the windows of one head: a rule that differs between heads says what it is for this one.

        Raises
        ------
        UserError
            If a rule knows nothing of the head.
        """
        return replace(
            self, rules=[rule.of_head(layer, head) if isinstance(rule, PerHead) else rule for rule in self.rules]
        )

    def columns(self) -> dict[str, list[str] | list[float]]:
        """Return the columns of windows.parquet that name each window."""
        flat = [(rule.rule, *pair) for rule, part in zip(self.rules, self.coordinates, strict=True) for pair in part]
        return {
            "rule": [name for name, _, _ in flat],
            "parameter": [float(parameter) for _, parameter, _ in flat],
            "scale": [float(scale) for _, _, scale in flat],
        }

    def names(self) -> list[dict[str, str | float]]:
        """Return, per window, the columns that name it."""
        columns = self.columns()
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def keys(self, exact: RowFacts) -> Tensor:
        """Return the keys kept [R, W] int64: ceil(x (1 - 1e-9)) held within [1, n], x as the rule asks.

        Raises
        ------
        UserError
            If a rule's x is no number.
        """
        sizes = [torch.empty(len(exact.n_R), 0, dtype=torch.float64, device=exact.n_R.device)]
        for rule, part in zip(self.rules, self.coordinates, strict=True):
            if part:
                parameter_W, scale_W = torch.tensor(part, dtype=torch.float64, device=exact.n_R.device).unbind(1)
                sizes.append(rule.sizes(exact, parameter_W, scale_W).double())
        size_RW = torch.cat(sizes, dim=1)
        if size_RW.isnan().any():
            raise UserError("a window's number of keys is no number: its factors or exponents are too large")
        # held within the row before it becomes an integer: a large x has no int64
        return torch.ceil(size_RW * (1 - 1e-9)).clamp_(min=1).minimum(exact.n_R[:, None].double()).long()
