"""The lm_eval runner: tasks of lm-evaluation-harness, answered by a model that attends within its windows."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table

from experiments.curves import means_of_windows
from experiments.errors import UserError
from experiments.lazy import np, pd, torch
from experiments.machine import Machine
from experiments.plan import Plan, memory_of
from experiments.ranges import check_range, written_out
from experiments.records.folder import Record
from experiments.runners import ROW_FIELDS, Findings, without
from experiments.runners.asking import Ask, each_way
from experiments.runners.phases import DECODE, PHASES, PREFILL, check_methods, checked_windows, reading_bytes, readings
from experiments.runners.writing import each_text
from experiments.selectors.several import each
from experiments.tables import Table as RecordTable
from experiments.tables.lm_eval import LM_EVAL
from experiments.tables.place import by_window, methods_of

if TYPE_CHECKING:
    from experiments.models.harness import Harness, Request
    from experiments.models.locate import Checkpoint

PACKAGE = "lm-eval"
MOST_DOCUMENTS, MOST_EXAMPLES = 10**7, 1000
LINE_BYTES = 60
STEP_SECONDS = 0.0015  # of a layer for an answer or for a token that is written, whatever the length
UNREAD = ROW_FIELDS | {"source.text", "source.shuffle", "source.samples"}  # the tasks bring their own text


@dataclass
class LmEval:
    """Answer tasks of lm-evaluation-harness by their names, densely and by each method within each window.

    Requests are read one at a time, without padding. In the phase `decode` all tokens of a context but the last are
    read densely, the last and the answer attend within the windows; in `prefill` everything does. A context that is
    longer than the longest of `source.lengths` with its answer is cut on its left.

    `include_path` is a folder with task files of one's own and their data; `limit` asks the first documents of each
    task alone; `fewshot` sets the number of examples before a question, which are drawn by the seed.
    """

    tasks: list[str] = field(default_factory=list)
    include_path: str | None = None
    limit: int | None = None
    fewshot: int | None = None
    phase: str = DECODE
    name: str = "lm_eval"
    tables: ClassVar[tuple[RecordTable, ...]] = (LM_EVAL,)
    version: ClassVar[int] = 1
    draws: ClassVar[bool] = True  # examples before a question

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise UserError(f"runner.phase={self.phase}: choose {' or '.join(PHASES)}")
        if not self.tasks or not all(map(str.strip, self.tasks)):
            raise UserError(f"runner.tasks={self.tasks}: name at least one task of lm-evaluation-harness")
        check_range("runner.limit", self.limit, least=1, most=MOST_DOCUMENTS)
        check_range("runner.fewshot", self.fewshot, least=0, most=MOST_EXAMPLES)
        if self.include_path is not None:
            self.include_path = written_out("runner.include_path", self.include_path)

    def deciding(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields that decide the answers, the folder as the hash of its files, and the harness's version."""
        folder = None if self.include_path is None else _hash_of(Path(self.include_path))
        decided = {"source.lengths": max(fields["source.lengths"]), "runner.include_path": folder, PACKAGE: _version()}
        return without(fields, UNREAD) | decided

    def check(self, source: Any, selector: Any, windows: Any) -> None:
        """Raise UserError if the source is no language model, a method has no meaning, or a task cannot be had."""
        check_methods(selector, checked_windows(source, windows, self.name), self.phase, self.name)
        _version()
        if self.include_path is not None and not Path(self.include_path).is_dir():
            raise UserError(f"runner.include_path={self.include_path}: no such folder; give one with task files")
        self._requests(source, seed=0)

    def groups(self, source: Any, selector: Any, windows: Any) -> int:
        """Return how often `run` will call `advance`: once per context and way to answer."""
        ways = 1 + readings(selector, checked_windows(source, windows, self.name))
        return len(_by_context(self._requests(source, seed=0)[1])) * ways

    def plan(self, source: Any, selector: Any, windows: Any, machine: Machine) -> Plan:
        """Return what a job costs, by a trial of the methods; in the phase `prefill` each reads the contexts too."""
        from experiments.models.trial import seconds_of_readings

        requested = checked_windows(source, windows, self.name)
        ways = readings(selector, requested)
        harness, requests = self._requests(source, seed=0)
        contexts = _by_context(requests)
        longest = max(source.lengths)
        a_pass = source.seconds(machine) / (source.samples * longest)
        read = a_pass * sum(len(asked[0].context) for asked in contexts)
        answers = a_pass * sum(len(request.answer) for request in requests)
        steps = sum(max(request.most, 1) for request in requests)
        answering = answers + steps * len(source.layers_and_heads()[0]) * STEP_SECONDS
        # A written token is read alone, an answer with the last token of its context.
        tokens = round(sum(max(request.most, 1 + len(request.answer)) for request in requests) / steps)
        length = max(len(request.context) + max(len(request.answer), request.most) for request in requests)
        by_methods = partial(seconds_of_readings, source, each(selector), requested, machine, length=length)
        share = sum(max(request.most, 1) * len(request.context) for request in requests) / length
        within = share * by_methods(tokens=max(min(tokens, length - 1), 1))
        if self.phase == PREFILL:
            within += sum((len(asked[0].context) / length) ** 2 for asked in contexts) * by_methods(tokens=length)
        times_read = 1 + ways if self.phase == PREFILL else 1
        return Plan(
            rows=len(requests),
            windows=len(requested),
            seconds=times_read * read + (1 + ways) * answering + within,
            memory_bytes=memory_of(source) + reading_bytes(source, selector, cached=True),
            disk_bytes=len(harness.leaves) * (1 + ways) * LINE_BYTES,
        )

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
        """Answer every request, densely and by each method within every window, and score the answers.

        Raises
        ------
        UserError
            If the model is no causal language model, or a task asks what is not answered.
        """
        from experiments.models.harness import text_until
        from experiments.models.language_model import open_language_model
        from experiments.models.load import load_config, load_tokenizer
        from experiments.models.positions import check_one_regime
        from experiments.models.reading import Reading

        longest = max(source.lengths)
        harness, requests = self._requests(source, seed)
        harness.check_metrics(requests)
        trial_N = next(iter(source.documents(0).values()))
        model = open_language_model(source, machine.device, trial_N, [], self.name, cached=True)
        reading = Reading(model, each(selector), checked_windows(source, windows, self.name))
        decode = partial(load_tokenizer(source.located).decode, skip_special_tokens=True)
        answers: defaultdict[Way, dict[Any, Any]] = defaultdict(dict)
        keys: defaultdict[Way, dict[Any, float]] = defaultdict(dict)
        for asked in _by_context(requests):
            context = asked[0].context
            first = len(context) - 1  # position of the last token, whose row answers first
            length = len(context) + max(max(len(request.answer), request.most) for request in asked)
            check_one_regime(load_config(source.located), {max(first, 1), length}, self.name)
            before_N = torch.tensor(context[:-1], dtype=torch.int64)
            if asked[0].answer:
                asks = [Ask([context[-1], *request.answer], [len(request.answer)]) for request in asked]
                for name, seen, outcomes in each_way(model, reading, self.phase, 0, length, before_N, asks):
                    way = _way(name)
                    for request, outcome in zip(asked, outcomes, strict=True):
                        answers[way][request.key] = (outcome.log_prob, outcome.exact)
                        keys[way][request.key] = seen
                    advance()
                continue
            (request,) = asked
            ends = partial(_ends, request, decode, load_tokenizer(source.located).eos_token_id)
            texts = each_text(model, reading, self.phase, length, before_N, context[-1], request.most, ends)
            for name, seen, tokens in texts:
                answers[_way(name)][request.key] = text_until(decode, request, tokens)
                keys[_way(name)][request.key] = seen
                advance()
        for way, of_way in answers.items():
            for metric in harness.metrics(of_way):
                own = [request for request in requests if request.task in harness.leaves[metric.task]]
                line = dict(zip(WAY, way, strict=True)) | {
                    "task": metric.task,
                    "metric": metric.name,
                    "phase": self.phase,
                    "length": longest,
                    "value": metric.value,
                    "stderr": metric.stderr,
                    "documents": metric.documents,
                    "requests": len(own),
                    "cut": sum(request.cut for request in own),
                    "keys": float(np.mean([keys[way][request.key] for request in own])),
                }
                record.append(LM_EVAL, {name: np.array([value]) for name, value in line.items()})

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return a table of every metric per task and window."""
        lines = pd.read_parquet(folder / LM_EVAL.file)
        title = (
            f"{manifest['label']}, {lines['phase'].iloc[0]}, by {methods_of(lines)}: lm-evaluation-harness, "
            f"requests of at most {lines['length'].iloc[0]} tokens in {manifest['seconds']:.0f} s"
        )
        table = Table(title=title, title_justify="left", title_style="bold")
        for name in ("task, metric, window", "keys per row", "value", "stderr"):
            table.add_column(name, justify="left" if "window" in name else "right", no_wrap=True)
        for (task, metric), of_metric in lines.groupby(["task", "metric"], sort=False):
            asked, left_cut = of_metric[["requests", "cut"]].iloc[0]  # a group counts the requests of its tasks again
            cut = f", {left_cut} contexts cut on their left" if left_cut else ""
            table.add_row(f"{task} {metric}, {asked} requests{cut}")
            for name, part in by_window(of_metric):
                line = part.iloc[0]
                stderr = "" if np.isnan(line["stderr"]) else f"{line['stderr']:.4f}"
                table.add_row(f"  {name}", f"{line['keys']:.0f}", f"{line['value']:.4f}", stderr)
        return Findings([table], {})

    def curves(self, folder: Path) -> pd.DataFrame:
        """Return every metric of each task per window, at the one length."""
        lines = pd.read_parquet(folder / LM_EVAL.file)
        names = lines["task"] + "/" + lines["metric"]
        parts = [
            means_of_windows(part.rename(columns={"value": str(name)}), [str(name)])
            for name, part in lines.groupby(names, sort=False)
        ]
        return pd.concat(parts, axis=1)

    def _requests(self, source: Any, seed: int) -> tuple[Harness, list[Request]]:
        """Return the loaded tasks, and what they ask, as tokens of the source's model."""
        asked = tuple(self.tasks), self.include_path, self.fewshot, self.limit
        content = None if self.include_path is None else _hash_of(Path(self.include_path))
        return _requests(*asked, content, seed, source.located, max(source.lengths))


