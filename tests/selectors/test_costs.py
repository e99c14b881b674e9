"""What a row costs: multiply-adds of methods against counts by hand."""

import pytest
import torch

from experiments.selectors import flops
from tests.selectors.test_selectors import METHODS, selector

N, K, D, V = 4096, 256, 64, 48


def cost(name, n=N, k=K, head_dim=D, value_dim=D):
    return float(flops(selector(name), torch.tensor([[float(n)]]), torch.tensor([[float(k)]]), head_dim, value_dim))


def test_the_oracle_multiplies_all_keys_and_the_values_it_keeps():
    assert cost("oracle") == N * D + K * D
    assert cost("sinks") == K * 2 * D
    assert cost("quantised_keys") == N * D + K * 2 * D  # few bits are as many products
    assert cost("mean_value") == D


def test_a_state_is_paid_for_by_every_row_whatever_n():
    moments = 2 * D + D * D + D * D
    assert cost("moment_tail", value_dim=D) == pytest.approx((K - 49.5) * 2 * D + 2 * moments, rel=0.01)
    assert cost("moment_tail", n=8 * N) == cost("moment_tail")
    assert cost("polynomial") == pytest.approx((K - 33) * 2 * D + 2 * (D + 1) * (D + 1), rel=0.02)


def test_sketches_and_shared_rows_cost_all_values():
    assert cost("logit_sketch", value_dim=V) == N * (16 + V) + 2 * D * 16
    assert cost("shared", value_dim=V) == N * V


@pytest.mark.parametrize("name", METHODS)
def test_a_cost_is_a_positive_number_of_the_shape_of_its_windows(name):
    n, k = torch.full((2, 1), 4096.0), torch.tensor([[64.0, 256.0, 1024.0]] * 2)
    cost_RW = flops(selector(name), n, k, D, D).expand(2, 3)
    assert (cost_RW > 0).all()
    assert (cost_RW[:, 1:] >= cost_RW[:, :-1]).all()
