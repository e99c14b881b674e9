"""Let a module do something else for a while: one place that puts back what it did before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module do `forward` inside the context; its own, such as accelerate sets, is put back after it."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward  # that of its class is back
        if own is not None:
            module.forward = own
