"""Loki (arXiv 2406.02542): logits from the principal components of the keys.

Shape letters besides those of `experiments.rows`: C principal components.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.ranked import as_logits, products, ranked

if TYPE_CHECKING:
    from torch import Tensor

MOST_COMPONENTS = 65_536


@dataclass
class PcaKeys:
    """Keep the row's own key, then keys by their product with the query in the keys' first `components` alone.

    The components are those of the prompt's keys after rotary embedding, per KV head, made once at the prompt's end.
    Newer keys are projected onto the same components, and chosen like the others: none is kept for being new. It looks
    at this row's query and at every key's components: it reads n keys in part, then k keys, and searches in a time of
    O(n components) after O(n d^2) once. Loki makes its components of the keys of another text, once for a model; here
    they are the prompt's own, which suit it at least as well. Of fewer channels than asked for all are used.
    """

    name: str = "pca_keys"
    components: int = 16
    traits: ClassVar[Traits] = Traits(frozen=True, looks_at_query=True, weighs=True)
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.components", self.components, least=1, most=MOST_COMPONENTS)

    def prepare(self, cache: Cache) -> Answering:
        """Project all keys onto the components of the prompt's; return the order of the products."""
        basis_GDC = torch.stack([principal(key_ND[: cache.prompt], self.components) for key_ND in cache.key_GND])
        part_GNC = cache.key_GND.to(basis_GDC.dtype) @ basis_GDC

        def answer(block: Block) -> Subset:
            def score() -> Tensor:
                query_GSD = block.query_RD.to(basis_GDC.dtype).unflatten(0, (len(basis_GDC), -1))
                return products((query_GSD @ basis_GDC).flatten(0, 1), part_GNC[:, : block.num_keys], block)

            return ranked(block, score, partial(as_logits, block))

        return answer

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k, and the components of n keys."""
        return k + n * min(self.components, head_dim) / (2 * head_dim)


def principal(key_ND: Tensor, components: int) -> Tensor:
    """Return the eigenvectors [D, C] of the keys' covariance with the largest eigenvalues, orthonormal.

    Without keys they are some C of the channels.
    """
    centred_ND = key_ND.double() - key_ND.double().sum(0) / max(len(key_ND), 1)
    _, rising_DD = torch.linalg.eigh(centred_ND.T @ centred_ND)
    return rising_DD.flip(1)[:, :components].to(torch.promote_types(key_ND.dtype, torch.float32))
