"""Methods of attention, for each of which there is one file here and one yaml; the class is its own Hydra schema.

`prepare(cache)` is called once per KV head (or for all KV heads of a layer at once) with what the method may look at.
The function that it returns is then called once per block of rows and answers with the most probable keys, with an
order in which keys are kept, or with an estimated row (experiments/answers.py). Such an order serves every window in
one pass. Whoever asks, rows, a model or a decode step, does not know which method it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from experiments.answers import Answer
from experiments.cache import Block, Cache
from experiments.errors import UserError
from experiments.windows import Windows

if TYPE_CHECKING:
    from torch import Tensor

Answering = Callable[[Block], Answer]
"""Maps a block of rows to the method's answer."""


@dataclass(frozen=True)
class Traits:
    """The properties of a method that runners use.

    Attributes
    ----------
    frozen
        True if it chooses among a prompt's keys once, at the prompt's end, and keeps newer keys exactly; False if it is
        refreshed by every key, so that a decode step gives the row that is measured at once.
    looks_back
        True if it goes by what was asked before.
    looks_at_query
        True if its answer depends on the row's own query; else it is known before the query comes.
    estimates
        True if it answers with an estimated row, which keeps no keys as such.
    has_budget
        False if its answer is the same at every window.
    sees_ahead
        True if it is a floor that is made from all rows to come, as no method can be: measured on rows alone.
    layers_below
        How many layers below it needs the rows of.
    weighs
        True if it says what it takes for each key's probability, by which windows may be sized.
    flops
        Maps n, k, the head dimension and that of values to the multiply-adds of a row; preparation that serves all
        later rows is divided by n. None if every number that is read is multiplied once.
    """

    frozen: bool = False
    looks_back: bool = False
    looks_at_query: bool = False
    estimates: bool = False
    has_budget: bool = True
    sees_ahead: bool = False
    layers_below: int = 0
    weighs: bool = False
    flops: Callable[[Tensor, Tensor, int, int], Tensor] | None = None


class Selector(Protocol):
    """What a runner asks of a method.

    `name` is what the column `selector` has, and `version` is raised when its answers change for the same fields.
    """

    name: str
    version: ClassVar[int]

    @property
    def traits(self) -> Traits:
        """The properties of the method that runners use."""
        ...

    def prepare(self, cache: Cache) -> Answering:
        """Prepare a context and return what answers for blocks of its rows."""
        ...

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return what rows of `n` keys read at best within windows of `k`, in keys with their values.

        A key without its value counts one half.
        """
        ...


def check_weighs(selector: Selector, windows: Windows) -> None:
    """Raise UserError if windows go by a method's own estimate of a row and it makes none."""
    if windows.by_estimate and not selector.traits.weighs:
        raise UserError(
            f"selector={selector.name}: windows.{windows.by_estimate[0]} goes by what a method takes for each key's "
            f"probability, and this one does not say; leave it out of a set with ~selector.parts.{selector.name}, "
            f"or give windows.{windows.by_estimate[0]}=[]"
        )


def check_in_model(selector: Selector, runner: str) -> None:
    """Raise UserError if a method has no meaning in a model."""
    if selector.traits.sees_ahead:
        raise UserError(
            f"selector={selector.name}: a floor made from the rows to come, as no method can be; give "
            f"runner=approximation instead of runner={runner}, or leave it out of a set with "
            f"~selector.parts.{selector.name}"
        )


def check_prefill(selector: Selector, runner: str) -> None:
    """Raise UserError if a method has no meaning while the prompt itself is read."""
    if selector.traits.frozen:
        raise UserError(
            f"selector={selector.name}: it chooses at the end of a prompt, and in runner.phase=prefill of "
            f"runner={runner} there is none yet; give runner.phase=decode, or leave it out of a set with "
            f"~selector.parts.{selector.name}"
        )


def flops(selector: Selector, n: Tensor, k: Tensor, head_dim: int, value_dim: int) -> Tensor:
    """Return the multiply-adds of a row of `n` keys within a window of `k`."""
    if (given := selector.traits.flops) is not None:
        return given(n, k, head_dim, value_dim)
    return selector.keys_read(n, k, head_dim) * (head_dim + value_dim)
