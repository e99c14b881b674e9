"""Memory that blocks of rows reuse: the pages of a fresh array cost more than the arithmetic done in them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Scratch:
    """Tensors on the CPU, by name. Whoever measures owns one; two owners never share memory."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a tensor of any content, in the memory of the last one of the same name and type.

        Whatever was kept there before is lost, so a name belongs to one place in the code.
        """
        size = math.prod(shape)
        held = self._held.get((name, dtype))
        if held is None or held.numel() < size:
            self._held.pop((name, dtype), None)  # given back before more is taken
            with torch.inference_mode(False):  # a tensor made inside a model's pass could not be written outside it
                held = self._held[name, dtype] = torch.empty(size, dtype=dtype)
        return held[:size].view(shape)
