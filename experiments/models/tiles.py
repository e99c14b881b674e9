"""Long passes with bounded activations: a feed-forward network reads a tile of the tokens at a time.

Its inner width is several times the model's, so that of a long pass its activations alone are larger than the weights.
It maps each token by itself, and tiles change nothing but rounding.

Shape letters: B sequences, N tokens, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2CLS
from transformers.pytorch_utils import Conv1D

from experiments.models.replaced import replaced

LONGEST = 32_768  # tokens of a pass that is read in one go
TILE = 8_192
ACTIVATIONS = tuple({cls[0] if isinstance(cls, tuple) else cls for cls in ACT2CLS.values()})


def at_once(num_tokens: int) -> int:
    """Return how many tokens of a pass a feed-forward network reads at once."""
    return TILE if num_tokens > LONGEST else num_tokens


@contextmanager
def tiled(model: nn.Module, num_tokens: int) -> Iterator[None]:
    """Let every feed-forward network of a model read tiles inside the context, if a pass is long."""
    with ExitStack() as stack:
        for network in filter(_is_feed_forward, model.modules() if num_tokens > LONGEST else ()):
            stack.enter_context(replaced(network, _in_tiles(network.forward)))
        yield


def _is_feed_forward(module: nn.Module) -> bool:
    """Say whether a module has linear layers and what acts on each number alone, and gives back the width it takes."""
    parts = list(module.children())
    linear = [part for part in parts if isinstance(part, nn.Linear | Conv1D)]
    others = [part for part in parts if part not in linear]
    if len(linear) < 2 or not all(isinstance(part, (*ACTIVATIONS, nn.Dropout)) for part in others):
        return False
    shapes = [part.weight.shape if isinstance(part, Conv1D) else part.weight.shape[::-1] for part in linear]
    width, inner = shapes[0]
    return len(others) > 0 and all(shape == (width, inner) for shape in shapes[:-1]) and shapes[-1] == (inner, width)


def _in_tiles(forward: Any) -> Any:
    def tile_by_tile(state_BNW: Tensor) -> Tensor:
        return torch.cat([forward(part) for part in state_BNW.split(TILE, dim=1)], dim=1)

    return tile_by_tile
