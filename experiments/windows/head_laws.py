"""Windows of each head's own, as a budget file has them (python -m analysis.budget).

Each head has a law alpha n^C, or numbers of keys at some lengths; docs/budgets.schema.json says what a file holds.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.errors import UserError
from experiments.lazy import np, torch

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2  # 1 had laws alone
READABLE = (1, 2)
MOST = 1e15  # what a number of a file may be
LARGEST = 2**26  # bytes of a budget file; the largest models, of 16,000 heads, need half of it
# What decides the windows of a line of a budget file; the rest says where it comes from and how sure it is.
DECIDING = ("layer", "head", "alpha", "C", "sees")
BUDGET = "budget"  # the rule's name in a record, `budget_gains` where keys are shared out by gains
HEAD_FIXED = "head_fixed"  # each head's mean over all lengths, at every length
SHARED = "shared"  # of a file that does not say by what
AT_LENGTHS = "k at each length, linear between"  # the `law` of a file whose heads have numbers of keys
MAKE_ONE = "make one for it with python -m analysis.budget --model NAME"
WRITE_IT = "write it with python -m analysis.budget --model NAME"


@dataclass(frozen=True)
class Law:
    """Windows alpha n^C of one head, n the keys that its row sees: at most `sees`, where its layer stops there."""

    alpha: float
    c: float
    sees: float = math.inf

    def at(self, n_N: np.ndarray) -> np.ndarray:
        """Return alpha n^C for rows of context length n [N]."""
        return self.alpha * np.minimum(n_N, self.sees) ** self.c

    def sizes(self, n_R: Tensor) -> Tensor:
        """Return alpha n^C; n is what the row sees, so that no `sees` is needed here."""
        return self.alpha * n_R.double() ** self.c


@dataclass(frozen=True)
class AtLengths:
    """Windows of one head that are given at some context lengths: linear between them, constant beyond.

    They go by the whole context, also where a row sees only `sees` keys of it: keys are shared out among the layers at
    each length, so that a layer with a sliding window may get other keys in a longer context.
    """

    lengths: tuple[float, ...]
    keys: tuple[float, ...]
    sees: float = math.inf

    def at(self, n_N: np.ndarray) -> np.ndarray:
        """Return the windows of rows of context length n [N]."""
        return np.interp(n_N, self.lengths, self.keys)

    def sizes(self, n_R: Tensor) -> Tensor:
        """Return the windows of rows that end contexts of n tokens [R]."""
        return torch.from_numpy(self.at(n_R.double().cpu().numpy())).to(n_R.device)


OfHead = Law | AtLengths


class HeadLaws:
    """A rule that keeps factor x what the law of the row's head says."""

    version: ClassVar[int] = 1

    def __init__(
        self,
        laws: Mapping[tuple[int, int], OfHead],
        factors: list[float],
        parameter: float,
        rule: str = BUDGET,
    ) -> None:
        self._laws = laws
        self._factors = factors
        self._parameter = parameter
        self.rule = rule

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (dropped mass that the laws were fitted for, or keys shared out; factor) per window."""
        return [(self._parameter, factor) for factor in self._factors]

    def of_head(self, layer: int, head: int) -> OneLaw:
        """Return the rule of one head."""
        if (layer, head) not in self._laws:
            raise UserError(f"the budget file has no law of layer {layer}, head {head}: make it from all heads")
        law = self._laws[layer, head]
        return (OneLaw if isinstance(law, Law) else OneTable)(law, self.rule)

    def sizes(self, n_R: Tensor, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Refuse: which head a row is of must be known."""
        raise UserError("windows of a budget file belong to heads: use them with a model")

    def mean_sizes(self, n_N: np.ndarray) -> np.ndarray:
        """Return, per head and context length n, the window of the keys that the head sees of it [heads, N]."""
        return np.stack([law.at(n_N) for law in self._laws.values()])

    def visible(self, n_N: np.ndarray) -> np.ndarray:
        """Return, per head and context length n, the keys that the head sees of it, the most it can keep [heads, N]."""
        return np.stack([np.minimum(n_N, law.sees) for law in self._laws.values()])


