"""How many keys a row keeps: the window rules (docs/theory.md, section 1), and the set of windows that a run measures.

Shape letters: R rows, W windows, M windows that are shared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

from experiments.errors import UserError
from experiments.lazy import np, torch

if TYPE_CHECKING:
    from torch import Tensor

MOST_WINDOWS = 65_535  # the kernels hold a sum of values for each
MOST_KNOWN = 64  # blocks of rows, told apart by the keys that they see, whose sizes are kept
# The columns that name a window (experiments/tables/place.py), where there is none.
DENSE = "dense"
DENSE_WINDOW = {"rule": DENSE, "parameter": math.nan, "scale": math.nan}
ANY_WINDOW = {"rule": "any", "parameter": math.nan, "scale": math.nan}  # of a method without a budget


Kind = TypeVar("Kind")
Share = Callable[["Tensor", "Tensor"], "Tensor"]
"""Maps what a method takes for the logarithms of the keys' probabilities in rows of all heads of a layer [H, R, N], and
the keys that the rows see [R], to the keys that each head keeps [H, R]."""
Visible = Callable[["np.ndarray"], tuple["np.ndarray", "np.ndarray"]]
"""Maps context lengths n [N] to the keys that rows see of them [kinds, N], and the heads of each kind [kinds]."""


def every_key(n_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return that the rows of all heads see all n keys; see `Visible`."""
    return n_N[None], np.ones(1)


class Needs(Protocol):
    """What tells how many keys a block of rows needs, exactly or as a method estimates them."""

    def k_min(self, eta: float) -> Tensor:
        """Return the smallest k >= 1 whose first k keys leave a dropped mass <= eta, per row [R] int64."""
        ...

    def count_above(self, epsilon: float) -> Tensor:
        """Return how many of the first keys hold all with p_j > epsilon, per row [R] int64."""
        ...


class RowFacts(Needs, Protocol):
    """What a window rule may ask about a block of exact rows, whose first keys are the most probable ones."""

    @property
    def n_R(self) -> Tensor:
        """Keys each row can see [R] int64."""
        ...


class DecidingRows(RowFacts, Protocol):
    """What decides every window of a block of rows."""

    def count_relative(self, factor: float, of_peak: bool) -> Tensor:
        """Return #{j: p_j > factor / n}, or with `of_peak` #{j: p_j / max p > factor / n}, per row [R] int64."""
        ...


class Rule(Protocol):
    """What the window set asks of a rule. One file per rule in `rules/`; the class is its own Hydra schema.

    How many keys its windows keep follows from the number that rows see (`OfLength`), from the length of their
    context (`OfContext`), from a dropped mass (`OfTolerance`), from a probability (`OfThreshold`), from one in
    proportion to 1 / n (`OfRelativeThreshold`), from what the method takes for the row (`OfEstimate`), or from the
    estimates of all heads of the layer (`PerLayer`).
    """

    rule: str
    version: ClassVar[int]

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return `parameter` and `scale` (windows.parquet) of this rule's windows for rows of nominal `length`."""
        ...


