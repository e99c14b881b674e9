"""Keys in few bits as an index (after Twilight, arXiv 2502.02770, with the quantisation of KIVI, arXiv 2402.02750).

Shape letters besides those of `experiments.rows`: P groups of keys, L keys of a group, M the last keys, which are
exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from experiments.answers import Subset
from experiments.cache import Block, Cache
from experiments.errors import UserError
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.selectors import Answering, Traits
from experiments.selectors.ranked import as_logits, products, ranked

if TYPE_CHECKING:
    from torch import Tensor

BITS = (8, 4, 2)
FLOAT_BITS = 32  # of a number of the cache, and of the scale and the zero point of a channel
MOST_GROUP = 65_536


def _flops(n: Tensor, k: Tensor, head_dim: int, value_dim: int) -> Tensor:
    """Return the products with all keys, however few their bits, and with the kept ones and their values."""
    return n * head_dim + k * (head_dim + value_dim)


@dataclass
class QuantisedKeys:
    """Keep the row's own key, then keys by the logits of their quantised copies.

    Each channel of a group of `group` neighbouring keys is rounded to `bits` bits between its smallest and its largest
    value there. Only groups that lie wholly before the row's own are quantised, so no row sees a later key; the rest,
    at most `group` keys, is scored exactly. It looks at this row's query and at every key's copy: it reads n copies
    with a scale and a zero point for each channel of a group, then k keys, and searches in a time of O(n d). Simplified
    after Twilight, which prunes what another index proposes by such copies, and in which the kept keys' number follows
    from their scores: here the copies are the index, of all keys, and windows are given. The copies are held as floats,
    so that seconds of a decode step are not those of a kernel that reads few bits.
    """

    name: str = "quantised_keys"
    bits: int = 4
    group: int = 64
    traits: ClassVar[Traits] = Traits(looks_at_query=True, flops=_flops, weighs=True)
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise UserError(f"selector.bits={self.bits}: choose {', '.join(map(str, BITS))}")
        check_range("selector.group", self.group, least=2, most=MOST_GROUP)

    def prepare(self, cache: Cache) -> Answering:
        """Quantise the whole groups of keys; return the order of the products with their copies."""
        copy_GND = quantised(cache.key_GND, self.bits, self.group)

        def answer(block: Block) -> Subset:
            def score() -> Tensor:
                score_RN = products(block.query_RD, copy_GND[:, : block.num_keys], block)
                start_R1 = block.own_R1 // self.group * self.group  # of the row's own group
                first = int(start_R1.min())
                exact_RM = products(block.query_RD, cache.key_GND[:, first : block.num_keys], block)
                key_M = torch.arange(first, block.num_keys, device=exact_RM.device)
                score_RN[:, first:] = torch.where(key_M >= start_R1, exact_RM, score_RN[:, first:])
                return score_RN

            return ranked(block, score, partial(as_logits, block))

        return answer

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return k, the copies of n keys, two floats per channel and group, and half a group of exact keys."""
        bits_of_channel = self.bits + 2 * FLOAT_BITS / self.group
        return k + n * bits_of_channel / (2 * FLOAT_BITS) + (n / 2).clamp(max=self.group / 2) / 2


def quantised(key_GND: Tensor, bits: int, group: int) -> Tensor:
    """Return the keys with each channel of every whole group rounded to 2^bits steps of its range (KIVI, per channel).

    The keys after the last whole group are left as they are.
    """
    copy_GND = key_GND.to(torch.promote_types(key_GND.dtype, torch.float32), copy=True)
    whole = key_GND.shape[1] // group * group
    grouped_GPLD = copy_GND[:, :whole].unflatten(1, (-1, group))
    low_GP1D, high_GP1D = grouped_GPLD.amin(2, keepdim=True), grouped_GPLD.amax(2, keepdim=True)
    step_GP1D = (high_GP1D - low_GP1D) / (2**bits - 1)
    step_GP1D = step_GP1D.clamp(min=torch.finfo(step_GP1D.dtype).tiny)  # a channel may be constant
    code_GPLD = ((grouped_GPLD - low_GP1D) / step_GP1D).round_()
    copy_GND[:, :whole] = (low_GP1D + code_GPLD * step_GP1D).flatten(1, 2)
    return copy_GND
