"""Seven selectors keep the keys that NVIDIA's kvpress keeps of the same queries and keys.

kvpress cuts the cache once, after a prompt of n tokens, per KV head. We measure the row that comes next, at position n,
which keeps its own key besides: of k + 1 keys of ours, k are those that kvpress leaves in the cache.
"""

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from experiments.models.probe import watch
from experiments.rows import Rows
from experiments.selectors.earlier import Accumulated
from experiments.selectors.expected_attention import ExpectedAttention
from experiments.selectors.h2o import H2O
from experiments.selectors.keydiff import KeyDiff
from experiments.selectors.knorm import KNorm
from experiments.selectors.lev_attention import LevAttention
from experiments.selectors.sinks import Sinks
from experiments.selectors.snap_kv import SnapKV
from experiments.sources.checkpoint import _rows_of
from tests.selectors.test_sinks import order

kvpress = pytest.importorskip("kvpress", reason="kvpress needs an older transformers than we do: make examples")

get_prerope_query_states = kvpress.utils.get_prerope_query_states
PROMPT, LAYERS, HEADS, KV_HEADS = 90, 2, 6, 2
RATIOS = [0.2, 0.5, 0.8]


class Case(NamedTuple):
    """A model, n + 1 tokens, and the row at position n of every layer and query head."""

    model: LlamaForCausalLM
    token_N: torch.Tensor
    rows: dict[tuple[int, int], Rows]


@pytest.fixture(params=[0, 1], ids=lambda seed: f"seed{seed}")
def case(request):
    torch.manual_seed(request.param)
    sizes = {"vocab_size": 64, "hidden_size": 48, "intermediate_size": 96, "head_dim": 8, "num_hidden_layers": LAYERS}
    config = LlamaConfig(**sizes, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS)
    config._attn_implementation = "eager"  # ObservedAttentionPress asks for the whole attention matrix
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False).mul_(3.0)  # random initial weights give nearly uniform rows; these have peaks
    token_N = torch.randint(64, (PROMPT + 1,))
    rows = {}

    def look(attention):
        assert attention.mask is None, "a row sees every key up to its own"
        for head in range(HEADS):
            position_R = torch.tensor([PROMPT])
            rows[attention.layer, head] = _rows_of(attention, [head], 0, PROMPT + 1, position_R, [None], causal=True)

    with watch(model, look):
        model.model(token_N[None])
    return Case(model, token_N, rows)


def cached(case, press):
    cache = DynamicCache()
    with press(case.model):
        case.model.model(input_ids=case.token_N[None, :PROMPT], past_key_values=cache)
    return [layer.keys[0] for layer in cache.layers]


def places(kept_KD, key_ND):
    """Return where the kept keys stood before the cache was cut."""
    same_KN = (kept_KD[:, None] == key_ND).all(-1)
    assert same_KN.sum(-1).tolist() == [1] * len(kept_KD)
    return set(same_KN.int().argmax(-1).tolist())


def kept_by_kvpress(case, press):
    """Return the keys in the cache after the prompt, per layer and KV head."""
    dense, pressed = cached(case, type(press)(compression_ratio=0.0)), cached(case, press)
    return {
        (layer, head): places(pressed[layer][head], dense[layer][head])
        for layer in range(LAYERS)
        for head in range(KV_HEADS)
    }


def kept_by_us(selector, rows, keys):
    """Return the keys that the row at position n keeps besides its own."""
    order_RN, _ = order(selector, rows)
    return set([key for key in order_RN[0].tolist() if key != PROMPT][:keys])