class OneLaw:
    """Windows factor x the law of one head."""

    version: ClassVar[int] = HeadLaws.version

    def __init__(self, law: OfHead, rule: str) -> None:
        self._law = law
        self.rule = rule

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return none: the set that it came from has them."""
        return []

    def sizes(self, n_R: Tensor, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return factor x the window of rows that see n keys."""
        return scale_W * self._law.sizes(n_R)[:, None]


class OneTable(OneLaw):
    """Windows factor x the keys of one head at the length of the context, whatever part of it a row sees."""

    by_context: ClassVar[bool] = True


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
        raise UserError(f"windows.file={file}: {error.strerror}; {WRITE_IT}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"windows.file={file}: no JSON ({error}); {WRITE_IT}") from error
    try:
        _check(content)
    except KeyError as error:
        raise UserError(f"windows.file={file}: no budget file (it has no {error}); {WRITE_IT}") from error
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"windows.file={file}: no budget file ({error}); {WRITE_IT}") from error
    return dict(content)


def _check(content: Any) -> None:
    """Raise ValueError, or what a wrong type raises, unless the content is that of a budget file."""
    if content["format"] not in READABLE:
        raise ValueError(f"format {content['format']}, not {' or '.join(map(str, READABLE))}")
    _check_finite(content)
    places = set()
    for line in content["heads"]:
        where = f"layer {line['layer']}, head {line['head']}"
        if not all(isinstance(line[name], int) and line[name] >= 0 for name in ("layer", "head")):
            raise ValueError(f"{where}: give whole numbers from 0")
        if "alpha" in line or content["format"] == 1:
            _check_law(line, where)
        else:
            _check_keys(line, where)
        places.add((line["layer"], line["head"]))
    if not places or len(places) < len(content["heads"]):
        raise ValueError("give each head one law")
    _check_law(content["pooled"], "the typical head")
    if not content["supported_length"] >= 1:
        raise ValueError(f"supported_length is {content['supported_length']}: give a number of keys from 1")
    if content["tolerance"] is None:
        if not content["cost"] >= 1:
            raise ValueError(f"cost is {content['cost']}: give a number of keys from 1")
    elif not 0 < content["tolerance"]["dropped_mass"] < 1:
        raise ValueError(f"dropped_mass is {content['tolerance']['dropped_mass']}: give a share between 0 and 1")
    _check_grouping(content)
    if not all(isinstance(text, str) for text in (content["model"], content["label"], content.get("by", ""))):
        raise ValueError("model, label and by are to be texts")


def _check_law(line: Mapping[str, Any], where: str) -> None:
    if not line["alpha"] > 0:
        raise ValueError(f"{where}: alpha is {line['alpha']}, give a number > 0")
    if not 0 <= line["C"] <= 1:
        raise ValueError(f"{where}: C is {line['C']}, give a number from 0 to 1")
    if not line.get("sees", math.inf) >= 1:
        raise ValueError(f"{where}: sees is {line['sees']}, give a number of keys from 1")


def _check_keys(line: Mapping[str, Any], where: str) -> None:
    lengths, keys = ([point[name] for point in line["keys"]] for name in ("length", "k"))
    if (
        not lengths
        or sorted(set(lengths)) != lengths
        or not all(0 < k <= n for k, n in zip(keys, lengths, strict=True))
    ):
        raise ValueError(f"{where}: give a law, or keys at rising lengths, each from 1 to the length")
    if not line.get("sees", math.inf) >= 1:
        raise ValueError(f"{where}: sees is {line['sees']}, give a number of keys from 1")


def _check_grouping(content: Mapping[str, Any]) -> None:
    grouping = content.get("heads_per_kv_head", [])
    if not all(isinstance(shared, int) and shared >= 1 for shared in grouping):
        raise ValueError("heads_per_kv_head has what is no number of heads")


def _check_finite(content: Any, name: str = "a number") -> None:
    if isinstance(content, dict):
        for key, value in content.items():
            _check_finite(value, key)
    elif isinstance(content, list):
        for value in content:
            _check_finite(value, name)
    elif isinstance(content, int | float) and not abs(content) < MOST:  # nan too
        raise ValueError(f"{name} is {str(content)[:30]}")


