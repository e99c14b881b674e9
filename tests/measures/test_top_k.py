"""Attention over the k most probable keys: the compiled path against sorting, and k = n against plain attention."""

import pytest
import torch

from experiments.measures.top_k import _by_sorting, top_k_attention
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
    found, expected = top_k_attention(logits_RN, value_NV, k_R), _by_sorting(logits_RN, value_NV, k_R)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_all_keys_are_plain_attention():
    generator = torch.manual_seed(0)
    logits_RN, value_NV = logits_of("masked", 30, 50, generator), torch.randn(50, 8, generator=generator)
    k_R = torch.isfinite(logits_RN).sum(-1)
    torch.testing.assert_close(top_k_attention(logits_RN, value_NV, k_R), torch.softmax(logits_RN, -1) @ value_NV)
