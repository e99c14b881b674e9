"""The retrieval runner: what a model can still recall of its context when it attends within its windows.

The task is key-value recall, with the corpus as haystack: `The pass key of Paris is 48213.` stands at each depth of the
context with another city and number, and the model is asked for each in turn. With one depth it is the passkey task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table

from experiments.curves import means_of_windows
from experiments.errors import UserError
from experiments.lazy import np, pd, torch
from experiments.machine import Machine
from experiments.plan import Plan
from experiments.ranges import MOST_KEYS, MOST_LOGIT, check_range
from experiments.records.folder import Record
from experiments.runners import ROW_FIELDS, Findings, without
from experiments.runners.asking import Ask, ask_of, each_way, opened, plan_of_asking
from experiments.runners.phases import (
    DECODE,
    PHASES,
    check_methods,
    checked_windows,
    readings,
)
from experiments.selectors.sharpened import Sharpened
from experiments.tables import Table as RecordTable
from experiments.tables.place import by_window, methods_of
from experiments.tables.retrieval import RETRIEVAL
from experiments.tasks.haystack import spread

if TYPE_CHECKING:
    from torch import Tensor

CITIES = ("Paris", "London", "Berlin", "Madrid", "Rome", "Vienna", "Prague", "Dublin", "Athens", "Oslo", "Cairo")
NEEDLE = "\nThe pass key of {city} is {number}. Remember it.\n"
QUESTION = "\nNow recall what you read. The pass key of {city} is"
ANSWER = " {number}"
ANSWERED = ("tokens", "log_prob", "exact", "agreement", "kl")


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
    tables: ClassVar[tuple[RecordTable, ...]] = (RETRIEVAL,)
    version: ClassVar[int] = 2  # agreement and KL
    draws: ClassVar[bool] = True  # cities and numbers

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise UserError(f"runner.phase={self.phase}: choose {' or '.join(PHASES)}")
        if not 1 <= len(self.depths) <= len(CITIES):
            raise UserError(f"runner.depths={self.depths}: give 1 to {len(CITIES)} shares of the context, from 0 to 1")
        check_range("runner.depths", self.depths, least=0, most=1)
        check_range("runner.sharpen", self.sharpen, above=0, most=MOST_LOGIT)
        check_range("runner.keep_first", self.keep_first, least=0, most=MOST_KEYS)
        check_range("runner.keep_recent", self.keep_recent, least=0, most=MOST_KEYS)

    def deciding(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields but for those of rows, with the version of the control if there is one."""
        control = {"sharpened.version": Sharpened.version} if self.sharpen else {}
        return without(fields, ROW_FIELDS) | control

    def check(self, source: Any, selector: Any, windows: Any) -> None:
        """Raise UserError if the source is no language model, or a method has no meaning in this phase."""
        requested = checked_windows(source, windows, self.name)
        check_methods(selector, requested, self.phase, self.name, self.keep_first + self.keep_recent)

    def groups(self, source: Any, selector: Any, windows: Any) -> int:
        """Return how often `run` will call `advance`: once per context and way to answer."""
        ways = readings(selector, checked_windows(source, windows, self.name))
        return source.samples * len(source.lengths) * (1 + len(self.sharpen) + ways)

    def plan(self, source: Any, selector: Any, windows: Any, machine: Machine) -> Plan:
        """Return what a job costs."""
        asked, controls = len(self.depths), len(self.sharpen)
        return plan_of_asking(self, source, selector, windows, machine, contexts=1, questions=asked, controls=controls)

    def run(
        self,
        source: Any,
        selector: Any,
        windows: Any,
        machine: Machine,
        seed: int,
        record: Record,
        advance: Callable[[], None],
    ) -> None:
        """Measure the log-probability of every answer, densely and by each method within every window.

        Raises
        ------
        UserError
            If the model is no causal language model, or a length has no room for the needles.
        """
        documents = source.documents(seed)
        # all is drawn before the model is loaded, so that a length without room is refused before anything is measured
        drawn = {
            (sample, length): self._drawn(source, seed, sample, length, token_N)
            for sample, token_N in documents.items()
            for length in source.lengths
        }
        model, reading = opened(self, source, selector, windows, machine, next(iter(documents.values())))
        for (sample, length), (context_N, asks) in drawn.items():
            lines = {"sample": sample, "phase": self.phase, "length": length}
            ways = each_way(model, reading, self.phase, sample, length, context_N, asks, self.sharpen)
            for name, keys, outcomes in ways:
                named = {column: np.repeat(value, len(asks)) for column, value in (lines | name).items()}
                named |= {"depth": np.array(self.depths, dtype=float), "keys": np.repeat(keys, len(asks))}
                answers = {part: np.array([getattr(o, part) for o in outcomes]) for part in ANSWERED}
                record.append(RETRIEVAL, named | answers)
                advance()

    def _drawn(self, source: Any, seed: int, sample: int, length: int, token_N: Tensor) -> tuple[Tensor, list[Ask]]:
        """Return the tokens of a context with its needles, and what is asked about it."""
        from experiments.models.load import encode, encode_pair, load_config, start_first
        from experiments.models.positions import check_one_regime

        rng = np.random.default_rng([seed, sample, length])
        cities = rng.permutation(CITIES)[: len(self.depths)]
        numbers = rng.integers(10_000, 100_000, len(self.depths))
        facts = [{"city": city, "number": number} for city, number in zip(cities, numbers, strict=True)]
        needles = [encode(source.located, NEEDLE.format(**fact)) for fact in facts]
        asks = [
            ask_of(partial(encode_pair, source.located, QUESTION.format(**fact)), [ANSWER.format(**fact)])
            for fact in facts
        ]
        room = length - max(len(ask.tokens) for ask in asks)
        check_one_regime(load_config(source.located), [room, length], self.name)
        context = spread(text := token_N.tolist(), needles, self.depths, room)
        return torch.tensor(start_first(source.located, text, context)), asks

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of exact matches and log-probabilities per window and length."""
        answers = pd.read_parquet(folder / RETRIEVAL.file)
        lengths = sorted(answers["length"].unique())
        title = (
            f"{manifest['label']}, {answers['phase'].iloc[0]}, by {methods_of(answers)}: "
            f"{answers['sample'].nunique()} samples, {answers['depth'].nunique()} depths "
            f"in {manifest['seconds']:.0f} s\n"
            "keys per row over all lengths; per context length: share of answers exact, and mean ln p of an answer"
        )
        table = Table(title=title, title_justify="left", title_style="bold")
        for name in ("window", "keys per row", *map(str, lengths)):
            table.add_column(name, justify="left" if name == "window" else "right", no_wrap=True, min_width=6)
        for name, lines in by_window(answers):
            means = lines.groupby("length")[["exact", "log_prob"]].mean()
            cells = (f"{means.loc[n, 'exact']:.0%} {means.loc[n, 'log_prob']:.2f}" for n in lengths)
            table.add_row(name, f"{lines['keys'].mean():.0f}", *cells)
        return Findings([table], {})

    def curves(self, folder: Path) -> pd.DataFrame:
        """Return how many answers are exact, their mean ln p, and how near they are to dense ones, per window."""
        return means_of_windows(pd.read_parquet(folder / RETRIEVAL.file), ["exact", "log_prob", "agreement", "kl"])
