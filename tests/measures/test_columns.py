"""Static columns by brute force."""

import pytest
import torch

from experiments.errors import UserError
from experiments.measures.columns import column_means, recalls
from tests.measures.test_distance import rows_of


@pytest.mark.parametrize("block", [1, 3, 4])
def test_means_and_each_rows_own_keys_are_those_of_the_softmax(block):
    logits_RN = torch.randn(4, 9, generator=torch.manual_seed(0), dtype=torch.float64)
    rows = rows_of(logits_RN, [5, 6, 7, 8])
    p_RN = torch.stack([logits_RN[r].masked_fill(torch.arange(9) > 5 + r, -torch.inf).softmax(0) for r in range(4)])
    mean_N, own_K = column_means(rows, [1, 3, 9], block)
    torch.testing.assert_close(mean_N, p_RN.mean(0))
    expected = [p_RN.sort(descending=True).values[:, :k].sum(1).mean() for k in (1, 3, 9)]
    torch.testing.assert_close(own_K, torch.stack(expected))


def test_recall_is_what_the_chosen_keys_hold_and_of_equal_keys_the_first_are():
    chosen_N = torch.tensor([0.1, 0.5, 0.2, 0.2])
    scored_N = torch.tensor([0.4, 0.1, 0.2, 0.3])
    assert recalls(chosen_N, scored_N, [1, 2, 3, 4]).tolist() == pytest.approx([0.1, 0.3, 0.6, 1.0])


def test_no_set_holds_more_than_the_one_of_the_same_rows_nor_that_more_than_each_rows_own():
    logits_RN = 3 * torch.randn(8, 64, generator=torch.manual_seed(1), dtype=torch.float64)
    ks = [1, 4, 16, 64]
    earlier_N, _ = column_means(rows_of(logits_RN[:4], range(56, 60)), ks, 4)
    later_N, own_K = column_means(rows_of(logits_RN[4:], range(60, 64)), ks, 4)
    same_K, other_K = recalls(later_N, later_N, ks), recalls(earlier_N, later_N, ks)
    assert (other_K <= same_K + 1e-12).all()
    assert (same_K <= own_K + 1e-12).all()
    assert float(same_K[-1]) == pytest.approx(1)


def test_a_row_of_no_number_is_refused():
    with pytest.raises(UserError, match="not finite"):
        column_means(rows_of(torch.full((1, 4), torch.nan, dtype=torch.float64), [3]), [1], 1)
