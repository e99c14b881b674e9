"""Attention shared across layers (arXiv 2407.12866): the row of a layer below, over the own values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Estimate
from experiments.cache import Block, Cache
from experiments.errors import UserError
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.exact_part import output_of_row

if TYPE_CHECKING:
    from torch import Tensor

MATCHES = ("same", "best")
MOST_LAYERS = 1024
CALIBRATION = 32  # earlier rows by which the best head below is chosen


@dataclass
class Shared:
    """Use the attention of the layer `gap` below, or of one `layer` below all, with the layer's own values.

    `match=same` takes the same head; `best` the head of the least total variation over the 32 rows before those to
    come. A layer with nothing below it has no value. In a model, `layer` and `runner.layers` share one layer's
    attention over a span, as published: `selector.layer=22 runner.layers=[23,24,25,26]`. It reads no keys but every
    value. It has no guarantee: the claim is that late layers are alike.
    """

    name: str = "shared"
    gap: int = 1
    layer: int | None = None
    match: str = "same"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("selector.gap", self.gap, least=1, most=MOST_LAYERS)
        check_range("selector.layer", self.layer, least=0, most=MOST_LAYERS)
        if self.match not in MATCHES:
            raise UserError(f"selector.match={self.match}: choose {' or '.join(MATCHES)}")

    @property
    def traits(self) -> Traits:
        """It has no budget, and needs the rows of layers below."""
        below = self.gap if self.layer is None else MOST_LAYERS
        return Traits(
            estimates=True,
            looks_back=self.match == "best",
            looks_at_query=True,
            has_budget=False,
            layers_below=below,
            flops=lambda n, k, head_dim, value_dim: n * value_dim + 0 * k,
        )

    def prepare(self, cache: Cache) -> Answering:
        """Return the rows of the layer below."""
        if cache.below is None:
            raise UserError(
                f"selector={self.name}: it needs the layers below, and none are kept: give a model as source, and "
                f"source.keep_layers={self.gap}"
            )
        cache.check_no_learned_sink(self.name)
        below = cache.below
        best: dict[tuple[int, int], int] = {}  # of a layer and head

        def answer(block: Block) -> Estimate:
            layer = block.layer - self.gap if self.layer is None else self.layer

            def below_row() -> Tensor | None:
                head_R = block.head_R
                if self.match == "best":
                    head_R = head_R.clone()
                    for head in block.head_R.unique().tolist():
                        if (layer, head) not in best:
                            best[layer, head] = self._best(cache, layer, head)
                        head_R[block.head_R == head] = best[layer, head]
                row_RN = below(layer, head_R, block.position_R) if 0 <= layer < block.layer else None
                if row_RN is None:
                    return None
                w_RN = row_RN[:, : block.num_keys].double().masked_fill(~block.visible_RN, 0.0)
                # it is the row itself, and says nothing of the normaliser
                return w_RN / w_RN.sum(-1, keepdim=True)

            def row(k_R: Tensor, logsumexp_R: Tensor) -> Tensor:
                w_RN = below_row()
                none = torch.full((len(block), block.num_keys), torch.nan, dtype=torch.float64, device=k_R.device)
                return none if w_RN is None else w_RN

            def output(k_R: Tensor) -> Tensor:
                w_RN = below_row()
                if w_RN is None:
                    raise UserError(
                        f"selector={self.name}: layer {block.layer} has no layer {layer} below whose rows are kept; "
                        "name the layers that share in runner.layers"
                    )
                return output_of_row(w_RN, cache.value_GNV)

            return Estimate(row, output)

        return answer

    def _best(self, cache: Cache, layer: int, head: int) -> int:
        """Return the head of a layer below whose earlier rows are the nearest to those of a head."""
        assert cache.below is not None
        start, stop = max(cache.prompt - CALIBRATION, 0), cache.prompt
        shared = len(cache.earlier_rows(0, 0, 1))
        kv_head = head // shared if len(cache.key_GND) > 1 else 0
        own_TN = cache.earlier_rows(kv_head, start, stop)[head % shared].double()
        position_T = torch.arange(start, stop, device=own_TN.device)
        heads, least, best = 0, torch.inf, head
        while (row_TN := cache.below(layer, torch.full_like(position_T, heads), position_T)) is not None:
            apart = float((row_TN[:, :stop].double() - own_TN).abs().sum())
            least, best = (apart, heads) if apart < least else (least, best)
            heads += 1
        if not heads and layer >= 0:
            raise UserError(
                f"selector={self.name}: match=best goes by rows before those to come, and layer {layer} "
                "below keeps none; give match=same"
            )
        return best

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return one half of n: every value without its key."""
        return (n / 2).expand(torch.broadcast_shapes(n.shape, k.shape))
