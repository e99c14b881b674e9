"""Running sums in a fixed order of additions, against exact sums."""

import math

import pytest
import torch

from experiments.batched.running_sums import BLOCK, running_sums


@pytest.mark.parametrize("entries", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, BLOCK**2 + 3])
def test_they_are_the_sums_of_the_first_entries_and_of_the_last(entries):
    generator = torch.manual_seed(entries)
    value_XN = torch.rand(2, 3, entries, generator=generator, dtype=torch.float64).pow(20)  # over many magnitudes
    for from_end in (False, True):
        sums_XN = running_sums(value_XN, from_end=from_end)
        assert sums_XN.shape == value_XN.shape
        assert sums_XN.is_contiguous()
        for place in {0, entries // 3, entries // 2, entries - 1}:
            part_N = value_XN[1, 2, place:] if from_end else value_XN[1, 2, : place + 1]
            assert sums_XN[1, 2, place].item() == pytest.approx(math.fsum(part_N.tolist()), rel=1e-14)


def test_a_small_sum_beside_a_large_one_keeps_its_digits():
    value_N = torch.tensor([1.0, 1e-300] * (2 * BLOCK), dtype=torch.float64)
    value_N[:BLOCK] = 1.0
    value_N[BLOCK:] = 1e-300
    sums_N = running_sums(value_N, from_end=True)
    assert sums_N[BLOCK].item() == pytest.approx(3e-300 * BLOCK, rel=1e-14)


def test_columns_are_summed_as_rows_are():
    value_BV = torch.rand(3, 200, 5, dtype=torch.float64)
    torch.testing.assert_close(running_sums(value_BV.mT), value_BV.cumsum(1).mT)
