"""Sketched logits (after arXiv 2304.04397): dot products of few random projections in place of the whole vectors.

Shape letters besides those of `experiments.rows`: M numbers of a sketched key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Estimate
from experiments.cache import Block, Cache
from experiments.errors import UserError
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("gaussian", "orthogonal")
MOST_PROJECTIONS = 65_536


@dataclass
class LogitSketch:
    """Take the softmax of (q S).(k S) scale, S random projections to `projections` numbers, about the exact mean logit.

    `gaussian` S has entries of variance 1/m: a sketched logit is unbiased, of variance (|q|^2 |k|^2 + (q.k)^2) / m
    times scale^2. `orthogonal` S has m orthogonal columns of length sqrt(d / m), and is exact at m = d. The theorem is
    for logits below 0.1, where the uniform row meets its guarantee too: the method has to beat `mean_value`. It reads m
    numbers of every key, and every value, whatever the window: at m < d it saves at most half of what dense attention
    reads.
    """

    name: str = "logit_sketch"
    projections: int = 16
    kind: str = "gaussian"
    draw: int = 0
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.projections", self.projections, least=1, most=MOST_PROJECTIONS)
        check_range("selector.draw", self.draw, least=0)
        if self.kind not in KINDS:
            raise UserError(f"selector.kind={self.kind}: choose {' or '.join(KINDS)}")

    @property
    def traits(self) -> Traits:
        """It has no budget: its cost follows from its projections."""
        return Traits(estimates=True, looks_at_query=True, has_budget=False, flops=self._flops)

    def prepare(self, cache: Cache) -> Answering:
        """Project the keys; return the rows of the sketched logits."""
        cache.check_no_learned_sink(self.name)
        sketch_DM = self._sketch(cache.key_GND.shape[2]).to(cache.key_GND.device)
        key_GNM = cache.key_GND.double() @ sketch_DM

        def answer(block: Block) -> Estimate:
            block.check_dot_products(self.name)

            def row(k_R: Tensor, logsumexp_R: Tensor) -> Tensor:
                query_GSD = (block.query_RD.double() * block.scale).unflatten(0, (len(key_GNM), -1))
                sketched_RN = (query_GSD @ sketch_DM @ key_GNM[:, : block.num_keys].mT).flatten(0, 1)
                visible_RN, n_R1 = block.visible_RN, block.n_R[:, None]
                shown = sketched_RN, block.logits(cache).double()
                mean_R1, exact_R1 = (torch.where(visible_RN, x_RN, 0.0).sum(-1, keepdim=True) / n_R1 for x_RN in shown)
                # the query's product with the mean key is exact: one more key's worth of state
                return (sketched_RN - mean_R1 + exact_R1 - logsumexp_R[:, None]).exp().masked_fill_(~visible_RN, 0.0)

            return Estimate(row)

        return answer

    def _sketch(self, head_dim: int) -> Tensor:
        """Return S [D, M]."""
        generator = torch.Generator().manual_seed(self.draw)
        if self.kind == "gaussian":
            shape = head_dim, self.projections
            return torch.randn(*shape, generator=generator, dtype=torch.float64) / self.projections**0.5
        if self.projections > head_dim:
            raise UserError(
                f"selector.projections={self.projections}: {head_dim} channels have no more orthogonal ones"
            )
        square_DD = torch.randn(head_dim, head_dim, generator=generator, dtype=torch.float64)
        return torch.linalg.qr(square_DD)[0][:, : self.projections] * (head_dim / self.projections) ** 0.5

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return n values and as many sketched keys."""
        return (n * (self.projections + head_dim) / (2 * head_dim)).expand(torch.broadcast_shapes(n.shape, k.shape))

    def _flops(self, n: Tensor, k: Tensor, head_dim: int, value_dim: int) -> Tensor:
        """Return the sketched products and the values' sum, and the sketch of the query and of one key."""
        return n * (self.projections + value_dim) + 2.0 * head_dim * self.projections + 0 * k
