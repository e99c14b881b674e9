"""Attention over the k most probable keys: the compiled path against sorting, and k = n against plain attention."""

import pytest
import torch

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
