"""A text that a model has read, kept as its keys and values, from which any number of continuations branch.

What is read on from a context is decoding: its rows attend to the cached keys, which stay as they were made. Rows of
one pass are causal, so that reading on token by token or in one go is the same.

Shape letters: N tokens, W width of the model.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache

from experiments.models.loss import losses_of_states
from experiments.models.probe import run


class Context:
    """The keys and values of what `model` has read so far."""

    def __init__(self, model: Any) -> None:
        self._model = model
        # Without the model's configuration every layer keeps all keys; a sliding layer's mask still hides old ones.
        self._cache = DynamicCache()

    def __len__(self) -> int:
        """Return the number of tokens read."""
        return int(self._cache.get_seq_length())

    def read(self, token_N: Tensor) -> Tensor:
        """Read on, keep what was read, and return its last hidden states [N, W]."""
        output = run(self._model, token_N, use_cache=True, past_key_values=self._cache)
        return output.last_hidden_state[0]

    def states(self, token_N: Tensor) -> Tensor:
        """Read on and forget it again; return the last hidden states [N, W]."""
        before = len(self)
        state_NW = self.read(token_N)
        self.forget(before)
        return state_NW

    def losses(self, token_N: Tensor) -> tuple[Tensor, Tensor]:
        """Read on and forget it again; return -ln p of tokens 1..N-1 and whether each is the most probable one."""
        return losses_of_states(self._model, self.states(token_N), token_N)

    def forget(self, length: int) -> None:
        """Keep the first `length` tokens alone."""
        if length < len(self):
            self._cache.crop(length - len(self))  # a negative number: how many to remove
