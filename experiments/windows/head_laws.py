"""Windows alpha n^C with an alpha and a C of each head's own, as a budget file has them (python -m analysis.budget)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from experiments.errors import UserError
from experiments.measures import RowFacts
from experiments.windows.rules.power import Power

FORMAT = 1
# What a budget file says besides its laws; the digests of its records change when one is repaired.
PROVENANCE = (
    *("label", "text", "runs", "cost", "factor", "law", "confidence", "fitted", "held_out", "promise"),
    *("supported_length", "extrapolated"),
)


class HeadLaws:
    """A rule that keeps factor x alpha n^C keys, alpha and C those of the row's head."""

    def __init__(
        self,
        laws: Mapping[tuple[int, int], tuple[float, float]],
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
        return OneLaw(*self._laws[layer, head], self.rule)

    def sizes(self, exact: RowFacts, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Refuse: which head a row is of must be known."""
        raise UserError("windows of a budget file belong to heads: use them with a model")

    def mean_sizes(self, n_N: np.ndarray) -> np.ndarray:
        """Return, per head and number of visible keys n, alpha n^C [heads, N]."""
        return np.stack([alpha * n_N**c for alpha, c in self._laws.values()])


class OneLaw:
    """Windows factor x alpha n^C."""

    def __init__(self, alpha: float, c: float, rule: str) -> None:
        self._alpha = alpha
        self._c = c
        self.rule = rule

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return none: the set that it came from has them."""
        return []

    def sizes(self, exact: RowFacts, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return factor x alpha n^C."""
        return scale_W * self._alpha * exact.n_R.double()[:, None] ** self._c


def read_budget(file: str) -> dict[str, Any]:
    """Return the content of a budget file.

    Raises
    ------
    UserError
        If the file is missing or is no budget file.
    """
    try:
        content = json.loads(Path(file).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"windows.file={file}: {error.strerror}; write it with python -m analysis.budget --model ..."
        ) from error
    except ValueError as error:
        raise UserError(f"windows.file={file}: no JSON ({error}); write it with python -m analysis.budget") from error
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, not {FORMAT}")
        for line in content["heads"]:
            int(line["layer"]), int(line["head"]), float(line["alpha"]), float(line["C"])
        float(content["supported_length"]), float(content["tolerance"]["dropped_mass"]), str(content["model"])
        Power([content["pooled"]["C"]], [content["pooled"]["alpha"]])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"windows.file={file}: no budget file ({error}); write it with python -m analysis.budget"
        ) from error
    return dict(content)


def head_laws(content: Mapping[str, Any], factors: list[float]) -> HeadLaws:
    """Return the rule of a budget file's heads, at each factor on all their windows."""
    laws = {(line["layer"], line["head"]): (line["alpha"], line["C"]) for line in content["heads"]}
    return HeadLaws(laws, factors, content["tolerance"]["dropped_mass"])


def head_sizes(content: Mapping[str, Any], factors: list[float], n_N: np.ndarray) -> HeadLaws:
    """Return the rule by which each head keeps the mean of its law over `n_N` at every length.

    It is the control of `head_laws`: heads differ as much, and no window grows.
    """
    laws = {
        (line["layer"], line["head"]): (float(np.mean(line["alpha"] * n_N ** line["C"])), 0.0)
        for line in content["heads"]
    }
    return HeadLaws(laws, factors, content["tolerance"]["dropped_mass"], "head_fixed")


def laws_hash(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what decides the windows: not where the laws come from, nor how sure they are."""

    def deciding(line: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in line.items() if not name.endswith(("keys", "_low", "_high"))}

    laws = {name: value for name, value in content.items() if name not in PROVENANCE}
    laws |= {"pooled": deciding(content["pooled"]), "heads": [deciding(line) for line in content["heads"]]}
    return hashlib.sha256(json.dumps(laws, sort_keys=True).encode()).hexdigest()


def check_model(content: Mapping[str, Any], file: str, source: Any) -> None:
    """Raise UserError unless the budget was made for the model that `source` reads."""
    if (found := source.hashes().get("model")) != content["model"]:
        raise UserError(
            f"windows.file={file}: made for {content['label']} ({content['model'][:12]}), but source={source.name} is "
            f"{source.label} ({str(found)[:12]}); make one for it with python -m analysis.budget"
        )
