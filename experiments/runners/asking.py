"""Questions about a context that a model has read, asked densely and by each method within each window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from experiments.lazy import torch
from experiments.machine import Machine
from experiments.plan import Plan, memory_of
from experiments.runners.phases import DECODE, PREFILL, checked_windows, reading_bytes, readings
from experiments.selectors.several import each
from experiments.selectors.sharpened import Sharpened

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.models.loss import Quality
    from experiments.models.reading import Reading

SHARPENED = "sharpened"  # what the column `rule` has for the control
LINE_BYTES = 60
ASKED = 16  # tokens of a question and what is read of its answer, about


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
    agreement
        Share of its tokens where the most probable one is that of dense attention.
    kl
        KL(dense || this) of the next token in nats, mean over its tokens.
    """

    tokens: int
    log_prob: float
    exact: bool
    recalled: float
    agreement: float
    kl: float


Way = tuple[dict[str, Any], float, list[Outcome]]
"""The columns that name a way to answer, the keys that its rows keep, and what it answers to each question."""


def opened(
    runner: Any, source: Any, selector: Any, windows: Any, machine: Machine, trial_N: Tensor
) -> tuple[Any, Reading]:
    """Return the model, tried on some tokens, and what lets it read by each method within each window.

    Raises
    ------
    UserError
        If the model is no causal language model.
    """
    from experiments.models.language_model import open_language_model
    from experiments.models.reading import Reading

    contexts = [[length] for length in source.lengths]
    model = open_language_model(source, machine.device, trial_N, contexts, runner.name, cached=True)
    requested = checked_windows(source, windows, runner.name)
    kept = {"keep_first": runner.keep_first, "keep_recent": runner.keep_recent}
    return model, Reading(model, each(selector), requested, **kept)


def plan_of_asking(
    runner: Any,
    source: Any,
    selector: Any,
    windows: Any,
    machine: Machine,
    *,
    contexts: int,
    questions: int,
    controls: int = 0,
) -> Plan:
    """Return what asking costs, by a trial of the methods; a context is read once, or in `prefill` once per window.

    Parameters
    ----------
    contexts, questions
        Of a sample at a length.
    controls
        Ways to answer beside the dense one and those of the methods.
    """
    from experiments.models.trial import seconds_of_readings

    requested = checked_windows(source, windows, runner.name)
    ways, lengths, longest = readings(selector, requested), source.lengths, max(source.lengths)
    passes = contexts * sum(lengths) / longest
    if runner.phase == PREFILL:
        read, again = longest, ways * passes
        times = contexts * sum(length**2 for length in lengths) / longest**2
    else:
        read = min(ASKED, longest - 1)
        again, times = ways * questions * len(lengths) * read / longest, questions * sum(lengths) / longest
    within = seconds_of_readings(source, each(selector), requested, machine, length=longest, tokens=read)
    lines = source.samples * len(lengths) * questions
    return Plan(
        rows=lines,
        windows=len(requested),
        seconds=source.seconds(machine) * (passes + again) + source.samples * within * times,
        memory_bytes=memory_of(source) + reading_bytes(source, selector, cached=runner.phase == DECODE),
        disk_bytes=lines * (1 + controls + ways) * LINE_BYTES,
    )


def each_way(
    model: Any,
    reading: Reading,
    phase: str,
    sample: int,
    length: int,
    context_N: Tensor,
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
    context_N
        Tokens of the context; there may be none.
    """
    from experiments.models.context import Context
    from experiments.models.loss import DensePass

    read_densely = Context(model)
    if len(context_N):
        reading.prompt(length, partial(read_densely.read, context_N))
    first = len(context_N)  # position of the first row that answers

    def states(read: bool) -> list[Tensor]:
        """Return the last hidden states of every question with its answer."""
        context = read_densely
        if read:
            context = Context(model)
            if len(context_N):
                context.read(context_N)
        return [context.states(torch.tensor(ask.tokens)) for ask in asks]

    def outcomes_of(answers: Sequence[Tensor]) -> list[Outcome]:
        return [_outcome(own.beside(state_NW), ask) for own, state_NW, ask in zip(dense, answers, asks, strict=True)]

    name, of_dense, seen_N = reading.densely(length, partial(states, read=False))
    dense = [DensePass(model, state_NW, torch.tensor(ask.tokens)) for state_NW, ask in zip(of_dense, asks, strict=True)]
    keys_seen = float(seen_N[first])
    yield name, keys_seen, [_outcome(own.itself(), ask) for own, ask in zip(dense, asks, strict=True)]
    for factor in sharpen:
        control = {"selector": SHARPENED, "rule": SHARPENED, "parameter": factor, "scale": 1.0}
        answers, _ = reading.without_window(Sharpened(factor), sample, length, partial(states, read=False))
        yield control, keys_seen, outcomes_of(answers)
    for name, answers, keys_N in reading.by_methods(sample, length, partial(states, read=phase == PREFILL)):
        yield name, float(keys_N[first]), outcomes_of(answers)


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


def _outcome(quality: Quality, ask: Ask) -> Outcome:
    tokens = ask.ends[-1]
    hits = quality.hit_N[-tokens:].tolist()
    recalled = [all(hits[start:end]) for start, end in zip([0, *ask.ends], ask.ends, strict=False)]
    return Outcome(
        tokens=tokens,
        log_prob=-float(quality.loss_N[-tokens:].sum()),
        exact=all(hits),
        recalled=sum(recalled) / len(recalled),
        agreement=float(quality.agreement_N[-tokens:].double().mean()),
        kl=float(quality.kl_N[-tokens:].double().mean()),
    )
