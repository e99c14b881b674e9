"""The retrieval runner: what a model can still recall of its context when it attends within its windows.

The task is key-value recall, with the corpus as haystack: `The pass key of Paris is 48213.` stands at each depth of the
context with another city and number, and the model is asked for each in turn. With one depth it is the passkey task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.table import Table

from experiments.errors import UserError
from experiments.machine import Machine
from experiments.plan import PROCESS_BYTES, Plan
from experiments.ranges import MOST_KEYS, MOST_LOGIT, check_range
from experiments.records.folder import Record
from experiments.runners import Findings
from experiments.runners.language import (
    DECODE,
    DENSE,
    PHASES,
    PREFILL,
    SPARSE_OVER_DENSE,
    check_oracle,
    checked_windows,
    window_name,
)
from experiments.schema import Job
from experiments.selectors import Selector
from experiments.sources import Source

CITIES = ("Paris", "London", "Berlin", "Madrid", "Rome", "Vienna", "Prague", "Dublin", "Athens", "Oslo", "Cairo")
NEEDLE = "\nThe pass key of {city} is {number}. Remember it.\n"
QUESTION = "\nNow recall what you read. The pass key of {city} is"
ANSWER = " {number}"
LINE_BYTES = 60
SHARPENED = "sharpened"  # the control's place in the column `rule`


@dataclass
class Retrieval:
    """Ask for the number at each depth of contexts of each length, densely and within each window.

    In the phase `decode` the context is read densely and question and answer attend within the windows; in the phase
    `prefill` everything does. The answer counts as exact if each of its tokens is the most probable one given those
    before, which is what greedy decoding yields; its log-probability is the finer measure.

    `sharpen` is a control: factors on every logit of dense attention while it answers. A window cuts the tail of a row
    off and a sharper softmax thins it, so that what helps both is the tail's going, not the choice of keys.
    """

    depths: list[float]
    phase: str = DECODE
    sharpen: list[float] = field(default_factory=list)
    keep_first: int = 0
    keep_recent: int = 0
    name: str = "retrieval"

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise UserError(f"runner.phase={self.phase}: choose {' or '.join(PHASES)}")
        if not 1 <= len(self.depths) <= len(CITIES):
            raise UserError(f"runner.depths={self.depths}: give 1 to {len(CITIES)} shares of the context, from 0 to 1")
        check_range("runner.depths", self.depths, least=0, most=1)
        check_range("runner.sharpen", self.sharpen, above=0, most=MOST_LOGIT)
        check_range("runner.keep_first", self.keep_first, least=0, most=MOST_KEYS)
        check_range("runner.keep_recent", self.keep_recent, least=0, most=MOST_KEYS)

    def groups(self, source: Source, windows: Any) -> int:
        """Return how often `run` will call `advance`: once per context and window."""
        ways = 1 + len(self.sharpen) + len(checked_windows(source, windows, self.name))
        return source.samples * len(source.lengths) * ways

    def plan(self, job: Job, machine: Machine) -> Plan:
        """Return what a job costs; a context is read once, or once per window in the phase `prefill`."""
        windows = checked_windows(job.source, job.windows, self.name)
        lengths = np.array(job.source.lengths)
        passes = float((lengths / lengths.max()).sum())
        within = len(windows) if self.phase == PREFILL else 0.1 * len(windows)
        lines = job.source.samples * len(lengths) * len(self.depths)
        return Plan(
            rows=lines,
            windows=len(windows),
            seconds=job.source.seconds() * passes * (1 + SPARSE_OVER_DENSE * within),
            memory_bytes=PROCESS_BYTES + job.source.resident_bytes(),
            disk_bytes=lines * (1 + len(self.sharpen) + len(windows)) * LINE_BYTES,
        )

    def run(
        self,
        source: Any,
        selector: Selector,
        windows: Any,
        machine: Machine,
        seed: int,
        record: Record,
        advance: Callable[[], None],
    ) -> None:
        """Measure the log-probability of every answer, densely and within every window.

        Raises
        ------
        UserError
            If the source is no causal language model, a length has no room for the needles, or the selector is not
            the oracle.
        """
        from functools import partial

        from experiments.models.context import Context
        from experiments.models.language_model import open_language_model
        from experiments.models.load import encode, encode_pair, load_config
        from experiments.models.positions import check_one_regime
        from experiments.models.sharpened import sharpened
        from experiments.models.windowed import densely
        from experiments.models.windowed import within as within_window

        asked = checked_windows(source, windows, self.name)
        check_oracle(selector, self.name)
        documents = source.documents(seed)
        contexts = [[length] for length in source.lengths]
        model = open_language_model(source, machine.device, documents[0], contexts, self.name, cached=True)
        within = partial(within_window, model, asked, keep_first=self.keep_first, keep_recent=self.keep_recent)

        for sample, token_N in enumerate(documents):
            for length in source.lengths:
                rng = np.random.default_rng([seed, sample, length])
                cities = rng.permutation(CITIES)[: len(self.depths)]
                numbers = rng.integers(10_000, 100_000, len(self.depths))
                facts = [{"city": city, "number": number} for city, number in zip(cities, numbers, strict=True)]
                needles = [encode(source.located, NEEDLE.format(**fact)) for fact in facts]
                pairs = [encode_pair(source.located, QUESTION.format(**f), ANSWER.format(**f)) for f in facts]
                asks, answers = [question + answer for question, answer in pairs], [answer for _, answer in pairs]
                room = length - max(map(len, asks))
                check_one_regime(load_config(source.located), [room, length], self.name)
                context_N = _context(token_N.tolist(), needles, self.depths, room, length)
                dense = Context(model)
                with densely(model, length) as seen:
                    dense.read(context_N)
                keys_seen = float(seen.mean()[room - 1])
                place = {"sample": sample, "phase": self.phase, "length": length}
                # rule, parameter and scale of each way to answer, the keys its rows keep, and what it answered
                ways = [(window_name(asked, None), keys_seen, _ask(dense, asks, answers))]
                advance()
                for factor in self.sharpen:
                    control = {"rule": SHARPENED, "parameter": factor, "scale": 1.0}
                    with sharpened(model, factor):
                        ways.append((control, keys_seen, _ask(dense, asks, answers)))
                    advance()
                for w in range(len(asked)):
                    with within(w, length) as kept:
                        context = dense
                        if self.phase == PREFILL:
                            context = Context(model)
                            context.read(context_N)
                        found = _ask(context, asks, answers)
                    ways.append((window_name(asked, w), float(kept.mean()[room]), found))
                    advance()
                for name, keys, found in ways:
                    named = {column: np.repeat(value, len(asks)) for column, value in (place | name).items()}
                    record.retrieval.append(named | {"keys": np.repeat(keys, len(asks)), **self._columns(found)})

    def _columns(self, found: list[tuple[int, float, bool]]) -> dict[str, np.ndarray]:
        tokens, log_prob, exact = map(np.array, zip(*found, strict=True))
        return {"depth": np.array(self.depths, dtype=float), "tokens": tokens, "log_prob": log_prob, "exact": exact}

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of exact matches and log-probabilities per window and length."""
        answers = pd.read_parquet(folder / "retrieval.parquet")
        lengths = sorted(answers["length"].unique())
        title = (
            f"{manifest['label']}, {answers['phase'].iloc[0]}: {answers['sample'].nunique()} samples, "
            f"{answers['depth'].nunique()} depths in {manifest['seconds']:.0f} s\n"
            "per context length: share of answers exact, and mean ln p of an answer"
        )
        table = Table(title=title, title_justify="left", title_style="bold")
        for name in ("window", "keys per row", *map(str, lengths)):
            table.add_column(name, justify="left" if name == "window" else "right", no_wrap=True, min_width=6)
        for (rule, parameter, scale), lines in answers.groupby(
            ["rule", "parameter", "scale"], dropna=False, sort=False
        ):
            name = DENSE if rule == DENSE else f"{rule} {parameter:.3g} x {scale:.3g}"
            means = lines.groupby("length")[["exact", "log_prob"]].mean()
            cells = (f"{means.loc[n, 'exact']:.0%} {means.loc[n, 'log_prob']:.2f}" for n in lengths)
            table.add_row(name, f"{lines['keys'].mean():.0f}", *cells)
        return Findings([table], {})


def _ask(context: Any, asks: list[list[int]], answers: list[list[int]]) -> list[tuple[int, float, bool]]:
    """Return, per question, the tokens of its answer, the answer's log-probability and whether it is exact."""
    losses = [context.losses(torch.tensor(ask)) for ask in asks]
    return [
        (len(answer), -float(loss[-len(answer) :].sum()), bool(hit[-len(answer) :].all()))
        for (loss, hit), answer in zip(losses, answers, strict=True)
    ]


def _context(
    haystack: list[int], needles: list[list[int]], depths: list[float], room: int, length: int
) -> torch.Tensor:
    """Return `room` tokens: the start of the haystack with each needle at its share of it."""
    hay = room - sum(map(len, needles))
    if hay < 1:
        raise UserError(
            f"source.lengths has {length}, too short for {len(needles)} needles and a question: give longer "
            "lengths or fewer runner.depths"
        )
    context, used = [], 0
    for depth, needle in sorted(zip(depths, needles, strict=True), key=lambda pair: pair[0]):
        context += haystack[used : round(depth * hay)] + needle
        used = round(depth * hay)
    return torch.tensor(context + haystack[used:hay])
