"""What every part of a job has, so that its run id can say which code made the numbers."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any, ClassVar, Protocol


class Part(Protocol):
    """A source, method, window set, window rule or runner: a dataclass whose fields are its configuration.

    `version` is raised when the part's numbers change for the same fields: its records are then measured anew.
    """

    version: ClassVar[int]


def fields_of(part: Any) -> dict[str, Any]:
    """Return the fields of a part, and of a method that it holds, with class and version: a user may set any name."""
    return class_of(part) | asdict(part) | {n: fields_of(v) for n, v in vars(part).items() if is_dataclass(v)}


def class_of(part: Part) -> dict[str, Any]:
    """Return the class and the version of a part."""
    return {"class": type(part).__name__, "version": part.version}
