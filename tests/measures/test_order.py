"""The order of keys by turns, by the radix sort and by torch's stable sort."""

import pytest
import torch

from experiments.measures.compute import Compute

TURNS = {
    "ties": lambda generator: torch.randint(-5, 5, (7, 301), generator=generator),
    "large": lambda generator: torch.randint(-(2**62), 2**62, (7, 301), generator=generator),
    "normal": lambda generator: torch.randn(7, 301, generator=generator, dtype=torch.float64),
    "tiny": lambda generator: 1e-40 * torch.randn(7, 301, generator=generator, dtype=torch.float64),
    "one key": lambda generator: torch.randn(7, 1, generator=generator),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("turns", TURNS)
def test_the_quick_order_is_that_of_a_stable_sort(turns, dtype):
    turn_RN = TURNS[turns](torch.Generator().manual_seed(1)).to(dtype)
    before = turn_RN.clone()
    assert torch.equal(Compute().order(turn_RN), Compute(reference=True).order(turn_RN))
    assert torch.equal(turn_RN, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zeros_of_both_signs_are_equal_and_infinities_are_last_and_first(dtype):
    turn_RN = torch.tensor([[0.0, -0.0, torch.inf, -1.0, 0.0, -torch.inf, -0.0, torch.inf]], dtype=dtype)
    assert Compute().order(turn_RN).tolist() == [[5, 3, 0, 1, 4, 6, 2, 7]]
