"""Attention over the k most probable keys: the compiled path against sorting, and k = n against plain attention."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.kernels import top_k as kernels
from experiments.kernels.quick_rows import QuickRows
from experiments.kernels.scratch import Scratch
from experiments.reference import top_k
from tests.measures.test_quick import KINDS, logits_of


@pytest.mark.parametrize("share", [0.02, 0.9])
@pytest.mark.parametrize("keys", [1, 2, 3, 64, 700])
@pytest.mark.parametrize("kind", KINDS)
def test_the_compiled_path_agrees_with_sorting(kind, keys, share):
    generator = torch.manual_seed(keys)
    logits_RN = logits_of(kind, 23, keys, generator)
    value_NV = torch.randn(keys, 16, generator=generator)
    n_R = torch.isfinite(logits_RN).sum(-1)
    k_R = (n_R * share * torch.rand(23, generator=generator)).long().clamp(min=1)
    outputs = (path.top_k_output(logits_RN, value_NV, k_R) for path in (kernels, top_k))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    masks = (path.top_k_mask(logits_RN, k_R) for path in (kernels, top_k))
    assert torch.equal(*masks)


def by_sorting(logits_RN, k_R):
    order_RN = logits_RN.sort(dim=-1, descending=True, stable=True).indices
    kept_RN = torch.arange(logits_RN.shape[1]) < k_R[:, None]
    return torch.zeros_like(logits_RN, dtype=torch.bool).scatter_(1, order_RN, kept_RN)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_mask_is_that_of_a_stable_sort_however_many_keys_are_tied(data):
    rows, keys, values = (data.draw(st.integers(1, most)) for most in (6, 300, 8))
    generator = torch.manual_seed(data.draw(st.integers(0, 2**31)))
    logits_RN = torch.randint(-values, values, (rows, keys), generator=generator) * 0.5
    logits_RN[:, 1:].masked_fill_(torch.rand(rows, keys - 1, generator=generator) < 0.3, -torch.inf)
    logits_RN = logits_RN.to(data.draw(st.sampled_from([torch.float32, torch.float64])))
    logits_RN[logits_RN == 0] *= data.draw(st.sampled_from([-1.0, 1.0]))  # 0 and -0 are tied too
    k_R = (torch.rand(rows, generator=generator) * torch.isfinite(logits_RN).sum(-1)).long() + 1
    assert torch.equal(top_k.top_k_mask(logits_RN, k_R), by_sorting(logits_RN, k_R))


def test_all_keys_are_plain_attention():
    generator = torch.manual_seed(0)
    logits_RN, value_NV = logits_of("masked", 30, 50, generator), torch.randn(50, 8, generator=generator)
    k_R = torch.isfinite(logits_RN).sum(-1)
    for path in (kernels, top_k):
        dense = torch.softmax(logits_RN, -1) @ value_NV
        torch.testing.assert_close(path.top_k_output(logits_RN, value_NV, k_R), dense)


@pytest.mark.parametrize("epsilon", [1e-30, 0.001, 0.02, 0.4, 0.999])
@pytest.mark.parametrize("kind", KINDS)
def test_a_threshold_keeps_the_keys_above_it(kind, epsilon):
    generator = torch.manual_seed(3)
    logits_RN = logits_of(kind, 17, 300, generator)
    (k_R, weight_RN), (expected_R, expected_RN) = (
        kernels.weights_above(logits_RN, epsilon, Scratch()),
        top_k.weights_above(logits_RN, epsilon),
    )
    facts = QuickRows.from_logits(logits_RN, Scratch(), [], [epsilon])
    assert torch.equal(k_R, expected_R)
    assert torch.equal(k_R, facts.count_above(epsilon).clamp(min=1))
    assert torch.equal(weight_RN > 0, expected_RN > 0)
    torch.testing.assert_close(*(w_RN / w_RN.sum(-1, keepdim=True) for w_RN in (weight_RN, expected_RN)))