def head_laws(content: Mapping[str, Any], factors: list[float]) -> HeadLaws:
    """Return the rule of a budget file's heads, at each factor on all their windows."""
    laws = {(line["layer"], line["head"]): _law(line) for line in content["heads"]}
    return HeadLaws(laws, factors, _parameter(content), _rule(content))


def head_sizes(content: Mapping[str, Any], factors: list[float], n_N: np.ndarray) -> HeadLaws:
    """Return the rule by which each head keeps the mean of its law over `n_N` at every length.

    It is the control of `head_laws`: heads differ as much, and no window grows.
    """
    laws = {
        (line["layer"], line["head"]): Law(float(np.mean(law.at(n_N))), 0.0, law.sees)
        for line in content["heads"]
        for law in [_law(line)]
    }
    return HeadLaws(laws, factors, _parameter(content), HEAD_FIXED)


def keys_at(line: Mapping[str, Any], n_N: np.ndarray) -> np.ndarray:
    """Return the keys that a line of a budget file gives its head at context lengths n, at most what it sees [N]."""
    law = _law(line)
    return np.minimum(law.at(n_N), np.minimum(n_N, law.sees))


def _law(line: Mapping[str, Any]) -> OfHead:
    sees = line.get("sees", math.inf)
    if "alpha" in line:
        return Law(line["alpha"], line["C"], sees)
    lengths, keys = (tuple(float(point[name]) for point in line["keys"]) for name in ("length", "k"))
    return AtLengths(lengths, keys, sees)


def _rule(content: Mapping[str, Any]) -> str:
    """Return what lines within a budget are named by: of keys shared out, also the way they are."""
    return BUDGET if content["tolerance"] is not None else f"{BUDGET}_{content.get('by', SHARED)}"


def _parameter(content: Mapping[str, Any]) -> float:
    """Return what the windows of a file are known by: its dropped mass, or the keys that it shares out."""
    return float(content["cost"] if content["tolerance"] is None else content["tolerance"]["dropped_mass"])


def laws_hash(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what decides the windows: not where the laws come from, nor how sure they are."""

    def deciding(line: Mapping[str, Any]) -> dict[str, Any]:
        chosen = {name: line[name] for name in DECIDING if name in line}
        return (
            chosen if "alpha" in line else chosen | {"keys": [[point["length"], point["k"]] for point in line["keys"]]}
        )

    laws = {
        "model": content["model"],
        "dropped_mass": _parameter(content),
        "pooled": deciding(content["pooled"]),
        "heads": [deciding(line) for line in content["heads"]],
    }
    if (rule := _rule(content)) != BUDGET:
        laws["rule"] = rule
    if any("alpha" not in line and "sees" in line for line in content["heads"]):
        laws["of"] = "the whole context"  # once keys at lengths were those of a context as long as what a row sees
    return hashlib.sha256(json.dumps(laws, sort_keys=True).encode()).hexdigest()


def check_grouping(content: Mapping[str, Any], file: str, heads_per_kv_head: list[int]) -> None:
    """Raise UserError unless a model's query heads share KV heads, layer by layer, as in the model of a budget."""
    made_for = content.get("heads_per_kv_head", heads_per_kv_head)
    if made_for == heads_per_kv_head:
        return
    if len(made_for) != len(heads_per_kv_head):
        raise UserError(f"{file}: made for {len(made_for)} layers, but the model has {len(heads_per_kv_head)}")
    layer = next(i for i, (one, other) in enumerate(zip(made_for, heads_per_kv_head, strict=True)) if one != other)
    raise UserError(
        f"{file}: made for {made_for[layer]} query heads per KV head in layer {layer}, but the model has "
        f"{heads_per_kv_head[layer]}; {MAKE_ONE}"
    )


def check_model(content: Mapping[str, Any], file: str, source: Any) -> None:
    """Raise UserError unless the budget was made for the model that `source` reads, and its grouping of heads."""
    if (model_hash := source.hashes().get("model")) != content["model"]:
        raise UserError(
            f"windows.file={file}: made for {content['label']} ({content['model'][:12]}), but source={source.name} is "
            f"{source.label} ({str(model_hash)[:12]}); {MAKE_ONE}"
        )
    if "heads_per_kv_head" in content:
        check_grouping(content, f"windows.file={file}", source.heads_per_kv_head())
