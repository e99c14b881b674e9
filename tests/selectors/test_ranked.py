"""An order by scores, and its first keys where scores tie."""

import pytest
import torch

from experiments.selectors.ranked import ranked
from tests.selectors.test_sinks import rows_at


@pytest.mark.parametrize("k", [1, 2, 7, 40, 64])
def test_the_first_of_tied_scores_are_those_of_the_lower_index(k):
    rows = rows_at([63] * 50, 64)
    score_RN = torch.randint(4, (50, 64), generator=torch.manual_seed(k)).float()
    answer = ranked(rows.questions(), lambda: score_RN)
    assert answer.first(k).key_RK.tolist() == answer.order()[:, :k].tolist()
    assert answer.order()[:, 0].tolist() == [63] * 50
    for order_N, score_N in zip(answer.order()[:, 1:].tolist(), score_RN.tolist(), strict=True):
        assert order_N == sorted(range(63), key=lambda key: -score_N[key])
