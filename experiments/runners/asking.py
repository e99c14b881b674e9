"""Questions about a context that a model has read, asked densely and by each method within each window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from experiments.lazy import torch
from experiments.runners.phases import PREFILL
from experiments.selectors.sharpened import Sharpened

if TYPE_CHECKING:
    from experiments.models.reading import Reading

SHARPENED = "sharpened"  # what the column `rule` has for the control


@dataclass(frozen=True)
class Ask:
    """The tokens of a question with an answer, and where the answer's parts end, counted from its first token."""

    tokens: list[int]
    ends: list[int]


@dataclass(frozen=True)
class Outcome:
    """How a model reads an answer.

    Attributes
    ----------
    tokens
        Of the answer.
    log_prob
        Its log-probability in nats.
    exact
        Whether each token is the most probable one given those before, which is what greedy decoding yields.
    recalled
        Share of its parts of which that holds.
    """

    tokens: int
    log_prob: float
    exact: bool
    recalled: float


Way = tuple[dict[str, Any], float, list[Outcome]]
"""The columns that name a way to answer, the keys that its rows keep, and what it answers to each question."""


def each_way(
    model: Any,
    reading: Reading,
    phase: str,
    sample: int,
    length: int,
    context_N: torch.Tensor,
    asks: Sequence[Ask],
    sharpen: Sequence[float] = (),
) -> Iterator[Way]:
    """Yield the answers after one context: dense, dense with sharper logits, and by each method within each window.

    Parameters
    ----------
    phase
        In `decode` the context is read densely, once; in `prefill` within each window.
    length
        Tokens of the context with the longest question and answer.
    """
    from experiments.models.context import Context

    dense = Context(model)
    reading.prompt(length, partial(dense.read, context_N))
    first = len(context_N)  # position of the first row that answers

    def answer(read: bool) -> list[Outcome]:
        context = dense
        if read:
            context = Context(model)
            context.read(context_N)
        return [_outcome(context, ask) for ask in asks]

    name, outcomes, seen_N = reading.densely(length, partial(answer, read=False))
    keys_seen = float(seen_N[first])
    yield name, keys_seen, outcomes
    for factor in sharpen:
        control = {"selector": SHARPENED, "rule": SHARPENED, "parameter": factor, "scale": 1.0}
        outcomes, _ = reading.without_window(Sharpened(factor), sample, length, partial(answer, read=False))
        yield control, keys_seen, outcomes
    for name, outcomes, keys_N in reading.by_methods(sample, length, partial(answer, read=phase == PREFILL)):
        yield name, float(keys_N[first]), outcomes


def ask_of(question_and_answer: Callable[[str], tuple[list[int], list[int]]], parts: Sequence[str]) -> Ask:
    """Return what is asked for an answer in parts.

    Parameters
    ----------
    question_and_answer
        Maps the text of an answer to the tokens of the question and those of the answer.
    """
    question, answer = question_and_answer("".join(parts))
    begun = [len(question_and_answer("".join(parts[: i + 1]))[1]) for i in range(len(parts) - 1)]
    return Ask(question + answer, [*(min(end, len(answer)) for end in begun), len(answer)])


def _outcome(context: Any, ask: Ask) -> Outcome:
    loss_N, hit_N = context.losses(torch.tensor(ask.tokens))
    tokens = ask.ends[-1]
    hits = hit_N[-tokens:].tolist()
    recalled = [all(hits[start:end]) for start, end in zip([0, *ask.ends], ask.ends, strict=False)]
    return Outcome(tokens, -float(loss_N[-tokens:].sum()), all(hits), sum(recalled) / len(recalled))
