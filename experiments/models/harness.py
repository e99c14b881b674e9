"""Tasks of lm-evaluation-harness: loaded by name, their requests as tokens, and scored from answers to them.

A request is encoded as that package's own `HFLM` does it, with a batch of one and no padding. Nothing is imported from
here before the package is known to be installed.
"""

from __future__ import annotations

import glob
import io
import json
import logging
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from lm_eval import evaluator
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import has_bos_prefix, normalize_gen_kwargs
from lm_eval.tasks import TaskManager

from experiments.errors import UserError
from experiments.misspelt import meant

SCORE, WRITE = "loglikelihood", "generate_until"  # as lm-evaluation-harness names the kinds of requests
GENERATED = 256  # most tokens of a text that is written, where a task does not say
SEED = 1234  # of the examples before a question, as lm-evaluation-harness sets it by default
STDERR_DRAWS = 1000  # bootstrap draws, which know a standard error to 2%; for most metrics it has a formula
ONE_PROCESS = "DISABLE_MULTIPROC"  # keeps these draws from processes of their own, one per core whatever `threads` says
GREEDY = {"do_sample", "temperature", "until", "max_gen_toks"}  # what a greedy writer heeds

Key = tuple[str, str]
"""The kind of a request and its arguments."""


@dataclass(frozen=True)
class Request:
    """One request of a task.

    Attributes
    ----------
    context
        Tokens that are read before; at least one.
    answer
        Tokens to score; none where a text is to be written.
    until
        Texts, any of which ends the text that is written.
    most
        Most tokens of that text.
    cut
        Whether the context was cut on its left.
    """

    key: Key
    task: str
    context: tuple[int, ...]
    answer: tuple[int, ...] = ()
    until: tuple[str, ...] = ()
    most: int = 0
    cut: bool = False


@dataclass(frozen=True)
class Metric:
    """One number that lm-evaluation-harness makes of a task's answers; `stderr` is NaN where it has none."""

    task: str
    name: str
    value: float
    stderr: float
    documents: int


class Harness:
    """The tasks of a job: what they ask, and what the answers are worth."""

    def __init__(self, tasks: dict[str, Any], limit: int | None, seed: int) -> None:
        """Take loaded tasks, how many documents of each are asked, and the seed of examples."""
        self._loaded, self._limit, self._seed = tasks, limit, (SEED + seed) % 2**32
        self.leaves = {name: [name] for name in tasks["tasks"]} | {
            name: [task.task_name for task in group.get_all_tasks()] for name, group in tasks["groups"].items()
        }

    def requests(self, tokenizer: Any, longest: int) -> list[Request]:
        """Return what the tasks ask, each request of a task once, as tokens.

        Parameters
        ----------
        longest
            Most tokens of a context with its answer.

        Raises
        ------
        UserError
            By the task's name, if it asks what is not answered here, or there is no room for an answer.
        """
        asked: dict[tuple[str, Key], Request] = {}
        encoder = _Encoder(tokenizer, longest)
        for name, task in self._loaded["tasks"].items():
            self._begin(task)
            with _quietly():
                task.build_all_requests(limit=self._limit)
            for instance in task.instances:
                try:
                    request = encoder.request(name, instance)
                except UserError as error:
                    raise UserError(f"task {name}: {error}") from error
                asked.setdefault((name, request.key), request)
        return list(asked.values())

    def check_metrics(self, requests: Sequence[Request]) -> None:
        """Raise UserError if answers cannot be scored, such as by a metric that is not here, before any is sought."""
        try:
            self.metrics({request.key: (-1.0, False) if request.answer else "" for request in requests}, 0)
        except Exception as error:  # of a metric's or a task's own code
            reason = next(iter(str(error).strip().splitlines()), "")[:200]
            raise UserError(
                f"runner.tasks={sorted(self._loaded['tasks'])}: answers cannot be scored "
                f"({type(error).__name__}: {reason})"
            ) from error

    def metrics(self, answers: dict[Key, Any], stderr_draws: int = STDERR_DRAWS) -> list[Metric]:
        """Return what lm-evaluation-harness makes of answers: (ln p, whether greedy) or a text, by request."""
        for task in self._loaded["tasks"].values():
            self._begin(task)
        os.environ.setdefault(ONE_PROCESS, "1")
        with _quietly():
            result = evaluator.evaluate(
                lm=_Answered(answers),
                task_dict=self._loaded,
                limit=self._limit,
                bootstrap_iters=stderr_draws,
                log_samples=False,
            )
        return [metric for name, values in result["results"].items() for metric in _metrics(name, values)]

    def _begin(self, task: Any) -> None:
        """Let what a task draws be drawn anew, so that it asks the same again."""
        random.seed(self._seed)
        np.random.seed(self._seed)  # noqa: NPY002  tasks draw from it
        task.set_fewshot_seed(self._seed)


