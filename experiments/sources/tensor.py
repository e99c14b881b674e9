"""Tensor attention of triples (arXiv 2310.04064) on Gaussian inputs: one query's row over all pairs of keys.

Shape letters: M keys of either side, N = M^2 pairs, D head dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.errors import UserError
from experiments.sources.gaussian import Gaussian

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Triples(Gaussian):
    """Keys K1_j o K2_l and values V1_j o V2_l of all pairs (j, l), each side iid N(0, I_d); logits of variance sigma^2.

    A length is the number of pairs, which is what the row sees, so the same laws are asked of it: M^2 pairs of M keys a
    side. Given a key of one side the logits' variance is random, so that rows are mixtures of Gaussians and the closed
    forms [G1] to [G3] do not hold.
    """

    name: str = "tensor"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if bad := [n for n in self.lengths if math.isqrt(n) ** 2 != n]:
            near = math.isqrt(bad[0]) ** 2
            raise UserError(f"source.lengths has {bad[0]}: pairs of M keys are M^2; give {near} or another square")
        if self.inputs != "gaussian":
            raise UserError(f"source.inputs={self.inputs}: products of keys are not layer-normed; give gaussian")

    @property
    def label(self) -> str:
        """The distribution, as a figure names it."""
        return super().label.replace("Gaussian", "Gaussian triples")

    def context(self, normal: Callable[..., Tensor], length: int) -> tuple[Tensor, Tensor]:
        """Draw the products of the keys of both sides, and of the values [N, D]."""
        sides = [normal(math.isqrt(length), self.head_dim) for _ in range(4)]
        return pairs(sides[0], sides[1]), pairs(sides[2], sides[3])


def pairs(left_MD: Tensor, right_MD: Tensor) -> Tensor:
    """Return the products of every vector of one side with every one of the other [N, D]."""
    return (left_MD[:, None] * right_MD).flatten(0, 1)
