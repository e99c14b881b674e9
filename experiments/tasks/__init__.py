"""Tasks about a context, for each of which there is one file here; the class is its own Hydra schema.

The families are those of RULER (arXiv 2404.06654), made here without downloads: every name, number and word is drawn.
Answers have parts in one right order, so that reading a right answer tells what greedy decoding would have written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from experiments.lazy import np

Encode = Callable[[str], list[int]]
"""Maps a piece of text that stands within another to its tokens."""


@dataclass(frozen=True)
class Question:
    """What is asked after a context.

    Attributes
    ----------
    text
        As it stands behind the context.
    answers
        Right answers, any of which counts; each in parts, which make the answer when they are joined.
    """

    text: str
    answers: list[list[str]]


@dataclass(frozen=True)
class Drawn:
    """One context of a task with its questions.

    Attributes
    ----------
    questions
        Asked one by one, each after the same context.
    context
        Maps the tokens of a text that may fill the context, how many tokens there are to be, and what encodes a piece
        to the context's tokens; raises UserError if there is too little room.
    """

    questions: list[Question]
    context: Callable[[list[int], int, Encode], list[int]]


class Task(Protocol):
    """What the runner asks of a task; `version` is raised when its contexts change for the same fields."""

    name: str
    version: ClassVar[int]

    def draw(self, sample: int, rng: np.random.Generator) -> Drawn:
        """Draw a context for sample number `sample`."""
        ...


@runtime_checkable
class ReadsFile(Protocol):
    """A task whose questions come from a file."""

    def hashes(self) -> dict[str, str]:
        """Return what stands for the file in a run's identity."""
        ...

    def check_samples(self, samples: int) -> None:
        """Raise UserError if the file is unreadable, or has fewer questions than there are samples."""
        ...
