"""Selectors that look back, against a plain float64 reference of what the rows before attended to."""

from dataclasses import replace

import pytest
import torch

from experiments.errors import UserError
from experiments.selectors.h2o import H2O
from experiments.selectors.snap_kv import SnapKV
from experiments.selectors.vertical_slash import VerticalSlash
from tests.selectors.test_sinks import order, rows_at

BACKWARD = [H2O(), SnapKV(window=4, kernel=1), VerticalSlash(observed=8, first=0, recent=0)]


def attention(rows):
    """Return the attention of every row of the two heads of the group [2, N, N]."""
    return torch.softmax(rows.earlier.logits(0, rows.num_keys).double(), dim=-1)


@pytest.mark.parametrize("together", [True, False])
def test_h2o_takes_turns_between_recent_keys_and_heavy_hitters(together):
    rows = replace(rows_at([40, 63], 64), head_R=torch.full((2,), 1))
    order_RN, _ = order(H2O(per_kv_head=together), rows)
    for r, position in enumerate([40, 63]):
        seen = attention(rows)[:, :position]
        heavy = (seen.sum((0, 1)) if together else seen[1].sum(0))[: position + 1].argsort(descending=True).tolist()
        expected = []
        for near, best in zip(range(position, -1, -1), heavy, strict=True):
            expected += [key for key in (near, best) if key not in expected]
        assert order_RN[r, : len(expected)].tolist() == list(dict.fromkeys(expected))


@pytest.mark.parametrize("together", [True, False])
def test_snap_kv_keeps_its_window_and_then_the_best_voted(together):
    rows = replace(rows_at([50], 64), head_R=torch.full((1,), 1))
    order_RN, _ = order(SnapKV(window=8, kernel=3, pooling="mean", per_kv_head=together), rows)
    assert order_RN[0, :9].tolist() == list(range(50, 41, -1))
    votes = attention(rows)[:, 42:50, :42].mean(1)
    votes = torch.nn.functional.pad(votes, (1, 1))
    pooled = (votes[:, :-2] + votes[:, 1:-1] + votes[:, 2:]) / 3
    pooled = pooled.mean(0) if together else pooled[1]
    assert order_RN[0, 9:51].tolist() == pooled.argsort(descending=True).tolist()


@pytest.mark.parametrize("method", [H2O(), SnapKV(window=4), SnapKV(window=4, frozen=True)])
def test_heads_of_one_score_have_one_order_unless_they_see_other_keys(method):
    """What is kept for the next head of a KV head is that of the same positions and visible keys alone."""
    rows = rows_at([40, 63], 64)
    visible_RN = rows.visible() & (torch.arange(64) > 20)  # as a sliding window
    asked = [
        rows,
        replace(rows, head_R=torch.ones(2, dtype=torch.int64)),
        replace(rows, visible_RN=visible_RN),
        rows_at([41, 62], 64),
    ]
    answering = method.prepare(rows.cache())
    together = [answering(one.questions()).order() for one in asked]
    apart = [method.prepare(rows.cache())(one.questions()).order() for one in asked]
    assert [torch.equal(*pair) for pair in zip(together, apart, strict=True)] == [True] * 4
    assert torch.equal(together[0], together[1])
    assert not torch.equal(together[1], together[2])


def test_a_sink_comes_before_the_neighbours_that_its_votes_are_pooled_over():
    rows = rows_at([50], 64)
    sunk = replace(
        rows,
        earlier=replace(
            rows.earlier, logits=lambda start, stop: rows.earlier.logits(start, stop) + 9.0 * (torch.arange(stop) == 0)
        ),
    )
    order_RN, _ = order(SnapKV(window=8, kernel=7), sunk)
    assert order_RN[0, 9:13].tolist() == [0, 1, 2, 3]


def test_vertical_slash_keeps_the_best_columns_and_distances_half_and_half():
    rows = replace(rows_at([60], 64), head_R=torch.full((1,), 0))
    order_RN, _ = order(VerticalSlash(observed=16, first=0, recent=0), rows)
    seen = attention(rows)[0, 44:60]
    column, distance = torch.zeros(61), torch.zeros(61)
    for row, weights in zip(range(44, 60), seen, strict=True):
        for key in range(row + 1):
            column[key] += weights[key]
            distance[row - key] += weights[key]
    columns = column.argsort(descending=True, stable=True).tolist()
    distances = [60 - d for d in distance.argsort(descending=True, stable=True).tolist()]
    expected = [60]
    for slash, vertical in zip(distances[:20], columns[:20], strict=True):
        expected += [key for key in dict.fromkeys((slash, vertical)) if key not in expected]
    assert order_RN[0, : len(expected)].tolist() == expected


@pytest.mark.parametrize("selector", BACKWARD, ids=lambda selector: selector.name)
def test_what_is_asked_later_changes_no_order(selector):
    rows = rows_at([20, 37], 64)

    def noisy(start, stop):
        logits = rows.earlier.logits(start, stop).clone()
        late = torch.arange(start, stop) >= 20
        logits[:, late] += 5 * torch.randn(logits[:, late].shape, generator=torch.manual_seed(5))
        return logits

    before, after = (
        order(selector, rows)[0],
        order(selector, replace(rows, earlier=replace(rows.earlier, logits=noisy)))[0],
    )
    assert before[0].tolist() == after[0].tolist()
    assert before[1].tolist() != after[1].tolist()


@pytest.mark.parametrize("selector", BACKWARD, ids=lambda selector: selector.name)
def test_a_source_without_earlier_rows_is_refused(selector):
    with pytest.raises(UserError, match="causal"):
        order(selector, replace(rows_at([9], 64), earlier=None))


@pytest.mark.parametrize(
    ("part", "options"),
    [
        (H2O, {"heavy_share": 0.0}),
        (SnapKV, {"window": 0}),
        (SnapKV, {"kernel": 4}),
        (SnapKV, {"pooling": "min"}),
        (VerticalSlash, {"observed": 0}),
        (VerticalSlash, {"slash_share": 0.0}),
        (VerticalSlash, {"first": -1}),
    ],
)
def test_sizes_out_of_range_are_refused(part, options):
    with pytest.raises(UserError, match=next(iter(options))):
        part(**options)
