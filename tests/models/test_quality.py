"""Agreement and KL to a dense pass, against whole logits: of the pass itself, and of eager attention in float64."""

import numpy as np
import pytest
import torch
from transformers import AttentionInterface, AutoModelForCausalLM, DynamicCache
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from experiments.models import loss
from experiments.models.context import Context
from experiments.models.loss import DensePass
from experiments.models.probe import forward
from tests.models import small

TOKENS = torch.arange(90) * 7 % small.VOCABULARY
PROMPT, KEPT = 60, 5
CLEAR = 1e-4  # by which the largest logit leads, where float32 and float64 must agree on which it is


def load(folder):
    """Return a small model whose attention may be changed."""
    from experiments.launch import configure
    from experiments.models.load import CAUSAL, load_model

    located = configure("source=checkpoint", f"source.model={folder}").source.located
    return load_model(located, torch.float32, torch.device("cpu"), CAUSAL)


@pytest.fixture(params=["llama", "gemma2", "gpt2", "qwen3"])
def model(request, tmp_path):
    return load(small.save(request.param, tmp_path))


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
    torch.testing.assert_close(found.kl_N.double(), (p.exp() * (p - q)).sum(-1), rtol=1e-3, atol=1e-6)
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


def test_rounding_adds_no_divergence_over_a_large_vocabulary(tmp_path):
    model = load(small.save("llama", tmp_path, vocab_size=50_000))
    state_NW = forward(model, TOKENS)[0]
    assert float(DensePass(model, state_NW, TOKENS).beside(state_NW).kl_N.max()) <= 1e-7


def best_keys(module, query, key, value, attention_mask, scaling, softcap=None, **_):
    """Attend to each row's most probable keys alone, renormalised: eager attention of this test's own."""
    key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
    logits = query @ key.transpose(-1, -2) * scaling
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits + attention_mask
    least = logits.topk(min(KEPT, logits.shape[-1]), -1).values[..., -1:]
    weights = logits.masked_fill(logits < least, -torch.inf).softmax(-1)
    return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register("best_keys", best_keys)
AttentionMaskInterface.register("best_keys", eager_mask)


def eager_logits(folder, prompt, sparse):
    """Return float64 logits [N, C] of the tokens behind a prompt, which is read densely; `sparse`: by `best_keys`."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    cache = DynamicCache()
    with torch.inference_mode():
        if prompt:
            model(input_ids=TOKENS[None, :prompt], past_key_values=cache, use_cache=True)
        if sparse:
            model.set_attn_implementation("best_keys")
        return model(input_ids=TOKENS[None, prompt:], past_key_values=cache, use_cache=True).logits[0].numpy()


def probabilities(logits_NC):
    weights_NC = np.exp(logits_NC - logits_NC.max(-1, keepdims=True))
    return weights_NC / weights_NC.sum(-1, keepdims=True)


@pytest.mark.parametrize("prompt", [0, PROMPT])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt2"])
def test_every_measure_is_that_of_eager_attention_in_float64(tmp_path, monkeypatch, family, prompt):
    monkeypatch.setattr(loss, "BLOCK", 7)
    folder, behind_N = small.save(family, tmp_path), TOKENS[prompt:]
    logits = [eager_logits(folder, prompt, sparse)[:-1] for sparse in (False, True)]
    p_NC, q_NC = map(probabilities, logits)
    model = load(folder)
    context = Context(model)
    if prompt:
        context.read(TOKENS[:prompt])
    dense = DensePass(model, context.states(behind_N), behind_N)
    with small.attend_to_top_k(model, lambda rows, *_: rows.n_R.clamp(max=KEPT)):
        result = dense.beside(context.states(behind_N))
    np.testing.assert_allclose(result.loss_N, -np.log(q_NC[np.arange(len(q_NC)), behind_N[1:]]), atol=1e-4)
    np.testing.assert_allclose(result.kl_N, (p_NC * np.log(p_NC / q_NC)).sum(-1), rtol=1e-4, atol=1e-5)
    agreement_N = p_NC.argmax(-1) == q_NC.argmax(-1)
    clear_N = np.min([np.diff(np.sort(x, -1)[:, -2:])[:, 0] for x in logits], axis=0) > CLEAR
    assert clear_N.mean() > 0.9
    assert (result.agreement_N.numpy() == agreement_N)[clear_N].all()
    assert 0 < agreement_N.mean() < 1
