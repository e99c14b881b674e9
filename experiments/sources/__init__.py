"""Where rows come from. One file per source; the class is its own Hydra schema.

A source pushes rows instead of yielding them, because a model's forward pass is what calls us, layer by layer: to wait
until it returns would be to keep the keys and values of all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from experiments.lazy import np, torch
from experiments.rows import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.machine import Machine


@dataclass(frozen=True)
class Batch:
    """What a source will push, as far as a plan needs it: `count` times `rows` queries against `num_keys` keys.

    `run` is the number of consecutive rows, beside these, whose unions are measured.
    """

    count: int
    rows: int
    num_keys: int
    head_dim: int
    variant: str = "plain"
    run: int = 0


@dataclass(frozen=True)
class MatrixRequest:
    """The heads whose whole attention matrices are wanted, of the first text sample or draw."""

    layers: list[int]
    heads: list[int]

    def wants(self, layer: int, head: int, sample: int) -> bool:
        """Say whether this head's matrix is wanted."""
        return sample == 0 and layer in self.layers and head in self.heads


NO_MATRICES = MatrixRequest([], [])


def ignore(rows: Rows | Sequence[Rows]) -> None:
    """Do nothing with rows that a runner does not ask for."""


@runtime_checkable
class ReadsText(Protocol):
    """A source whose model reads text, so that it may be run as a language model.

    `keep_layers` is how many layers below the present one it keeps for methods that use their rows, and `heads` are the
    query heads whose rows it pushes, None for all.
    """

    keep_layers: int
    heads: list[int] | None

    def is_encoder(self) -> bool:
        """Say whether the model is known for one whose rows see later keys, before its weights are loaded."""
        ...

    def check_causal(self, runner: str) -> None:
        """Raise UserError, naming the runner, if the model is known for no causal language model."""
        ...

    def documents(self, seed: int) -> dict[int, Tensor]:
        """Return the tokens of each sample [N] by its number in the text, whose pieces the seed chooses."""
        ...

    def mask_bytes(self) -> int:
        """Return the size of the masks of the longest pass, in bytes."""
        ...

    def seen_keys(self, n_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how many of n keys rows see in each kind of layer [kinds, N], and the heads of each kind [kinds]."""
        ...


class Source(Protocol):
    """What the runner asks of a source; `version` is raised when its rows change."""

    version: ClassVar[int]
    name: str
    lengths: list[int]
    rows: int
    samples: int
    dtype: str

    @property
    def label(self) -> str:
        """A human name: the model's, or the distribution's."""
        ...

    def identity(self) -> dict[str, object]:
        """Return the fields that decide the rows, with files and models replaced by the hash of their content."""
        ...

    @property
    def draws(self) -> bool:
        """Whether the seed decides the rows."""
        ...

    def hashes(self) -> dict[str, str | None]:
        """Return the hashes of `model` and `text`, None where there is none."""
        ...

    def layers_and_heads(self) -> tuple[list[int], list[int]]:
        """Return the layers and the heads whose rows `stream` will push."""
        ...

    def batches(self) -> list[Batch]:
        """Check the request before anything large is loaded, and return what `stream` will push."""
        ...

    def resident_bytes(self) -> int:
        """Return the memory that the source itself holds while rows are measured, in bytes."""
        ...

    def seconds(self, machine: Machine) -> float:
        """Return a rough estimate of the source's own time (drawing, forward passes), measures excluded."""
        ...

    def stream(
        self,
        measure: Callable[[Sequence[Rows]], None],
        *,
        seed: int,
        device: torch.device,
        matrices: MatrixRequest = NO_MATRICES,
        record: Callable[[Rows], None] = ignore,
        runs: Callable[[Sequence[Rows]], None] = ignore,
    ) -> None:
        """Push the sampled rows to `measure`, those of each wanted matrix to `record`, consecutive ones to `runs`.

        `measure` and `runs` get what is there at once, a layer say, in groups of rows against the same keys. A source
        whose rows are no sequence has nothing for `runs`.
        """
        ...
