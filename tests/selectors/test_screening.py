"""Relevancy screening against its own procedure: a buffer, and a set whose lowest score gives way."""

from dataclasses import replace

import pytest
import torch

from experiments.errors import UserError
from experiments.selectors.screening import Screening
from experiments.selectors.sinks import Sinks
from tests.selectors.test_earlier import attention
from tests.selectors.test_sinks import order, rows_at


def screened(seen_NN, position, recent, capacity):
    """Return the buffer and the relevant set before the row at a position, step by step."""
    gathered, relevant = torch.zeros(len(seen_NN), dtype=torch.float64), {}
    for row in range(position):
        in_buffer = range(max(row - recent + 1, 0), row + 1)
        for key in in_buffer:
            gathered[key] += seen_NN[row, key]
        leaves = row + 1 - recent  # before the next row, whose own key comes in
        if leaves >= 0 and capacity:
            score = float(gathered[leaves])
            lowest = min(relevant, key=relevant.get, default=None)
            if len(relevant) < capacity:
                relevant[leaves] = score
            elif score > relevant[lowest]:
                del relevant[lowest]
                relevant[leaves] = score
    return set(range(max(position - recent + 1, 0), position + 1)), set(relevant)


@pytest.mark.parametrize("together", [True, False])
def test_the_order_holds_the_sets_of_every_capacity(together):
    positions = [3, 12, 40, 63]
    rows = replace(rows_at(positions, 64), head_R=torch.full((4,), 1))
    order_RN, _ = order(Screening(recent=6, per_kv_head=together), rows)
    seen = attention(rows)
    seen_NN = seen.sum(0) if together else seen[1]
    for r, position in enumerate(positions):
        for capacity in (0, 1, 5, 20):
            buffer, relevant = screened(seen_NN, position, 6, capacity)
            assert set(order_RN[r, : len(buffer) + len(relevant)].tolist()) == buffer | relevant


def test_a_buffer_of_all_keys_is_a_sliding_window():
    rows = rows_at([3, 30, 63], 64)
    assert order(Screening(recent=64), rows)[0].tolist() == order(Sinks(sinks=0), rows)[0].tolist()


def test_of_equal_scores_the_earliest_come_first():
    rows = rows_at([40], 64)

    def own_alone(start, stop):
        later_TN = torch.arange(stop) != torch.arange(start, stop)[:, None]
        return torch.zeros(2, stop - start, stop).masked_fill(later_TN, -torch.inf)

    order_RN, _ = order(Screening(recent=4), replace(rows, earlier=replace(rows.earlier, logits=own_alone)))
    assert order_RN[0, :41].tolist() == [40, 39, 38, 37, *range(37)]


def test_an_empty_buffer_is_refused_by_name():
    with pytest.raises(UserError, match=r"selector\.recent"):
        Screening(recent=0)
