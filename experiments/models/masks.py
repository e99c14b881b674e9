"""Masks of a forward pass that are made a block of rows at a time: nothing n x n is held for a layer that hides keys.

Shape letters: R rows, K keys, H query heads, G KV heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from transformers.masking_utils import sdpa_mask

MOST_ENTRIES = 2**20  # of a mask that is made at once
BLOCK = 256  # rows of a mask that are made at once otherwise


class LateMask(Tensor):
    """A mask [1, 1, queries, keys] of bool by the function of positions that transformers makes it of.

    Layers that hand it on as it is are asked for rows; whatever else a model does with it is done with the whole mask,
    which is made then.
    """

    _function: Callable[..., Tensor]
    _queries: range
    _keys: range
    _where: torch.device
    _spans: dict[tuple[int, int], slice]

    @classmethod
    def of(cls, function: Callable[..., Tensor], queries: range, keys: range, device: torch.device) -> LateMask:
        """Take the function of a mask, and the positions of its queries and keys."""
        mask = torch.empty(0, dtype=torch.bool).as_subclass(cls)
        mask._function, mask._queries, mask._keys, mask._where = function, queries, keys, torch.device(device)
        mask._spans = {}
        return mask

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do with the whole mask what is done with this; moved to another device, it stays as it is."""
        kwargs = kwargs or {}
        if func is Tensor.to and isinstance(args[0], LateMask) and len(args) == 2 and _is_device(args[1]):
            return cls.of(args[0]._function, args[0]._queries, args[0]._keys, args[1])

        def whole(value: Any) -> Any:
            return value.whole() if isinstance(value, LateMask) else value

        return func(*tree_map(whole, list(args)), **tree_map(whole, kwargs))

    def rows(self, row_R: Tensor, keys: slice) -> Tensor:
        """Return which of some keys some queries see [R, K], both counted from the first of the mask."""
        zero = torch.zeros((), dtype=torch.long, device=self._where)
        key_K = torch.arange(*keys.indices(len(self._keys)), device=self._where) + self._keys.start
        row_R1 = (row_R.to(self._where) + self._queries.start)[:, None]
        return self._function(zero, zero, row_R1, key_K[None]).expand(len(row_R1), len(key_K))

    def whole(self) -> Tensor:
        """Return the mask [1, 1, queries, keys]."""
        return self.rows(torch.arange(len(self._queries)), slice(None))[None, None]

    def span(self, start: int, stop: int) -> slice:
        """Return the keys from the first to the last that some of the queries start..stop-1 see; at least one."""
        if (start, stop) not in self._spans:
            seen_K = self.rows(torch.arange(start, stop), slice(None)).any(0).nonzero()[:, 0]
            ends = (int(seen_K[0]), int(seen_K[-1]) + 1) if len(seen_K) else (0, 1)
            self._spans[start, stop] = slice(*ends)
        return self._spans[start, stop]


def _is_device(value: Any) -> bool:
    return isinstance(value, torch.device | int | str)


class _Needed(Exception):
    """The function of a mask was called: the mask cannot be left out."""


def late_mask(*, mask_function: Callable[..., Tensor], **rest: Any) -> Tensor | None:
    """Return what `sdpa_mask` of transformers returns, a large mask of positions alone as a `LateMask`."""
    entries = rest.get("q_length", 0) * rest["kv_length"]  # an older transformers tells no length: made whole
    if entries <= MOST_ENTRIES or rest.get("attention_mask") is not None or rest.get("use_vmap"):
        return sdpa_mask(mask_function=mask_function, **rest)

    def needed(*_: Tensor) -> Tensor:
        raise _Needed

    try:
        return sdpa_mask(mask_function=needed, **rest)
    except _Needed:
        queries, keys = (
            range(int(rest.get(f"{name}_offset", 0)), int(rest.get(f"{name}_offset", 0)) + int(rest[f"{name}_length"]))
            for name in ("q", "kv")
        )
        return LateMask.of(mask_function, queries, keys, torch.device(rest.get("device", "cpu")))


def attend_in_blocks(
    attend: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], mask: LateMask, *qkv: Tensor
) -> Tensor:
    """Return the outputs [1, N, H, V] of a layer, a block of queries at a time over the keys that they see.

    Parameters
    ----------
    attend
        Maps queries [1, H, R, D], keys and values [1, G, K, D] and a mask [1, 1, R, K] to outputs [1, R, H, V].
    qkv
        Queries, keys and values of the pass.
    """
    query_1HND, key_1GND, value_1GNV = qkv
    outputs = []
    for start in range(0, query_1HND.shape[2], BLOCK):
        stop = min(start + BLOCK, query_1HND.shape[2])
        keys = mask.span(start, stop)
        mask_RK = mask.rows(torch.arange(start, stop), keys)
        block = query_1HND[:, :, start:stop], key_1GND[:, :, keys], value_1GNV[:, :, keys]
        outputs.append(attend(*block, mask_RK[None, None]))
    return torch.cat(outputs, dim=1)