@runtime_checkable
class OfLength(Protocol):
    """A rule whose windows are as large as the number of keys that a row sees makes them."""

    def sizes(self, n_R: Tensor, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return the real number of keys that each window asks for [R, W] of rows that see n keys [R]."""
        ...


@runtime_checkable
class OfContext(OfLength, Protocol):
    """A rule whose `sizes` go by the length of the whole context, whatever part of it a row sees."""

    by_context: ClassVar[bool]


@runtime_checkable
class OfTolerance(Protocol):
    """A rule whose windows keep the fewest keys that leave at most some dropped mass."""

    def tolerance(self, parameter: float) -> float:
        """Return the dropped mass of a window."""
        ...


@runtime_checkable
class OfThreshold(Protocol):
    """A rule whose windows keep the keys above some probability."""

    def threshold(self, parameter: float) -> float:
        """Return the probability of a window."""
        ...


@runtime_checkable
class OfRelativeThreshold(Protocol):
    """A rule whose windows keep the keys above a probability in proportion to 1 / n.

    `of_peak` says that it is one relative to the row's largest.
    """

    of_peak: ClassVar[bool]

    def factor(self, parameter: float) -> float:
        """Return n times the probability of a window."""
        ...


@runtime_checkable
class OfEstimate(Protocol):
    """A rule whose windows are as large as the method's own estimate of the row makes them."""

    def keys_of(self, needs: Needs, parameter: float) -> Tensor:
        """Return the keys that a window keeps [R] int64 of rows as the method estimates them."""
        ...


@runtime_checkable
class PerLayer(Protocol):
    """A rule that shares the keys of a layer among its heads; `sizes` (`OfLength`) says how many a head has on average.

    Shape letter: H heads.
    """

    def share(self, log_p_HRN: Tensor, k_R: Tensor) -> Tensor:
        """Return the keys of each head [H, R] int64.

        Parameters
        ----------
        log_p_HRN
            What the method takes for the logarithm of each key's probability; see `experiments.answers.Subset.log_p`.
        k_R
            Keys of a head, on average over the heads.
        """
        ...


@runtime_checkable
class PerHead(Protocol):
    """A rule that differs between heads."""

    def of_head(self, layer: int, head: int) -> Rule:
        """Return the rule of one head; raise UserError if nothing is known of the head."""
        ...


@dataclass(frozen=True)
class Sizes:
    """How many keys the windows of a block of rows keep, as far as that is known before the rows are.

    Attributes
    ----------
    given_RW
        Keys kept, int64; 0 where the rows decide.
    tolerances, thresholds
        Dropped mass, or probability, of each window by whose index the rows decide.
    estimated
        Rule and parameter of each window by whose index the method's own estimate of the rows decides.
    shared
        Keys that each of M methods keeps [M, R] in each window by whose index the heads of a layer share them.
    relative
        Factor a of the probability a / n of each window by whose index the rows decide, and whether it is relative to
        the row's largest.
    """

    given_RW: Tensor
    tolerances: dict[int, float]
    thresholds: dict[int, float]
    estimated: dict[int, tuple[OfEstimate, float]] = field(default_factory=dict)
    shared: dict[int, Tensor] = field(default_factory=dict)
    relative: dict[int, tuple[float, bool]] = field(default_factory=dict)

    def rows(self, start: int, stop: int) -> Sizes:
        """Return those of rows start..stop-1."""
        shared = {window: k_MR[:, start:stop] for window, k_MR in self.shared.items()}
        return replace(self, given_RW=self.given_RW[start:stop], shared=shared)

    @property
    def alike(self) -> bool:
        """Whether every method keeps as many keys."""
        return not self.estimated and not self.shared

    def of_method(self, k_RW: Tensor, number: int, own: Callable[[], Needs]) -> Tensor:
        """Return the keys that one method keeps [R, W] int64, of those that all would (`of`).

        Parameters
        ----------
        number
            Of the method, for what is shared.
        own
            Returns the rows as the method estimates them.
        """
        if self.alike:
            return k_RW
        k_RW = k_RW.clone()
        needs = own() if self.estimated else None
        for window, (rule, parameter) in self.estimated.items():
            assert needs is not None  # asked for where a window goes by them
            k_RW[:, window] = rule.keys_of(needs, parameter).clamp(min=1)
        for window, k_MR in self.shared.items():
            k_RW[:, window] = k_MR[number]
        return k_RW

    def with_relative(self, count: Callable[[float, bool], Tensor]) -> Sizes:
        """Return the same with what `DecidingRows.count_relative` decides given."""
        given_RW = self.given_RW.clone()
        for window, (factor, of_peak) in self.relative.items():
            given_RW[:, window] = count(factor, of_peak).clamp(min=1)
        return replace(self, given_RW=given_RW, relative={})

    def of(self, exact: DecidingRows) -> Tensor:
        """Return the keys kept [R, W] int64, within [1, n]; 1 where the method's own estimate decides."""
        given_RW = self.with_relative(exact.count_relative).given_RW if self.relative else self.given_RW
        k_RW = given_RW.clone()
        for window, eta in self.tolerances.items():
            k_RW[:, window] = exact.k_min(eta)
        for window, epsilon in self.thresholds.items():
            k_RW[:, window] = exact.count_above(epsilon)
        return k_RW.clamp_(min=1).minimum(exact.n_R[:, None])


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
    _known: dict[tuple[torch.device, bytes], Sizes] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse more windows than the kernels hold sums of, and two of one name, whose lines could not be told apart.

        Raises
        ------
        UserError
            In either case.
        """
        if len(self) > MOST_WINDOWS:
            raise UserError(f"windows: {len(self)} of them, but a row has at most {MOST_WINDOWS}: give fewer")
        names = [tuple(name.values()) for name in self.names()]
        if len(set(names)) < len(names):
            rule, parameter, scale = next(name for name in names if names.count(name) > 1)
            raise UserError(f"windows: {rule} {parameter:g} x {scale:g} is there twice: name each once")

    def __len__(self) -> int:
        """Return the number of windows W."""
        return sum(len(part) for part in self.coordinates)

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
        if not self._differs:
            return self
        return replace(
            self, rules=[rule.of_head(layer, head) if isinstance(rule, PerHead) else rule for rule in self.rules]
        )

    def of_heads(self, layer: int, heads: Sequence[int], n_R: Tensor, position_R: Tensor) -> Sizes:
        """Return how many keys the rows of some heads keep, one head's rows after the other's, as many of each.

        See `sizes`.
        """
        parts = zip(heads, *(of_R.unflatten(0, (len(heads), -1)) for of_R in (n_R, position_R)), strict=True)
        sizes = [self.of_head(layer, head).sizes(seen_R, at_R) for head, seen_R, at_R in parts]
        return replace(sizes[0], given_RW=torch.cat([part.given_RW for part in sizes]))

    @cached_property
    def _each(self) -> list[tuple[Rule, float, float]]:
        """Every window's rule, parameter and scale."""
        return [(rule, *pair) for rule, part in zip(self.rules, self.coordinates, strict=True) for pair in part]

    def of_kind(self, kind: type[Kind]) -> dict[int, tuple[Kind, float]]:
        """Return rule and parameter of the windows of one kind of rule, by their index."""
        return {i: (rule, parameter) for i, (rule, parameter, _) in enumerate(self._each) if isinstance(rule, kind)}

    def sharing(self, index: int) -> Share:
        """Return what shares the keys of a layer in window number `index`, which is one of a `PerLayer` rule."""
        rule = self.of_kind(PerLayer)[index][0]

        def share(log_p_HRN: Tensor, n_R: Tensor) -> Tensor:
            return rule.share(log_p_HRN, self.sizes(n_R, n_R - 1).given_RW[:, index])  # a share is of what is seen

        return share

    @property
    def by_estimate(self) -> list[str]:
        """The rules with windows that go by a method's own estimate of a row."""
        return [self._each[index][0].rule for index in (*self.of_kind(OfEstimate), *self.of_kind(PerLayer))]

    @cached_property
    def _differs(self) -> bool:
        """Whether a rule differs between heads."""
        return any(isinstance(rule, PerHead) for rule in self.rules)

    def columns(self) -> dict[str, list[str | float]]:
        """Return the columns of windows.parquet that name each window."""
        return {column: [name[column] for name in self.names()] for column in DENSE_WINDOW}

    def names(self) -> list[dict[str, str | float]]:
        """Return, per window, the columns that name it."""
        return [{"rule": rule.rule, "parameter": float(a), "scale": float(b)} for rule, a, b in self._each]

    def sizes(self, n_R: Tensor, position_R: Tensor) -> Sizes:
        """Return how many keys rows keep that see n keys [R]: ceil(x (1 - 1e-9)) within [1, n], x as the rule asks.

        Parameters
        ----------
        position_R
            Where the rows stand, for rules that go by their context (`OfContext`).

        Raises
        ------
        UserError
            If a rule's x is no number.
        """
        seen = n_R.device, torch.cat([n_R, position_R]).cpu().numpy().tobytes()  # alike in most layers and heads
        if seen not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[seen] = self._sizes(n_R, position_R)
        return self._known[seen]

    def _sizes(self, n_R: Tensor, position_R: Tensor) -> Sizes:
        parts = [torch.empty(len(n_R), 0, dtype=torch.float64, device=n_R.device)]
        for rule, part in zip(self.rules, self.coordinates, strict=True):
            if isinstance(rule, OfLength) and part:
                pair = torch.tensor(part, dtype=torch.float64, device=n_R.device).unbind(1)
                parts.append(rule.sizes(position_R + 1 if isinstance(rule, OfContext) else n_R, *pair).double())
            else:
                parts.append(parts[0].new_zeros(len(n_R), len(part)))
        tolerances = {i: rule.tolerance(parameter) for i, (rule, parameter) in self.of_kind(OfTolerance).items()}
        thresholds = {i: rule.threshold(parameter) for i, (rule, parameter) in self.of_kind(OfThreshold).items()}
        own = self.of_kind(OfEstimate)
        relative = {i: (rule.factor(a), rule.of_peak) for i, (rule, a) in self.of_kind(OfRelativeThreshold).items()}
        size_RW = torch.cat(parts, dim=1)
        if size_RW.isnan().any():
            raise UserError("a window's number of keys is no number: its factors or exponents are too large")
        # held within the row before it becomes an integer: a large x has no int64
        k_RW = torch.ceil(size_RW * (1 - 1e-9)).clamp_(min=1).minimum(n_R[:, None].double()).long()
        k_RW[:, [*tolerances, *thresholds, *own, *relative]] = 0
        return Sizes(k_RW, tolerances, thresholds, own, relative=relative)

    def keys(
        self, exact: DecidingRows, own: Callable[[], Needs] | None = None, position_R: Tensor | None = None
    ) -> Tensor:
        """Return the keys kept [R, W] int64 by a method that takes the rows for `own`, None: exact; see `sizes`.

        Without positions, rows see their whole context.
        """
        sizes = self.sizes(exact.n_R, exact.n_R - 1 if position_R is None else position_R)
        return sizes.of_method(sizes.of(exact), 0, (lambda: exact) if own is None else own)
