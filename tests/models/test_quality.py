"""Agreement and KL to a dense pass, against the whole logits of transformers in float64."""

import pytest
import torch

from experiments.models import loss
from experiments.models.loss import DensePass
from experiments.models.probe import forward
from tests.models import small

TOKENS = torch.arange(90) * 7 % small.VOCABULARY


@pytest.fixture(params=["llama", "gemma2", "gpt2", "qwen3"])
def model(request, tmp_path):
    """Return a small random model whose attention may be changed."""
    from experiments.launch import configure
    from experiments.models.load import CAUSAL, load_model

    located = configure("source=checkpoint", f"source.model={small.save(request.param, tmp_path)}").source.located
    return load_model(located, torch.float32, torch.device("cpu"), CAUSAL)


def logits_of(model):
    with torch.inference_mode():
        return model(input_ids=TOKENS[None], use_cache=False).logits[0].double()


def test_a_pass_beside_the_dense_one(model, monkeypatch):
    monkeypatch.setattr(loss, "BLOCK", 32)
    monkeypatch.setattr(loss, "ROWS", 5)
    dense, dense_NC = DensePass(model, forward(model, TOKENS)[0], TOKENS), logits_of(model)
    with small.attend_to_top_k(model, lambda rows, *_: torch.full_like(rows.n_R, 3).minimum(rows.n_R)):
        found, sparse_NC = dense.beside(forward(model, TOKENS)[0]), logits_of(model)
    p, q = (logits_NC[:-1].log_softmax(-1) for logits_NC in (dense_NC, sparse_NC))
    torch.testing.assert_close(found.kl_N.double(), (p.exp() * (p - q)).sum(-1), rtol=1e-3, atol=1e-5)
    assert found.agreement_N.tolist() == (p.argmax(-1) == q.argmax(-1)).tolist()
    assert 0 < found.agreement_N.double().mean() < 1
    next_N = TOKENS[1:, None]
    torch.testing.assert_close(found.loss_N.double(), -q.gather(1, next_N)[:, 0], rtol=1e-3, atol=1e-4)
    assert found.hit_N.tolist() == (q.argmax(-1) == TOKENS[1:]).tolist()
    assert (found.kl_N > 1e-4).any()


def test_the_dense_pass_agrees_with_itself(model):
    state_NW = forward(model, TOKENS)[0]
    dense = DensePass(model, state_NW, TOKENS)
    itself, beside = dense.itself(), dense.beside(state_NW)
    assert bool((itself.agreement_N & beside.agreement_N).all())
    assert float(itself.kl_N.abs().max()) == 0
    assert float(beside.kl_N.abs().max()) <= 1e-6
    assert torch.equal(itself.loss_N, beside.loss_N)