def compare(case, press, selector):
    """Check that every query head of a group keeps what kvpress leaves in the group's cache."""
    theirs = kept_by_kvpress(case, press)
    assert len({frozenset(kept) for kept in theirs.values()}) > 1 or isinstance(selector, Sinks)
    for (layer, head), rows in case.rows.items():
        kept = theirs[layer, head // (HEADS // KV_HEADS)]
        assert len(kept) == int(PROMPT * (1 - press.compression_ratio))
        assert kept_by_us(selector, rows, len(kept)) == kept


@pytest.mark.parametrize("ratio", RATIOS)
def test_streaming_llm_is_sinks(case, ratio):
    compare(case, kvpress.StreamingLLMPress(compression_ratio=ratio, n_sink=3), Sinks(sinks=3))


@pytest.mark.parametrize("kernel", [1, 5])
@pytest.mark.parametrize("ratio", RATIOS)
def test_snap_kv(case, ratio, kernel):
    """The window of ours is of the rows before the measured one, which are the last of the prompt.

    kvpress pools by the mean; ours by the maximum unless it is told to.
    """
    press = kvpress.SnapKVPress(compression_ratio=ratio, window_size=8, kernel_size=kernel)
    compare(case, press, SnapKV(window=8, kernel=kernel, pooling="mean", per_kv_head=True))


class SummedAttentionPress(kvpress.ObservedAttentionPress):  # type: ignore[name-defined]
    """Their score without the division by the number of rows that could see the key."""

    def score(self, module, hidden_states, keys, values, attentions, kwargs):
        mean = super().score(module, hidden_states, keys, values, attentions, kwargs)
        return mean * torch.arange(keys.shape[2], 0, -1)


HEAVY = H2O(recent_share=1e-9)  # as good as none of the recent keys that H2O has for its other half


@pytest.mark.parametrize("ratio", RATIOS)
def test_observed_attention_is_the_heavy_part_of_h2o_but_for_the_mean(case, ratio):
    """H2O adds up the attention that a key has had; kvpress takes the mean over the rows that could see the key.

    The mean raises recent keys, which H2O has for its other half; kvpress has no such half. Our sum, divided likewise,
    gives its keys; its mean, multiplied again, gives ours; and the two are not the same keys.
    """
    compare(case, SummedAttentionPress(compression_ratio=ratio), HEAVY)
    theirs = kept_by_kvpress(case, kvpress.ObservedAttentionPress(compression_ratio=ratio))
    differ = 0
    for (layer, head), rows in case.rows.items():
        kept = theirs[layer, head // (HEADS // KV_HEADS)]
        total_N = Accumulated(rows.cache(), 0).before(PROMPT).sum(0)
        mean_N = total_N[:PROMPT] / torch.arange(PROMPT, 0, -1)
        assert set(mean_N.topk(len(kept)).indices.tolist()) == kept
        differ += kept_by_us(HEAVY, rows, len(kept)) != kept
    assert differ


class AskedAttentionPress(kvpress.ExpectedAttentionPress):  # type: ignore[name-defined]
    """Their score of the last 32 queries as they were asked, after rotary embedding."""

    def get_query_statistics(self, module, hidden_states):
        query_1HND = get_prerope_query_states(module, hidden_states)
        cosine, sine = module.rotary_emb(query_1HND, torch.arange(query_1HND.shape[2])[None])
        asked_1HTD = apply_rotary_pos_emb(query_1HND, query_1HND, cosine, sine)[0][:, :, -32:]
        centred_1HTD = asked_1HTD - asked_1HTD.mean(2, keepdim=True)
        return asked_1HTD.mean(2), centred_1HTD.mT @ centred_1HTD / asked_1HTD.shape[2]


@pytest.mark.parametrize("value_norm", [True, False])
@pytest.mark.parametrize("ratio", RATIOS)
def test_expected_attention_of_the_queries_as_they_were_asked(case, ratio, value_norm):
    """kvpress takes the queries of the whole prompt before rotary embedding, turned by the mean rotation of the next
    512 positions; ours the last ones after it. Of the same mean and covariance both keep the same keys.
    """
    press = AskedAttentionPress(compression_ratio=ratio, use_vnorm=value_norm)
    compare(case, press, ExpectedAttention(window=32, value_norm=value_norm))


@pytest.mark.parametrize("ratio", RATIOS)
def test_norms_of_keys(case, ratio):
    """In the first layer a token has the same norm wherever it stands, so that either of two may be kept."""
    theirs = kept_by_kvpress(case, kvpress.KnormPress(compression_ratio=ratio))
    for (layer, head), rows in case.rows.items():
        kept = theirs[layer, head // (HEADS // KV_HEADS)]
        norm_N = rows.key_ND.double().norm(dim=-1)
        ours, others = (norm_N[sorted(keys)].sort().values for keys in (kept_by_us(KNorm(), rows, len(kept)), kept))
        torch.testing.assert_close(ours, others, rtol=1e-6, atol=0)
        if layer:
            assert kept_by_us(KNorm(), rows, len(kept)) == kept


@pytest.mark.parametrize("ratio", RATIOS)
def test_keydiff_of_the_keys_that_the_prompt_holds(case, ratio):
    """Ours takes the mean direction of all keys that a row sees, its own included: here the row is the prompt's last.

    It keeps its own key first, which kvpress may drop.
    """
    theirs = kept_by_kvpress(case, kvpress.KeyDiffPress(compression_ratio=ratio))
    for (layer, head), rows in case.rows.items():
        last = replace(rows, position_R=torch.tensor([PROMPT - 1]))
        kept = theirs[layer, head // (HEADS // KV_HEADS)] - {PROMPT - 1}
        order_RN, _ = order(KeyDiff(), last)
        assert set(order_RN[0, 1 : len(kept) + 1].tolist()) == kept


def kept_by_leverage(key_GND, sketch, ratio):
    """Return what kvpress keeps of keys that it takes for those before rotary embedding."""
    groups, keys, width = key_GND.shape
    module = torch.nn.Module()
    module.head_dim, module.k_proj = width, torch.nn.Identity()
    hidden_1NM = key_GND.transpose(0, 1).reshape(1, keys, groups * width)
    press = kvpress.LeverageScorePress(compression_ratio=ratio, sketch_dimension=sketch)
    kept_1GKD, _ = press.compress(module, hidden_1NM, key_GND[None], key_GND[None], None, {})
    return [places(kept_KD, key_ND) for kept_KD, key_ND in zip(kept_1GKD[0], key_GND, strict=True)]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("seed", [0, 1])
def test_leverage_of_centred_keys(seed, ratio):
    """kvpress (arXiv 2507.08143) takes keys before rotary embedding, less their mean, through a random sketch, with a
    ridge of 0.01; ours (arXiv 2410.05462) takes the keys as they are attended to, exactly.

    A square sketch is an invertible map, which changes no leverage; large keys make the ridge nothing. The row is the
    last of the prompt, so that it sees the same keys, and its own key stands out, so that both keep it. Keys of a mean
    other than zero have other leverage, so that the centring matters.
    """
    generator = torch.manual_seed(seed)
    key_GND = 100 * torch.randn(KV_HEADS, PROMPT, 8, generator=generator)
    key_GND[:, -1] *= 5
    key_GND -= key_GND.mean(1, keepdim=True)
    shifted_GND = key_GND + 300
    centred, shifted = (kept_by_leverage(keys, 8, ratio) for keys in (key_GND, shifted_GND))
    for group in range(KV_HEADS):
        assert centred[group] == kept_by_lev_attention(key_GND[group], len(centred[group]))
        assert shifted[group] == centred[group]
        assert shifted[group] != kept_by_lev_attention(shifted_GND[group], len(centred[group]))


def kept_by_lev_attention(key_ND, count):
    last = len(key_ND) - 1
    asked_RD = key_ND[:1] / 1e6
    rows = Rows(0, torch.tensor([0]), 0, "plain", last + 1, torch.tensor([last]), asked_RD, key_ND, key_ND, scale=1.0)
    order_RN, _ = order(LevAttention(), rows)
    return set(order_RN[0, :count].tolist())
