"""The command that runs a model within its budget."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from analysis import settings
from experiments.runners.language import Language
from experiments.sources.checkpoint import Checkpoint

OWN_OF_A_RUN = ("name", "lengths", "rows", "samples", "layers", "heads", "variants")  # fields of a source


def next_command(outputs: Path, content: dict[str, Any], path: Path) -> str:
    """Return the command that runs the model within the budget, on text that it was not fitted to."""
    paths = (outputs / "runs" / run / "config.yaml" for run in content["runs"])
    config = min((yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths), key=lambda one: one["seed"])
    source, seed = config["source"], config["seed"]
    if source.get("layers") or source.get("heads"):
        return "measure it with all layers and heads first (source.layers=null source.heads=null)"
    group = source["name"] if (settings.CONF / "source" / f"{source['name']}.yaml").exists() else "checkpoint"
    defaults = {field.name: field.default for field in dataclasses.fields(Checkpoint)}
    for name in ("checkpoint", group):
        defaults |= yaml.safe_load((settings.CONF / "source" / f"{name}.yaml").read_text(encoding="utf-8"))
    overrides = {
        f"source.{key}": value
        for key, value in source.items()
        if key not in OWN_OF_A_RUN and value is not None and value != defaults.get(key)
    }
    length = content["held_out"].get("length", content["supported_length"])
    samples, words = source["samples"], []
    if "selector" in content:  # keys shared out are judged as they were measured, on the text after that
        words = [f"selector={content['selector']}"]
        overrides |= {"runner.phase": "decode", "runner.decode_tokens": content["serves"]["rows"]}
        seed += 1
    else:  # laws are, on the samples that they were not fitted to, which are the first
        samples = len(content["held_out"]["samples"])
        overrides["runner.phase"] = "decode"  # a prefill reads thousands of rows, which takes long
        if length <= Language.decode_tokens:
            overrides["runner.decode_tokens"] = length // 2
    overrides |= {"source.lengths": [length], "source.samples": samples}
    overrides |= {"seed": seed} if seed else {}
    overrides |= {"windows.file": str(path)}
    words += [f"{key}={_value(value)}" for key, value in overrides.items()]
    return shlex.join(["python", "run.py", f"source={group}", "runner=language", "windows=budget", *words])


def _value(value: Any) -> str:
    """Write a value as Hydra reads it: paths and plain words as they are, other texts in quotes."""
    path, word = r"[\w.~/:-]*[/:][\w.~/:-]*", r"(?!(?i:null|true|false|inf|nan)$)[A-Za-z_]\w*"
    if isinstance(value, str) and not re.fullmatch(f"{path}|{word}", value):
        # a backslash counts only before a quote
        return "'" + re.sub(r"(\\+)$", r"\1\1", re.sub(r"(\\*)'", r"\1\1\\'", value)) + "'"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
