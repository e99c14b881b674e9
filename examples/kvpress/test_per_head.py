"""kvpress keeps in each KV head what it is told to, on a tiny model with random weights."""

import pytest
import torch
from kvpress import PerLayerCompressionPress, SnapKVPress, attention_patch
from transformers import LlamaConfig, LlamaForCausalLM

from examples.kvpress.compare import presses
from examples.kvpress.decode import losses_on, pressed_cache, states_on
from examples.kvpress.per_head import PerHeadCompressionPress, keys_per_head
from experiments.errors import UserError
from experiments.models.loss import losses_of_states, token_losses
from experiments.models.probe import intercept

LENGTH, MORE, OBSERVED = 128, 12, 8
LAYERS, HEADS, KV_HEADS = 3, 6, 2
KEYS = [[21, 99], [128, 13], [60, 61]]  # of each KV head, by layer; a length of 2^7 makes ratios of keys exact
RATIOS = [[1 - keys / LENGTH for keys in layer] for layer in KEYS]


def tiny(head_dim, kv_heads=KV_HEADS, **options):
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": LAYERS, **options}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": kv_heads, "head_dim": head_dim}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads)).eval().double()
    for parameter in model.parameters():
        parameter.requires_grad_(False).mul_(3.0)  # random initial weights give nearly uniform rows; these have peaks
    return model


@pytest.fixture(scope="module")
def model():
    return tiny(head_dim=48)


@pytest.fixture(scope="module")
def token_N():
    return torch.randint(64, (LENGTH + MORE + 1,), generator=torch.manual_seed(1))


def per_head(ratios):
    return PerHeadCompressionPress(SnapKVPress(window_size=OBSERVED), ratios)


def states_of(model, token_N, press):
    """Return the states of the tokens after a prompt, decoded one by one: kvpress masks a few queries best."""
    cache = pressed_cache(model, token_N[:LENGTH], press)
    return torch.cat([states_on(model, cache, token_N[at : at + 1], at) for at in range(LENGTH, LENGTH + MORE)])


def check_same(model, token_N, *presses):
    """Check that the tokens after a prompt have the same states and losses by both presses, and others than densely."""
    one_NW, other_NW, dense_NW = (states_of(model, token_N, press) for press in (*presses, None))
    torch.testing.assert_close(one_NW, other_NW, rtol=1e-9, atol=1e-9)
    losses = [losses_of_states(model, state_NW, token_N[LENGTH:])[0] for state_NW in (one_NW, other_NW, dense_NW)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=1e-6)  # of logits in float32
    assert (losses[0] - losses[2]).abs().max() > 1e-2


def test_each_kv_head_keeps_the_keys_asked(model, token_N):
    cache = pressed_cache(model, token_N[:LENGTH], per_head(RATIOS))
    assert keys_per_head(model, cache) == KEYS
    assert [layer.keys.shape[2] for layer in cache.layers] == [LENGTH] * LAYERS  # kvpress frees no memory


def test_ratios_are_rounded_down_to_whole_keys(model, token_N):
    length, ratios = 100, [[0.501, 0.5], [0.0, 0.889], [0.25, 0.995]]
    cache = pressed_cache(model, token_N[:length], per_head(ratios))
    assert keys_per_head(model, cache) == [[49, 50], [100, 11], [75, 1]]


@pytest.mark.parametrize("ratio", [0.25, 0.9])
def test_equal_ratios_are_the_plain_press(model, token_N, ratio):
    """There the cache is cut and read by an attention of ours; here it is whole, and read by kvpress's."""
    check_same(model, token_N, SnapKVPress(ratio, window_size=OBSERVED), per_head([[ratio] * KV_HEADS] * LAYERS))


def test_ratios_of_layers_are_the_press_per_layer(model, token_N):
    ratios = [0.9, 0.25, 0.5]
    by_layer = PerLayerCompressionPress(SnapKVPress(window_size=OBSERVED), ratios)
    check_same(model, token_N, by_layer, per_head([[ratio] * KV_HEADS for ratio in ratios]))


def test_a_ratio_of_nothing_is_dense(model, token_N):
    pressed_cache(model, token_N[:LENGTH], per_head(RATIOS))  # what was masked before is forgotten
    cache = pressed_cache(model, token_N[:LENGTH], per_head([[0.0] * KV_HEADS] * LAYERS))
    assert keys_per_head(model, cache) == [[LENGTH] * KV_HEADS] * LAYERS
    dense_N = token_losses(model, token_N)[LENGTH:]
    torch.testing.assert_close(losses_on(model, cache, token_N[LENGTH:], LENGTH), dense_N, rtol=1e-5, atol=1e-5)


