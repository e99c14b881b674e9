"""Rules at equal cost keep the same number of keys on average over all contexts, counted one by one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.errors import UserError
from experiments.windows.equal_cost import EqualCost


class Rows:
    """Rows that see 1, 2, ..., n keys."""

    def __init__(self, length):
        self.n_R = torch.arange(1, length + 1)


@settings(max_examples=30, deadline=None)
@given(
    length=st.integers(64, 3000),
    share=st.floats(0.05, 0.9),
    c=st.floats(0.05, 0.95),
)
def test_every_rule_costs_its_budget(length, share, c):
    budget = max(int(share * (length + 1) / 2), 2)
    windows = EqualCost([budget], [c], [1.0]).at(length)
    k_RW = windows.keys(Rows(length))
    assert set(windows.columns()["rule"]) == {"fixed", "log", "power", "linear"}
    assert (k_RW <= torch.arange(1, length + 1)[:, None]).all()
    for rule, mean in zip(windows.columns()["rule"], k_RW.double().mean(0).tolist(), strict=True):
        assert mean == pytest.approx(budget, abs=1.0), rule  # windows are whole numbers of keys


def test_layers_that_see_less_keep_less_and_the_cost_counts_that():
    """Two thirds of the heads see 16 keys: what they cannot keep, the others do."""
    n_R = torch.arange(1, 1001)

    def visible(n_N):
        return np.stack([np.minimum(n_N, 16), n_N]), np.array([2.0, 1.0])

    windows = EqualCost([60], [0.5], [1.0]).at(1000, visible)
    sliding, full = Rows(1000), Rows(1000)
    sliding.n_R = n_R.clamp(max=16)
    for column, rule in enumerate(windows.columns()["rule"]):
        means = [windows.keys(rows)[:, column].double().mean().item() for rows in (sliding, full)]
        assert (2 * means[0] + means[1]) / 3 == pytest.approx(60, abs=1.0), rule
    with pytest.raises(UserError, match="from 1 to 177"):
        EqualCost([180], [0.5]).at(1000, visible)


def test_a_budget_that_dense_rows_do_not_reach_is_refused():
    with pytest.raises(UserError, match="budgets has 600"):
        EqualCost([600], [0.5]).at(1000)
