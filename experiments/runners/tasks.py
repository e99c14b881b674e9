"""The tasks runner: what a model can still answer about its context when it attends within its windows."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table

from experiments.curves import means_of_windows
from experiments.errors import UserError
from experiments.lazy import np, pd, torch
from experiments.machine import Machine
from experiments.part import fields_of
from experiments.plan import Plan
from experiments.ranges import MOST_KEYS, check_range
from experiments.records.folder import Record
from experiments.runners import ROW_FIELDS, Findings, without
from experiments.runners.asking import Ask, Outcome, ask_of, each_way, opened, plan_of_asking
from experiments.runners.phases import (
    DECODE,
    PHASES,
    check_methods,
    checked_windows,
    readings,
)
from experiments.tables import Table as RecordTable
from experiments.tables.place import by_window, methods_of
from experiments.tables.tasks import TASKS
from experiments.tasks import ReadsFile, Task
from experiments.windows import DENSE

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Tasks:
    """Ask the questions of each task about contexts of each length, densely and by each method within each window.

    A context fills the length with the answer, so that its rows see as many keys as the length says. In the phase
    `decode` it is read densely and question and answer attend within the windows; in `prefill` everything does. A model
    that is too weak for a task says so by its dense lines.
    """

    tasks: dict[str, Any] = field(default_factory=dict)
    phase: str = DECODE
    keep_first: int = 0
    keep_recent: int = 0
    name: str = "tasks"
    tables: ClassVar[tuple[RecordTable, ...]] = (TASKS,)
    version: ClassVar[int] = 2  # agreement and KL
    draws: ClassVar[bool] = True  # names, numbers and words

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise UserError(f"runner.phase={self.phase}: choose {' or '.join(PHASES)}")
        names = [task.name for task in self.tasks.values()]
        if not names or len(set(names)) < len(names):
            raise UserError(f"runner.tasks has the names {names}: give at least one task, each under its own name")
        check_range("runner.keep_first", self.keep_first, least=0, most=MOST_KEYS)
        check_range("runner.keep_recent", self.keep_recent, least=0, most=MOST_KEYS)

    def deciding(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields but for those of rows; tasks with class and version, a file as the hash of its content."""
        tasks = [
            fields_of(task) | (task.hashes() if isinstance(task, ReadsFile) else {}) for task in self.tasks.values()
        ]
        return without(fields, ROW_FIELDS) | {"runner.tasks": tasks}

    def check(self, source: Any, selector: Any, windows: Any) -> None:
        """Raise UserError if the source is no language model, a method has no meaning, or a file has too little."""
        requested = checked_windows(source, windows, self.name)
        check_methods(selector, requested, self.phase, self.name, self.keep_first + self.keep_recent)
        for task in self.tasks.values():
            if isinstance(task, ReadsFile):
                task.check_samples(source.samples)

    def groups(self, source: Any, selector: Any, windows: Any) -> int:
        """Return how often `run` will call `advance`: once per context and way to answer."""
        ways = 1 + readings(selector, checked_windows(source, windows, self.name))
        return source.samples * len(source.lengths) * len(self.tasks) * ways

    def plan(self, source: Any, selector: Any, windows: Any, machine: Machine) -> Plan:
        """Return what a job costs."""
        count = len(self.tasks)  # each asks one question
        return plan_of_asking(self, source, selector, windows, machine, contexts=count, questions=count)

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
            If the model is no causal language model, or a length has no room for a task.
        """
        documents = source.documents(seed)
        # all is drawn before the model is loaded, so that a length without room is refused before anything is measured
        drawn = [
            self._drawn(source, seed, sample, length, task, token_N)
            for sample, token_N in documents.items()
            for length in source.lengths
            for task in self.tasks.values()
        ]
        model, reading = opened(self, source, selector, windows, machine, next(iter(documents.values())))
        for place, context_N, asks in drawn:
            every, length = list(chain.from_iterable(asks)), place["length"]
            for name, keys, outcomes in each_way(model, reading, self.phase, place["sample"], length, context_N, every):
                answered = iter(outcomes)
                best = [_best([next(answered) for _ in of_question]) for of_question in asks]
                record.append(TASKS, _lines(place | name, keys, best))
                advance()

    def _drawn(
        self, source: Any, seed: int, sample: int, length: int, task: Task, token_N: Tensor
    ) -> tuple[dict[str, Any], Tensor, list[list[Ask]]]:
        """Return the columns that name a context, its tokens, and of each question every answer that counts."""
        from experiments.models.load import encode, encode_pair, load_config, start_first
        from experiments.models.positions import check_one_regime

        rng = np.random.default_rng([seed, sample, length, zlib.crc32(task.name.encode())])
        drawn = task.draw(sample, rng)
        asks = [
            [ask_of(partial(encode_pair, source.located, asked.text), parts) for parts in asked.answers]
            for asked in drawn.questions
        ]
        room = length - max(len(ask.tokens) for ask in chain.from_iterable(asks))
        try:
            tokens = drawn.context(text := token_N.tolist(), room, partial(encode, source.located))
        except UserError as error:
            raise UserError(f"task {task.name} at {length} tokens: {error}") from error
        check_one_regime(load_config(source.located), [room, length], self.name)
        place = {"task": task.name, "sample": sample, "phase": self.phase, "length": length}
        return place, torch.tensor(start_first(source.located, text, tokens)), asks

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of exact matches and log-probabilities per task and window, over all lengths."""
        answers = pd.read_parquet(folder / TASKS.file)
        lengths = " ".join(map(str, sorted(answers["length"].unique())))
        title = (
            f"{manifest['label']}, {answers['phase'].iloc[0]}, by {methods_of(answers)}: contexts of {lengths} tokens, "
            f"{answers['sample'].nunique()} samples in {manifest['seconds']:.0f} s\n"
            "share of answers exact, of their parts exact, and mean ln p of an answer, over all lengths"
        )
        table = Table(title=title, title_justify="left", title_style="bold")
        for name in ("task", "window", "keys per row", "exact", "parts", "ln p"):
            table.add_column(name, justify="left" if name in ("task", "window") else "right", no_wrap=True)
        for task, of_task in answers.groupby("task", sort=False):
            for name, lines in by_window(of_task):
                exact, parts, log_prob = lines[["exact", "recalled", "log_prob"]].mean()
                row = (f"{lines['keys'].mean():.0f}", f"{exact:.0%}", f"{parts:.0%}", f"{log_prob:.2f}")
                table.add_row(str(task) if name == DENSE else "", name, *row)
        return Findings([table], {})

    def curves(self, folder: Path) -> pd.DataFrame:
        """Return how many answers are exact, their mean ln p, and how near they are to dense ones, over all tasks."""
        measures = ["exact", "recalled", "log_prob", "agreement", "kl"]
        return means_of_windows(pd.read_parquet(folder / TASKS.file), measures)


def _best(outcomes: list[Outcome]) -> Outcome:
    """Return how the model reads the right answers of a question: the most probable, and whether any is exact."""
    best = max(outcomes, key=lambda outcome: outcome.log_prob)
    exact, recalled = any(o.exact for o in outcomes), max(o.recalled for o in outcomes)
    return replace(best, exact=exact, recalled=recalled)


def _lines(place: dict[str, Any], keys: float, outcomes: list[Outcome]) -> dict[str, np.ndarray]:
    count = len(outcomes)
    return {column: np.repeat(value, count) for column, value in place.items()} | {
        "question": np.arange(count, dtype=np.int32),
        "keys": np.repeat(keys, count),
        **{name: np.array([getattr(o, name) for o in outcomes]) for name in Outcome.__dataclass_fields__},
    }