def test_masked_keys_are_not_attended(model, token_N):
    """Beside a forward pass in which the rows after the prompt attend to lists of keys, head by head."""
    pressed_cache(model, token_N[:LENGTH], per_head(RATIOS))
    masked = [
        [set(where[2][where[1] == head].tolist()) if where else set() for head in range(KV_HEADS)]
        for where in (layer.self_attn.masked_key_indices for layer in model.model.layers)
    ]
    assert len({frozenset(keys) for layer in masked for keys in layer}) == 6  # each KV head keeps keys of its own
    state_NW = states_of(model, token_N, per_head(RATIOS))

    def attend(attention):
        output_HNV = torch.empty_like(attention.query_HND)
        for head, query_ND in enumerate(attention.query_HND):
            kv_head = head // (HEADS // KV_HEADS)
            gone = masked[attention.layer][kv_head]
            for position, query_D in enumerate(query_ND):
                kept = [key for key in range(position + 1) if position < LENGTH or key not in gone]
                row_K = (attention.key_GND[kv_head, kept] @ query_D * attention.scale).softmax(0)
                output_HNV[head, position] = row_K @ attention.value_GNV[kv_head, kept]
        return output_HNV

    with torch.inference_mode(), intercept(model, attend):
        brute_NW = model.model(input_ids=token_N[None, :-1]).last_hidden_state[0, LENGTH:]
    torch.testing.assert_close(state_NW, brute_NW, rtol=1e-9, atol=1e-9)
    dense_NW = model.model(input_ids=token_N[None, :-1]).last_hidden_state[0, LENGTH:]
    assert (state_NW - dense_NW).abs().max() > 1e-2


@pytest.mark.parametrize("head_dim", [16, 48, 128])
def test_passes_are_as_many_as_kvpress_can_mask_in(token_N, head_dim):
    """36 queries in 16 dimensions leave no key alone; in 128 dimensions kvpress finds one whose logit is -7."""
    model = tiny(head_dim)
    ratios = [[0.9] * KV_HEADS] * LAYERS
    cache = pressed_cache(model, token_N[:LENGTH], per_head(ratios))
    state_NW = states_on(model, cache, token_N[LENGTH:-1], LENGTH)
    assert [layer.keys.shape[2] for layer in cache.layers] == [LENGTH + MORE] * LAYERS
    torch.testing.assert_close(state_NW, states_of(model, token_N, per_head(ratios)), rtol=1e-9, atol=1e-9)
    assert attention_patch.search_hyperplane.__name__ == "search_hyperplane"  # kvpress's own is back


def test_masked_keys_that_would_be_attended_are_refused(token_N):
    """Six queries of one token in two dimensions point everywhere."""
    model = tiny(head_dim=2, kv_heads=1)
    cache = pressed_cache(model, token_N[:LENGTH], per_head([[0.9]] * LAYERS))
    with pytest.raises(UserError, match="no key that 6 queries leave alone"):
        losses_on(model, cache, token_N[LENGTH:], LENGTH)


@pytest.mark.parametrize("own_logit", [0, -1000])
def test_a_masked_key_is_far_below_a_querys_own_key_whatever_that_is(token_N, monkeypatch, own_logit):
    """Biases of queries and keys move all logits of a row alike: a logit of -150 may be the largest of them."""
    model, search = tiny(head_dim=48, attention_bias=True), attention_patch.search_hyperplane
    for layer in model.model.layers:
        for linear, sign in ((layer.self_attn.q_proj, 1), (layer.self_attn.k_proj, -1)):
            linear.bias.zero_().view(-1, 48)[:, 23] = sign * (-own_logit * 48**0.5) ** 0.5  # which turns most slowly

    def near(query_GND):
        key_GD = search(query_GND)
        return key_GD * (-150 * 48**0.5 / (query_GND @ key_GD[:, :, None]).amax(1))

    monkeypatch.setattr(attention_patch, "search_hyperplane", near)
    cache = pressed_cache(model, token_N[:LENGTH], per_head(RATIOS))
    if own_logit:
        with pytest.raises(UserError, match=r"less that of a query's own key is 8[0-9][0-9]"):
            states_on(model, cache, token_N[LENGTH : LENGTH + 1], LENGTH)
    else:
        state_NW = states_on(model, cache, token_N[LENGTH : LENGTH + 1], LENGTH)
        monkeypatch.undo()
        expected_NW = states_of(model, token_N, per_head(RATIOS))[:1]
        torch.testing.assert_close(state_NW, expected_NW, rtol=1e-9, atol=1e-9)


def test_eager_attention_is_refused(token_N):
    model = tiny(head_dim=8)
    model.set_attn_implementation("eager")
    with pytest.raises(UserError, match="eager"):
        pressed_cache(model, token_N[:LENGTH], per_head(RATIOS))


def test_presses_by_kv_head_cost_as_much(model, token_N):
    ratios = [ratio for layer in RATIOS for ratio in layer]
    own, one = presses(ratios, OBSERVED, LAYERS).values()
    assert keys_per_head(model, pressed_cache(model, token_N[:LENGTH], own)) == KEYS
    mean = int(sum(keys for layer in KEYS for keys in layer) / 6)
    assert keys_per_head(model, pressed_cache(model, token_N[:LENGTH], one)) == [[mean] * KV_HEADS] * LAYERS
