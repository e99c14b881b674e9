"""The order in which `sinks` keeps keys is the one that contract and theory name."""

import pytest
import torch

from experiments.answers import TopK
from experiments.cache import Earlier
from experiments.errors import UserError
from experiments.reference.exact import ExactRows
from experiments.rows import Rows
from experiments.selectors.oracle import Oracle
from experiments.selectors.sinks import Sinks


def rows_at(positions, keys, causal=True, key_ND=None):
    generator = torch.manual_seed(0)
    position_R = torch.tensor(positions)
    drawn_ND = torch.randn(keys, 4, generator=generator)
    key_ND = drawn_ND if key_ND is None else key_ND
    query_RD = torch.randn(len(positions), 4, generator=generator)
    asked_HND = torch.randn(2, keys, 4, generator=generator)

    def earlier(start, stop):
        hidden_TN = torch.arange(stop) > torch.arange(start, stop)[:, None]
        return (asked_HND[:, start:stop] @ key_ND[:stop].T).masked_fill(hidden_TN, -torch.inf)

    return Rows(
        layer=0,
        head_R=torch.zeros_like(position_R),
        sample=0,
        variant="plain",
        length=keys,
        position_R=position_R,
        query_RD=query_RD,
        key_ND=key_ND,
        value_NV=key_ND,
        scale=1.0,
        visible_RN=torch.arange(keys) <= position_R[:, None] if causal else None,
        earlier=Earlier(earlier, lambda start, stop: asked_HND[:, start:stop]),
    )


def order(selector, rows):
    """Return the order in which the rows of one head keep their keys, and their exact rows."""
    exact = ExactRows.from_logits(rows.logits())
    answer = selector.prepare(rows.cache())(rows.questions())
    return exact.order_RN if isinstance(answer, TopK) else answer.order(), exact


def test_own_key_then_sinks_then_the_most_recent():
    order_RN, _ = order(Sinks(sinks=2), rows_at([7, 3], 9))
    assert order_RN[0, :8].tolist() == [7, 0, 1, 6, 5, 4, 3, 2]
    assert order_RN[1, :4].tolist() == [3, 0, 1, 2]


def test_a_row_whose_own_key_is_a_sink_keeps_it_once():
    order_RN, _ = order(Sinks(sinks=4), rows_at([1, 0], 3))
    assert order_RN[0, :2].tolist() == [1, 0]
    assert order_RN[1, 0].item() == 0


def test_an_encoder_row_keeps_the_nearest_keys_on_both_sides():
    order_RN, _ = order(Sinks(sinks=1), rows_at([4], 8, causal=False))
    assert order_RN[0].tolist() == [4, 0, 3, 5, 2, 6, 1, 7]


def test_every_order_is_a_permutation_with_invisible_keys_last():
    rows = rows_at([0, 2, 5], 6)
    for selector in (Oracle(), Sinks(sinks=2), Sinks(sinks=0)):
        order_RN, exact = order(selector, rows)
        assert order_RN.sort(-1).values.tolist() == [list(range(6))] * 3
        for r, n in enumerate(exact.n_R.tolist()):
            assert max(order_RN[r, :n].tolist()) < n


def test_negative_sinks_are_refused():
    with pytest.raises(UserError, match="sinks"):
        Sinks(sinks=-1)