@lru_cache(maxsize=2)
def load_tasks(
    names: tuple[str, ...], include_path: str | None, fewshot: int | None, content: str | None = None
) -> dict[str, Any]:
    """Return tasks and groups as `TaskManager.load` has them, with the given number of examples before a question.

    `content`, the hash of the folder of local tasks, tells whether those loaded before are still the same.

    Raises
    ------
    UserError
        If there is no task of a name, its data cannot be had or lies outside the folder of local tasks, it runs code
        that the model writes, reads pictures, or has its number of examples set to 0 by itself.
    """
    manager = _manager(names, include_path)
    for name in names:
        if name not in manager.all_tasks:
            hint = meant(name, manager.all_tasks)
            raise UserError(f"runner.tasks has {name}: lm-evaluation-harness has no such task{hint}")
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    for name in names:
        try:
            with _quietly():
                part = manager.load([name])
        except Exception as error:  # whatever a hub, a network, a yaml or a task's own code may raise
            reason = next(iter(str(error).strip().splitlines()), "")[:200]
            raise UserError(
                f"runner.tasks has {name}: the task or its data cannot be had ({type(error).__name__}: {reason})"
            ) from error
        for kind, members in loaded.items():
            members.update(part.get(kind, {}))
    for name, task in loaded["tasks"].items():
        _check(name, task, include_path, fewshot)
        if fewshot is not None:
            task.set_config(key="num_fewshot", value=fewshot)
    return loaded


def _manager(names: tuple[str, ...], include_path: str | None) -> TaskManager:
    """Return what knows the tasks; to read the package's own 13000 files takes 15 seconds, so only where it must."""
    with _quietly():
        if include_path is not None:
            local = TaskManager(include_path=include_path, include_defaults=False)
            if set(names) <= set(local.all_subtasks):  # a group may hold tasks of the package
                return local
        return TaskManager(include_path=include_path)


def _check(name: str, task: Any, include_path: str | None, fewshot: int | None) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise UserError(f"runner.tasks has {name}: it runs code that the model writes, which is not done here")
    if getattr(task, "MULTIMODAL", False):
        raise UserError(f"runner.tasks has {name}: it asks about pictures or sound; models of text alone are measured")
    if fewshot and task.get_config("num_fewshot") == 0:
        raise UserError(f"runner.fewshot={fewshot}: {name} sets its examples to 0 by itself; leave runner.fewshot out")
    folder = Path(include_path).resolve() if include_path else None
    for file in _local_files(task):
        if folder is None or folder not in file.resolve().parents:
            raise UserError(
                f"runner.tasks has {name}: its data lie in {file}, outside runner.include_path, and the run id holds "
                "the content of that folder alone; move them there"
            )


def _local_files(task: Any) -> Iterator[Path]:
    """Yield the files and folders on this machine that a task's configuration names."""
    given = [task.get_config("dataset_kwargs") or {}, str(task.get_config("dataset_path") or "")]
    while given:
        value = given.pop()
        if isinstance(value, dict | list | tuple):
            given += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str) and "://" not in value:
            yield from map(Path, glob.glob(value, recursive=True))


