"""Windows alpha n^C with an alpha and a C of each head's own, as a budget file has them (python -m analysis.budget)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.errors import UserError
from experiments.lazy import np

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
LARGEST = 2**26  # bytes of a budget file; the largest models, of 16,000 heads, need half of it
# What decides the windows of a line of a budget file; the rest says where it comes from and how sure it is.
DECIDING = ("layer", "head", "alpha", "C", "sees")


@dataclass(frozen=True)
class Law:
    """Windows alpha n^C of one head, n the keys that its row sees: at most `sees`, where its layer stops there."""

    alpha: float
    c: float
    sees: float = math.inf

    def at(self, n_N: np.ndarray) -> np.ndarray:
        """Return alpha n^C for rows of context length n [N]."""
        return self.alpha * np.minimum(n_N, self.sees) ** self.c


class HeadLaws:
    """A rule that keeps factor x alpha n^C keys, alpha and C those of the row's head."""

    version: ClassVar[int] = 1

    def __init__(
        self,
        laws: Mapping[tuple[int, int], Law],
        factors: list[float],
        eta: float,
        rule: str = "budget",
    ) -> None:
        self._laws = laws
        self._factors = factors
        self._eta = eta
        self.rule = rule

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (dropped mass that the laws were fitted for, factor) per window."""
        return [(self._eta, factor) for factor in self._factors]

    def of_head(self, layer: int, head: int) -> OneLaw:
        """Return the rule of one head."""
        if (layer, head) not in self._laws:
            raise UserError(f"the budget file has no law of layer {layer}, head {head}: make it from all heads")
        return OneLaw(self._laws[layer, head], self.rule)

    def sizes(self, n_R: Tensor, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Refuse: which head a row is of must be known."""
        raise UserError("windows of a budget file belong to heads: use them with a model")

    def mean_sizes(self, n_N: np.ndarray) -> np.ndarray:
        """Return, per head and context length n, alpha n^C of the keys that the head sees of it [heads, N]."""
        return np.stack([law.at(n_N) for law in self._laws.values()])

    def visible(self, n_N: np.ndarray) -> np.ndarray:
        """Return, per head and context length n, the keys that the head sees of it, the most it can keep [heads, N]."""
        return np.stack([np.minimum(n_N, law.sees) for law in self._laws.values()])


class OneLaw:
    """Windows factor x alpha n^C."""

    version: ClassVar[int] = HeadLaws.version

    def __init__(self, law: Law, rule: str) -> None:
        self._law = law
        self.rule = rule

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return none: the set that it came from has them."""
        return []

    def sizes(self, n_R: Tensor, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return factor x alpha n^C; n is what the row sees, so that no `sees` is needed here."""
        return scale_W * self._law.alpha * n_R.double()[:, None] ** self._law.c


def read_budget(file: str) -> dict[str, Any]:
    """Return the content of a budget file.

    Raises
    ------
    UserError
        If the file is missing, is no budget file, or has a number that no budget can have.
    """
    path = Path(file).expanduser()
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "not a regular file")
        if path.stat().st_size > LARGEST:
            raise OSError(0, f"larger than {LARGEST >> 20} MB")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"windows.file={file}: {error.strerror}; write it with python -m analysis.budget --model ..."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"windows.file={file}: no JSON ({error}); write it with python -m analysis.budget") from error
    try:
        _check(content)
    except KeyError as error:
        raise UserError(
            f"windows.file={file}: no budget file (it has no {error}); write it with python -m analysis.budget"
        ) from error
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(
            f"windows.file={file}: no budget file ({error}); write it with python -m analysis.budget"
        ) from error
    return dict(content)


def _check(content: Any) -> None:
    """Raise ValueError, or what a wrong type raises, unless the content is that of a budget file."""
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']}, not {FORMAT}")
    _check_finite(content)
    places = set()
    for line in content["heads"]:
        where = f"layer {line['layer']}, head {line['head']}"
        if not all(isinstance(line[name], int) and line[name] >= 0 for name in ("layer", "head")):
            raise ValueError(f"{where}: give whole numbers from 0")
        _check_law(line, where)
        places.add((line["layer"], line["head"]))
    if not places or len(places) < len(content["heads"]):
        raise ValueError("give each head one law")
    _check_law(content["pooled"], "the typical head")
    if not content["supported_length"] >= 1:
        raise ValueError(f"supported_length is {content['supported_length']}: give a number of keys from 1")
    if not 0 < content["tolerance"]["dropped_mass"] < 1:
        raise ValueError(f"dropped_mass is {content['tolerance']['dropped_mass']}: give a share between 0 and 1")
    if not all(isinstance(content[name], str) for name in ("model", "label")):
        raise ValueError("model and label are to be texts")


def _check_law(line: Mapping[str, Any], where: str) -> None:
    if not line["alpha"] > 0:
        raise ValueError(f"{where}: alpha is {line['alpha']}, give a number > 0")
    if not 0 <= line["C"] <= 1:
        raise ValueError(f"{where}: C is {line['C']}, give a number from 0 to 1")
    if not line.get("sees", math.inf) >= 1:
        raise ValueError(f"{where}: sees is {line['sees']}, give a number of keys from 1")


def _check_finite(content: Any, name: str = "a number") -> None:
    if isinstance(content, dict):
        for key, value in content.items():
            _check_finite(value, key)
    elif isinstance(content, list):
        for value in content:
            _check_finite(value, name)
    elif isinstance(content, int | float) and not math.isfinite(float(content)):
        raise ValueError(f"{name} is {content}")


def head_laws(content: Mapping[str, Any], factors: list[float]) -> HeadLaws:
    """Return the rule of a budget file's heads, at each factor on all their windows."""
    laws = {(line["layer"], line["head"]): _law(line) for line in content["heads"]}
    return HeadLaws(laws, factors, content["tolerance"]["dropped_mass"])


def head_sizes(content: Mapping[str, Any], factors: list[float], n_N: np.ndarray) -> HeadLaws:
    """Return the rule by which each head keeps the mean of its law over `n_N` at every length.

    It is the control of `head_laws`: heads differ as much, and no window grows.
    """
    laws = {
        (line["layer"], line["head"]): Law(float(np.mean(law.at(n_N))), 0.0, law.sees)
        for line in content["heads"]
        for law in [_law(line)]
    }
    return HeadLaws(laws, factors, content["tolerance"]["dropped_mass"], "head_fixed")


def _law(line: Mapping[str, Any]) -> Law:
    return Law(line["alpha"], line["C"], line.get("sees", math.inf))


def laws_hash(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what decides the windows: not where the laws come from, nor how sure they are."""

    def deciding(line: Mapping[str, Any]) -> dict[str, Any]:
        return {name: line[name] for name in DECIDING if name in line}

    laws = {
        "model": content["model"],
        "dropped_mass": content["tolerance"]["dropped_mass"],
        "pooled": deciding(content["pooled"]),
        "heads": [deciding(line) for line in content["heads"]],
    }
    return hashlib.sha256(json.dumps(laws, sort_keys=True).encode()).hexdigest()


def check_model(content: Mapping[str, Any], file: str, source: Any) -> None:
    """Raise UserError unless the budget was made for the model that `source` reads."""
    if (model_hash := source.hashes().get("model")) != content["model"]:
        raise UserError(
            f"windows.file={file}: made for {content['label']} ({content['model'][:12]}), but source={source.name} is "
            f"{source.label} ({str(model_hash)[:12]}); make one for it with python -m analysis.budget"
        )
