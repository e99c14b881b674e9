"""The keys of the lowest turns, by the quick path and by sorting."""

import pytest
import torch

from experiments.kernels import first_turns
from experiments.reference import top_k


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("values", [5, 1_000_000])
def test_the_quick_mask_is_that_of_a_stable_order(dtype, values):
    generator = torch.Generator().manual_seed(values)
    turn_RN = torch.randint(values, (9, 301), generator=generator).to(dtype)
    k_R = torch.tensor([1, 2, 5, 50, 100, 299, 300, 301, 77])
    kept_RN = first_turns.first_mask(turn_RN, k_R)
    assert torch.equal(kept_RN, top_k.first_mask(turn_RN, k_R))
    assert kept_RN.sum(-1).tolist() == k_R.tolist()


def test_keys_that_are_not_visible_come_last():
    turn_RN = torch.tensor([[torch.inf, 2.0, 1.0, torch.inf], [3.0, 3.0, 3.0, torch.inf]], dtype=torch.float64)
    kept_RN = first_turns.first_mask(turn_RN, torch.tensor([2, 2]))
    assert kept_RN.tolist() == [[False, True, True, False], [True, True, False, False]]