class _Encoder(TemplateLM):  # type: ignore[misc, unused-ignore]
    """Makes requests of texts, as `lm_eval.models.huggingface.HFLM` does for a causal model."""

    def __init__(self, tokenizer: Any, longest: int) -> None:
        super().__init__()
        self.tokenizer, self._longest = tokenizer, longest

    @property
    def eot_token_id(self) -> int | None:  # type: ignore[override, unused-ignore]
        """The token that ends a text."""
        token: int | None = self.tokenizer.eos_token_id
        return token

    @property
    def prefix_token_id(self) -> int:
        """The token that stands for an empty context."""
        token = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.eot_token_id
        if token is None:
            raise UserError("it asks with an empty context, and the tokenizer has no token that begins or ends a text")
        return int(token)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Return the tokens of a text, with the tokenizer's own special ones unless the text has them."""
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.bos_token or self.tokenizer.eos_token):
            add_special_tokens = False
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(string, **special))

    def request(self, task: str, instance: Any) -> Request:
        """Return one request of a task."""
        key = _key(instance)
        if instance.request_type == SCORE:
            return self._to_score(task, key, *instance.args)
        if instance.request_type == WRITE:
            return self._to_write(task, key, *instance.args)
        raise UserError(f"it asks for {instance.request_type}, which runner=lm_eval does not answer")

    def _to_score(self, task: str, key: Key, context: str, continuation: str) -> Request:
        if context:
            before, answer = self._encode_pair(context, continuation)
        else:
            answer = self.tok_encode(continuation, add_special_tokens=False)
            before = [self.prefix_token_id]
            if answer[:1] == before:
                before, answer = answer[:1], answer[1:]
        if not answer or not before:
            raise UserError(f"{continuation[:40]!r} after {context[-40:]!r} has no tokens of its own")
        kept = self._room(len(answer))
        return Request(key, task, tuple(before[-kept:]), tuple(answer), cut=len(before) > kept)

    def _to_write(self, task: str, key: Key, context: str, settings: dict[str, Any]) -> Request:
        given = normalize_gen_kwargs(settings, GENERATED)
        samples = ["sampling"] if given.get("do_sample") or given.get("temperature") else []
        if others := samples + sorted(set(given) - GREEDY):
            what = ", ".join(others)
            raise UserError(f"its generation_kwargs ask for {what}, and texts are written greedily here")
        until = given["until"] if isinstance(given["until"], list) else [given["until"]]
        tokens = self.tok_encode(context) or [self.prefix_token_id]
        kept = self._room(int(given["max_gen_toks"]))
        return Request(
            key, task, tuple(tokens[-kept:]), (), tuple(until), int(given["max_gen_toks"]), len(tokens) > kept
        )

    def _room(self, answer: int) -> int:
        """Return how many tokens of a context there is room for."""
        if answer >= self._longest:
            raise UserError(
                f"an answer of {answer} tokens leaves no room for a context in source.lengths of {self._longest}"
            )
        return self._longest - answer

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """Not answered: `request` refuses it."""
        raise NotImplementedError

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """Not answered by itself."""
        raise NotImplementedError


class _Answered(TemplateLM):  # type: ignore[misc, unused-ignore]
    """Answers every request with what is known."""

    eot_token_id = None  # type: ignore[assignment, unused-ignore]

    def __init__(self, answers: dict[Key, Any]) -> None:
        super().__init__()
        self._answers = answers

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return ln p of each answer, and whether it is what greedy decoding writes."""
        return [self._answers[_key(request)] for request in requests]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the texts that were written."""
        return [self._answers[_key(request)] for request in requests]

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Nothing is encoded any more."""
        raise NotImplementedError

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """Not answered: it was refused before."""
        raise NotImplementedError


def _key(instance: Any) -> Key:
    return instance.request_type, json.dumps(instance.args, sort_keys=True, default=str)


def text_until(decode: Callable[[list[int]], str], request: Request, tokens: list[int]) -> str:
    """Return the text of tokens up to the first of the texts that end it."""
    text = decode(tokens)
    for end in filter(None, request.until):
        text = text.split(end)[0]
    return text


def _metrics(task: str, values: dict[str, Any]) -> Iterator[Metric]:
    for name, value in values.items():
        metric, comma, of_filter = name.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float | np.number):
            continue
        stderr = values.get(f"{metric}_stderr,{of_filter}")
        error = float(stderr) if isinstance(stderr, int | float | np.number) else np.nan
        yield Metric(task, name, float(value), error, int(values["sample_len"]))


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep back what lm-evaluation-harness, and what it loads data with, says and draws at the terminal."""
    loggers = [logging.getLogger("lm_eval"), logging.getLogger("datasets")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
