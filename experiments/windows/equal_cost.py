"""Windows of different shapes that keep the same number of keys on average over a mix of context lengths.

Shape letters besides those of `experiments.rows`: K kinds of heads, by what they see.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from experiments.errors import UserError
from experiments.lazy import np
from experiments.ranges import MOST_KEYS, check_range
from experiments.windows import Rule, Visible, Windows, every_key
from experiments.windows.head_laws import HeadLaws, check_model, head_laws, head_sizes, laws_hash, read_budget
from experiments.windows.rules.fixed import Fixed
from experiments.windows.rules.linear import Linear
from experiments.windows.rules.log import Log
from experiments.windows.rules.power import Power
from experiments.windows.rules.threshold import Threshold
from experiments.windows.rules.top_p import TopP

MOST_LOG_POWER = 100  # beyond it no factor that a float holds gives every budget

RULES = (TopP, Threshold, Fixed, Log, Power, Linear, HeadLaws)


@dataclass
class EqualCost:
    """Fixed, logarithmic, power and linear windows at each budget, and two rules that look at the row beside them.

    A budget is the mean number of keys that a row keeps, over contexts of 1, 2, ..., N keys and all heads: what a
    causal model reads of N tokens. A layer that does not see the whole context keeps at most what it sees. Each shape's
    factor is solved for, so that all rules cost the same. What a rule that looks at the row costs is known only
    afterwards; its curve of loss against cost is then read off at the same cost.

    Attributes
    ----------
    budgets
        Keys per row on average.
    exponents
        C of alpha n^C; fixed windows stand for C = 0 and linear ones for C = 1.
    log_powers
        b of a (ln n)^b.
    top_p, thresholds
        Tolerances eta and thresholds eps.
    file
        A budget file: adds alpha n^C with the C of its typical head, each head's own alpha n^C, and as its control a
        fixed window of each head's own; all are scaled by one factor to the budget. null for none.
    """

    budgets: list[int]
    exponents: list[float]
    log_powers: list[float] = field(default_factory=list)
    top_p: list[float] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    file: str | None = None
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("windows.budgets", self.budgets, least=1, most=MOST_KEYS)
        check_range("windows.exponents", self.exponents, above=0, below=1, symbol="C")
        check_range("windows.log_powers", self.log_powers, above=0, most=MOST_LOG_POWER, symbol="b")
        check_range("windows.top_p", self.top_p, above=0, below=1, symbol="eta")
        check_range("windows.thresholds", self.thresholds, above=0, below=1, symbol="eps")

    def identity(self) -> dict[str, object]:
        """Return every field, in place of the budget file the hash of its laws, and the versions of the rules."""
        laws = None if self.file is None else laws_hash(read_budget(self.file))
        return asdict(self) | {"file": laws, "rules": {rule.__name__: rule.version for rule in RULES}}

    def check_source(self, source: Any) -> None:
        """Raise UserError if the budget file is of another model."""
        if self.file is not None:
            check_model(read_budget(self.file), self.file, source)

    def at(self, length: int, visible: Visible = every_key) -> Windows:
        """Return the windows for rows that see up to `length` keys, of which some layers may see fewer.

        Raises
        ------
        UserError
            If a budget is not below what dense rows read.
        """
        n_N = np.arange(1, length + 1, dtype=float)
        n_KN, heads_K = visible(n_N)
        dense = float(np.average(n_KN.mean(1), weights=heads_K))
        if bad := [budget for budget in self.budgets if not 1 <= budget < dense]:
            raise UserError(
                f"windows.budgets has {bad[0]}: give numbers of keys from 1 to {dense:.0f}, what dense rows of "
                f"{length} tokens read on average"
            )
        content = None if self.file is None else read_budget(self.file)
        # a typical C of 0 or 1 is the fixed or the linear window, which are there
        typical = [] if content is None or content["pooled"]["C"] in (0, 1) else [content["pooled"]["C"]]
        exponents = [*self.exponents, *(c for c in typical if c not in self.exponents)]
        rules: list[Rule] = [TopP(self.top_p), Threshold(self.thresholds)]
        for budget in self.budgets:
            rules.append(Fixed([round(_factor(np.ones_like(n_KN), n_KN, heads_K, budget))]))
            rules += [Log([b], [_factor(np.log(n_KN) ** b, n_KN, heads_K, budget)]) for b in self.log_powers]
            rules += [Power([c], [_factor(n_KN**c, n_KN, heads_K, budget)]) for c in exponents]
            rules.append(Linear([_factor(n_KN, n_KN, heads_K, budget)]))
            if content is not None:
                grown, level = head_laws(content, []), head_sizes(content, [], n_N)
                n_HN = grown.visible(n_N)
                one_H = np.ones(len(n_HN))
                rules.append(head_laws(content, [_factor(grown.mean_sizes(n_N), n_HN, one_H, budget)]))
                rules.append(head_sizes(content, [_factor(level.mean_sizes(n_N), n_HN, one_H, budget)], n_N))
        return Windows(rules, [rule.coordinates(length) for rule in rules])


def _factor(shape_KN: np.ndarray, n_KN: np.ndarray, heads_K: np.ndarray, budget: float) -> float:
    """Return the factor f for which f shape(n), held within [1, n], is `budget` on average over rows and heads."""
    from scipy.optimize import brentq

    def excess(log_factor: float) -> float:
        kept_K = np.clip(np.exp(log_factor) * shape_KN, 1.0, n_KN).mean(1)
        return float(np.average(kept_K, weights=heads_K) - budget)

    return float(np.exp(brentq(excess, -40.0, 40.0, xtol=1e-9)))
