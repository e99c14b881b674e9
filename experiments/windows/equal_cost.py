"""Windows of different shapes that keep the same number of keys on average over a mix of context lengths."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import brentq

from experiments.errors import UserError
from experiments.windows import Rule, Windows
from experiments.windows.rules.fixed import Fixed
from experiments.windows.rules.linear import Linear
from experiments.windows.rules.log import Log
from experiments.windows.rules.power import Power


@dataclass
class EqualCost:
    """Fixed, logarithmic, power and linear windows at each budget.

    A budget is the mean number of keys that a row keeps, over rows that see 1, 2, ..., N keys: what a causal model
    reads of N tokens. Each shape's factor is solved for, so that all rules cost the same.

    Attributes
    ----------
    budgets
        Keys per row on average.
    exponents
        C of alpha n^C; fixed windows stand for C = 0 and linear ones for C = 1.
    log_powers
        b of a (ln n)^b.
    """

    budgets: list[int]
    exponents: list[float]
    log_powers: list[float] = field(default_factory=list)

    def at(self, length: int) -> Windows:
        """Return the windows for rows that see up to `length` keys.

        Raises
        ------
        UserError
            If a budget is not below what dense rows read.
        """
        n_N = np.arange(1, length + 1, dtype=float)
        if bad := [budget for budget in self.budgets if not 1 <= budget < n_N.mean()]:
            raise UserError(
                f"windows.budgets has {bad[0]}: give numbers of keys from 1 to {n_N.mean():.0f}, what dense rows of "
                f"{length} tokens read on average"
            )
        rules: list[Rule] = []
        coordinates: list[list[tuple[float, float]]] = []
        for budget in self.budgets:
            fixed = round(_factor(np.ones_like(n_N), n_N, budget))
            rules.append(Fixed([fixed]))
            coordinates.append([(float(fixed), 1.0)])
            for b in self.log_powers:
                a = _factor(np.log(n_N) ** b, n_N, budget)
                rules.append(Log([b], [a]))
                coordinates.append([(b, a)])
            for c in self.exponents:
                alpha = _factor(n_N**c, n_N, budget)
                rules.append(Power([c], [alpha]))
                coordinates.append([(c, alpha)])
            beta = _factor(n_N, n_N, budget)
            rules.append(Linear([beta]))
            coordinates.append([(beta, 1.0)])
        return Windows(rules, coordinates)


def _factor(shape_N: np.ndarray, n_N: np.ndarray, budget: float) -> float:
    """Return the factor f for which f shape(n), held within [1, n], is `budget` on average."""

    def excess(log_factor: float) -> float:
        return float(np.clip(np.exp(log_factor) * shape_N, 1.0, n_N).mean() - budget)

    return float(np.exp(brentq(excess, -40.0, 40.0)))
