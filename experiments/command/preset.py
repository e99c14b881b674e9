"""A preset's design with another source: its lengths, rows, samples and variants stay, whichever model is measured.

A preset names its sources by options that hold their design too (conf/preset_sources.yaml). Another source= on the
command line takes the place of such an option, and the design would go with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from experiments.options import CONF

# What a design is, of the fields of a source; layers and heads are those of one model.
ROWS = ("lengths", "rows", "samples")
TEXT = ("variants", "runs", "stride", "keep_layers", "random_weights")  # of sources that read text alone


def with_design(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return a command's arguments with its preset's design, and which of them are new.

    New are values of `source.` that the preset's own source of the same kind has, where `experiment=` names a preset
    and `source=` another source than one of its own. What the arguments set themselves is left as it is, and what the
    option itself sets for its model, such as the lengths of an encoder.
    """
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    preset, chosen = given.get("experiment"), given.get("source")
    if not preset or not chosen or "," in preset or not _path("experiment", preset).exists():
        return list(arguments), []
    options = chosen.split(",")
    if any(option in _presets() or not _path("source", option).exists() for option in options):
        return list(arguments), []
    kinds = {_kind(option) for option in options}
    designs = [_design(option) for option in _sources(preset) if option in _presets() and _kind(option) in kinds]
    if not designs or len(kinds) > 1:
        return list(arguments), []
    names = ROWS if kinds == {"gaussian"} else ROWS + TEXT
    new = [
        f"source.{name}={str(designs[0][name]).replace(' ', '').replace(chr(39), '')}"
        for name in names
        if name in designs[0] and f"source.{name}" not in given and not any(name in _own(option) for option in options)
    ]
    return [*arguments, *new], new


def _path(group: str, option: str) -> Path:
    return CONF / group / f"{option}.yaml"


@cache
def _presets() -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = yaml.safe_load((CONF / "preset_sources.yaml").read_text(encoding="utf-8"))
    return content


@cache
def _read(group: str, option: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(_path(group, option).read_text(encoding="utf-8"))
    return content


def _sources(preset: str) -> Iterator[str]:
    """Yield the sources that a preset names: those that it sweeps over, its own, and those of what it is based on."""
    content = _read("experiment", preset)
    swept = content.get("hydra", {}).get("sweeper", {}).get("params", {}).get("source", "")
    yield from filter(None, str(swept).split(","))
    for line in content.get("defaults", []):
        if isinstance(line, dict) and "override /source" in line:
            yield line["override /source"]
        elif isinstance(line, str) and line != "_self_":
            yield from _sources(line)


def _design(option: str) -> dict[str, Any]:
    """Return the values of a source of conf/preset_sources.yaml, with those that it has from others there."""
    if option not in _presets():
        return {}
    values = _presets()[option]
    return _design(values["of"]) | values


def _own(option: str) -> dict[str, Any]:
    """Return the values that an option of conf/source sets beside those of the one that it is based on."""
    content = _read("source", option)
    return {} if str(content["defaults"][0]).startswith("/schema") else content


def _kind(option: str) -> str:
    """Return the class of source that an option is of, by the schema at the end of its defaults."""
    if option in _presets():
        return _kind(_presets()[option]["of"])
    first = str(_read("source", option)["defaults"][0])
    return first.removeprefix("/schema/source/").split("@")[0] if first.startswith("/schema") else _kind(first)
