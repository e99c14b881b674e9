"""What a model writes greedily after a context, densely and by each method within each window.

Shape letters: N tokens of the context, W width of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from experiments.lazy import torch
from experiments.runners.phases import PREFILL

if TYPE_CHECKING:
    from experiments.models.reading import Reading

Text = tuple[dict[str, Any], float, list[int]]
"""The columns that name a way to write, the keys that its first row keeps, and the tokens."""


def each_text(
    model: Any,
    reading: Reading,
    phase: str,
    length: int,
    context_N: torch.Tensor,
    last: int,
    most: int,
    ends: Callable[[list[int]], bool],
) -> Iterator[Text]:
    """Yield the tokens that are written after one context: densely, and by each method within each window.

    Parameters
    ----------
    phase
        In `decode` the context is read densely, once; in `prefill` within each window.
    length
        Tokens of the context with the longest text.
    context_N
        The context but for its last token.
    last
        That token, which attends as the written ones do.
    most
        Most tokens that are written.
    ends
        Says whether the tokens so far end the text.
    """
    from experiments.models.context import Context
    from experiments.models.loss import logits_of_states

    read_densely = Context(model)
    first = len(context_N)
    if first:
        reading.prompt(length, partial(read_densely.read, context_N))

    def write(read: bool) -> list[int]:
        context = read_densely
        if read:
            context = Context(model)
            if first:
                context.read(context_N)
        written: list[int] = []
        while len(written) < most and not (written and ends(written)):
            token_N = torch.tensor([written[-1] if written else last])
            state_NW = context.read(token_N)
            written.append(int(logits_of_states(model, state_NW, token_N.to(model.device)).argmax()))
        context.forget(first)
        return written

    name, tokens, seen_N = reading.densely(length, partial(write, read=False))
    yield name, float(seen_N[first]), tokens
    in_prefill = phase == PREFILL
    # the passes of the tokens that are written all go on from the same prompt
    prompt = None if in_prefill else first
    for name, tokens, keys_N in reading.by_methods(0, length, partial(write, read=in_prefill), prompt):
        yield name, float(keys_N[first]), tokens