@lru_cache(maxsize=2)  # asked for by checks, plan and run, and takes as long as the tasks have documents
def _requests(
    tasks: tuple[str, ...],
    include_path: str | None,
    fewshot: int | None,
    limit: int | None,
    content: str | None,
    seed: int,
    checkpoint: Checkpoint,
    longest: int,
) -> tuple[Harness, list[Request]]:
    from experiments.models.harness import Harness, load_tasks
    from experiments.models.load import load_tokenizer

    harness = Harness(load_tasks(tasks, include_path, fewshot, content), limit, seed)
    return harness, harness.requests(load_tokenizer(checkpoint), longest)


WAY = ("selector", "rule", "parameter", "scale")
Way = tuple[Any, ...]
"""What names a way to answer: method, rule, parameter and scale."""


def _way(name: dict[str, Any]) -> Way:
    return tuple(name[column] for column in WAY)


def _by_context(requests: list[Request]) -> list[list[Request]]:
    """Return the requests by context: all texts to score after the same one together, each text to write alone.

    What several tasks ask is there once.
    """
    contexts: defaultdict[Any, list[Request]] = defaultdict(list)
    for request in {request.key: request for request in requests}.values():
        contexts[request.context if request.answer else request.key].append(request)
    return list(contexts.values())


def _ends(request: Request, decode: Callable[[list[int]], str], eos: int | None, tokens: list[int]) -> bool:
    """Say whether a text that is being written ends with the tokens so far."""
    if tokens[-1] == eos:
        return True
    text = decode(tokens)
    return any(end in text for end in request.until if end)


def _version() -> str:
    """Return the version of lm-evaluation-harness; raise UserError if it is not installed."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"runner=lm_eval: lm-evaluation-harness is not installed; pip install '.[{PACKAGE}]'") from None


def _hash_of(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(_files(folder)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
