"""Question answering from a file of the user's: JSON lines, see docs/tasks.md."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

from experiments.errors import UserError
from experiments.lazy import np
from experiments.ranges import check_range, written_out
from experiments.tasks import Drawn, Encode, Question
from experiments.tasks.haystack import spread

FIELDS = ("context", "question", "answers")


@dataclass
class QuestionAnswering:
    """Ask question number i of a file about its paragraph, which stands in the text at `depth`; of sample number i.

    Attributes
    ----------
    depth
        Share of the text before the paragraph, 0 its start and 1 its end.
    """

    name: str
    file: str
    depth: float = 0.5
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self.file = written_out(f"runner.tasks.{self.name}.file", self.file)
        check_range(f"runner.tasks.{self.name}.depth", self.depth, least=0, most=1)

    def hashes(self) -> dict[str, str]:
        """Return the hash of the file in place of its name."""
        return {"file": hashlib.sha256(_bytes(self.file)).hexdigest()}

    def check_samples(self, samples: int) -> None:
        """Raise UserError if the file is unreadable, or has fewer questions than there are samples."""
        count = len(read_questions(self.file))
        if count < samples:
            raise UserError(
                f"{self.file} has {count} questions, and source.samples={samples}: give at most as many samples"
            )

    def draw(self, sample: int, rng: np.random.Generator) -> Drawn:
        """Return the paragraph and the question of a sample."""
        lines = read_questions(self.file)
        line = lines[sample % len(lines)]
        text = f"\nAnswer from the text above. Question: {line['question']}\nAnswer:"
        question = Question(text, [[f" {answer}"] for answer in line["answers"]])
        return Drawn([question], partial(_context, f"\n{line['context']}\n", self.depth))


def _context(paragraph: str, depth: float, filler: list[int], room: int, encode: Encode) -> list[int]:
    return spread(filler, [encode(paragraph)], [depth], room)


def _bytes(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; give a file of JSON lines, see docs/tasks.md") from error


def read_questions(file: str) -> list[dict[str, Any]]:
    """Return the lines of a file, each with `context`, `question` and a list of `answers`.

    Raises
    ------
    UserError
        By the line's number, if one of them is missing or empty, or the file is no JSON lines in UTF-8.
    """
    return _questions(file, _bytes(file))


@lru_cache(maxsize=4)  # by its content: a file may change between the jobs of a sweep
def _questions(file: str, written: bytes) -> list[dict[str, Any]]:
    lines = []
    try:
        content = written.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from error
    for number, text in enumerate(content.split("\n"), 1):  # other ends of lines may stand within a JSON string
        if text.strip():
            lines.append(_checked(f"{file}, line {number}", text))
    if not lines:
        raise UserError(f"{file} has no questions: give JSON lines, see docs/tasks.md")
    return lines


def _checked(where: str, text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
        json.dumps(line, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where} has half a character (a lone surrogate), which is no text") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is no JSON: {error}") from error
    if not isinstance(line, dict):
        raise UserError(f"{where}: give an object with {', '.join(FIELDS)}")
    for name in FIELDS:
        if not line.get(name):
            raise UserError(f"{where}: {name} is missing or empty; give {', '.join(FIELDS)}")
    answers = [line["answers"]] if isinstance(line["answers"], str) else line["answers"]
    texts = [line["context"], line["question"], *(answers if isinstance(answers, list) else [None])]
    if not all(isinstance(part, str) and part.strip() for part in texts):
        raise UserError(f"{where}: context and question are texts, answers one or a list of them")
    return {**line, "answers": answers}
