"""What every part of a job has, so that its run id can say which code made the numbers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar, Protocol


class Part(Protocol):
    """A source, method, window set, window rule or runner: a dataclass whose fields are its configuration.

    `version` is raised when the part's numbers change for the same fields: its records are then measured anew.
    """

    version: ClassVar[int]


def fields_of(part: Any) -> dict[str, Any]:
    """Return the fields of a part with its class and version, for its name may be set by a user."""
    return class_of(part) | asdict(part)


def class_of(part: Part) -> dict[str, Any]:
    """Return the class and the version of a part."""
    return {"class": type(part).__name__, "version": part.version}
