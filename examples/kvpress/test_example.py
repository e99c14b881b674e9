"""The example on a tiny model with random weights."""

import json
from statistics import fmean

import pytest
import torch
from kvpress import SnapKVPress
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from examples.kvpress.compare import main, measure, presses
from examples.kvpress.decode import keys_kept, losses_on, pressed_cache
from examples.kvpress.ratios import head_ratios, layer_ratios, scale_to
from experiments.errors import UserError
from experiments.models.locate import locate
from experiments.models.loss import token_losses
from experiments.windows.head_laws import FORMAT
from tests.models import small

LENGTH, MORE = 100, 12
LAWS = [(0, 2.0, 0.5), (0, 1.0, 0.0), (1, 8.0, 0.5), (1, 3.0, 1.0), (2, 4.0, 0.5), (2, 2.0, 0.5)]
BUDGET = {
    "label": "tiny",
    "supported_length": 400,
    "heads": [{"layer": layer, "head": i % 2, "alpha": alpha, "C": c} for i, (layer, alpha, c) in enumerate(LAWS)],
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=6, num_key_value_heads=2)).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False).mul_(3.0)  # random initial weights give nearly uniform rows; these have peaks
    return model


@pytest.fixture(scope="module")
def token_N():
    return torch.randint(64, (LENGTH + MORE + 1,), generator=torch.manual_seed(1))


def test_ratio_of_a_layer_is_of_the_mean_window_of_its_heads():
    # sqrt(100) = 10: windows 20 and 1, 80 and all 100 (not 300), 40 and 20
    assert layer_ratios(BUDGET, 100) == pytest.approx([1 - 0.105, 1 - 0.9, 1 - 0.3])
    # sqrt(400) = 20: windows 40 and 1, 160 and 400, 80 and 40
    assert layer_ratios(BUDGET, 400) == pytest.approx([1 - 41 / 800, 1 - 560 / 800, 1 - 120 / 800])


def test_ratio_of_a_kv_head_is_of_its_most_demanding_head():
    shared, own = BUDGET | {"heads_per_kv_head": [2, 2, 2]}, BUDGET | {"heads_per_kv_head": [1, 1, 1]}
    assert head_ratios(shared, 100) == [pytest.approx([1 - share]) for share in (0.2, 1.0, 0.4)]
    assert head_ratios(own, 100) == [pytest.approx(r) for r in ([0.8, 0.99], [0.2, 0.0], [0.6, 0.8])]


def test_ratios_of_kv_heads_need_to_know_who_shares_one():
    with pytest.raises(UserError, match="which heads share a KV head"):
        head_ratios(BUDGET, 100)


def test_keys_at_lengths_are_linear_between_them():
    heads = [
        {"layer": layer, "head": head, "keys": [{"length": 50, "k": 10.0}, {"length": 150, "k": 30.0 + layer}]}
        for layer in range(3)
        for head in range(2)
    ]
    ratios = layer_ratios(BUDGET | {"heads": heads}, 100)
    assert ratios == pytest.approx([1 - (20 + layer / 2) / 100 for layer in range(3)])


def test_a_prompt_longer_than_the_budget_supports_is_refused():
    with pytest.raises(UserError, match=r"401.* up to 400"):
        layer_ratios(BUDGET, 401)


def test_a_layer_that_does_not_see_the_whole_prompt_is_refused():
    heads = [line | ({"sees": 150} if line["layer"] == 1 else {}) for line in BUDGET["heads"]]
    assert layer_ratios(BUDGET | {"heads": heads}, 100) == layer_ratios(BUDGET, 100)
    with pytest.raises(UserError, match="layer 1 of tiny"):
        layer_ratios(BUDGET | {"heads": heads}, 200)


def test_a_budget_of_some_layers_is_refused():
    with pytest.raises(UserError, match="some layers"):
        layer_ratios(BUDGET | {"heads": BUDGET["heads"][2:]}, 100)


def test_all_windows_are_scaled_by_one_factor_within_one_key_and_all():
    ratios = [0.9, 0.6, 0.2]
    assert scale_to(ratios, fmean(ratios), 100) == pytest.approx(ratios)
    assert scale_to(ratios, 1 - 0.65 / 3, 100) == pytest.approx([0.95, 0.8, 0.6])
    assert scale_to(ratios, 1 - 2 / 3, 100) == pytest.approx([0.8, 0.2, 0.0])
    assert scale_to(ratios, 1 - 0.14 / 3, 100, fewest=2) == pytest.approx([0.98, 0.96, 0.92])
    assert scale_to([0.999, 0.5], 0.855, 100) == pytest.approx([0.99, 0.72])
    assert scale_to(ratios, 0.0, 100) == [0.0, 0.0, 0.0]
    with pytest.raises(UserError, match="between 5 and 100"):
        scale_to(ratios, 0.96, 100, fewest=5)


def test_both_presses_keep_as_many_keys_on_average(model, token_N):
    ratios = scale_to(layer_ratios(BUDGET, LENGTH), 0.7, LENGTH, fewest=9)
    pressed = presses(ratios, observed=8)
    law, one = (keys_kept(pressed_cache(model, token_N[:LENGTH], press)) for press in pressed.values())
    # kvpress rounds every layer down to whole keys.
    assert all(0 <= (1 - ratio) * LENGTH - kept < 1 for ratio, kept in zip(ratios, law, strict=True))
    assert len(set(law)) == 3
    assert set(one) == {30}
    assert abs(fmean(law) - fmean(one)) < 1


def test_a_ratio_of_nothing_is_dense(model, token_N):
    dense_N = token_losses(model, token_N)[LENGTH:]
    for press in [None, SnapKVPress(0.0), *presses([0.0] * 3, observed=8).values()]:
        cache = pressed_cache(model, token_N[:LENGTH], press)
        assert keys_kept(cache) == [LENGTH] * 3
        assert torch.allclose(losses_on(model, cache, token_N[LENGTH:], LENGTH), dense_N, atol=1e-4)


@pytest.mark.parametrize("name", ["ratio per layer", "one ratio"])
def test_one_pass_is_decoding_token_by_token(model, token_N, name):
    """Token by token transformers needs no mask, so that its own attention is right on layers of any length."""
    press = presses([0.9, 0.2, 0.6], observed=8)[name]
    cache = pressed_cache(model, token_N[:LENGTH], press)
    expected = []
    for position in range(LENGTH, LENGTH + MORE):
        with torch.inference_mode():
            asked = {"position_ids": torch.tensor([[position]]), "past_key_values": cache}
            logits_C = model(input_ids=token_N[None, position : position + 1], **asked).logits[0, -1]
        expected.append(-logits_C.log_softmax(-1)[token_N[position + 1]])
    cache = pressed_cache(model, token_N[:LENGTH], press)
    losses_N = losses_on(model, cache, token_N[LENGTH:], LENGTH)
    assert torch.allclose(losses_N, torch.stack(expected), atol=1e-4)
    dense_N = losses_on(model, pressed_cache(model, token_N[:LENGTH], None), token_N[LENGTH:], LENGTH)
    assert (losses_N - dense_N).abs().max() > 1e-2


def test_positions_go_on_where_the_prompt_ended(model, token_N):
    """Without them, transformers would count from the number of keys that are left."""
    cache = pressed_cache(model, token_N[:LENGTH], SnapKVPress(0.5, window_size=8))
    right_N = losses_on(model, cache, token_N[LENGTH:], LENGTH)
    cache = pressed_cache(model, token_N[:LENGTH], SnapKVPress(0.5, window_size=8))
    assert isinstance(cache, DynamicCache)
    wrong_N = losses_on(model, cache, token_N[LENGTH:], cache.get_seq_length())
    assert (right_N - wrong_N).abs().max() > 1e-2


def test_every_sample_is_measured(model, token_N):
    losses, kept = measure(model, [token_N, token_N.flip(0)], LENGTH, None)
    assert losses[0] == pytest.approx(float(token_losses(model, token_N)[LENGTH:].mean()), abs=1e-4)
    assert losses[1] != losses[0]
    assert kept == [LENGTH] * 6


@pytest.fixture(scope="module")
def measured_model(tmp_path_factory):
    """Return a folder with a small model, a text and a budget of it, whose KV heads have keys of their own."""
    folder = tmp_path_factory.mktemp("model")
    small.save("llama", folder / "model", head_dim=64)
    (folder / "text.txt").write_text(small.text())
    keys_LH = [[20, 20, 40, 40], [16, 16, 24, 24], [48, 48, 32, 32]]
    heads = [
        {"layer": layer, "head": head, "keys": [{"length": 64, "k": k}]}
        for layer, keys_H in enumerate(keys_LH)
        for head, k in enumerate(keys_H)
    ]
    content = {
        "format": FORMAT,
        "label": "small",
        "model": locate(str(folder / "model")).sha256(),
        "supported_length": 64,
    }
    content |= {"heads": heads, "heads_per_kv_head": [2, 2, 2], "pooled": {"alpha": 30.0, "C": 0.0}}
    (folder / "budget.json").write_text(json.dumps(content | {"tolerance": None, "cost": 30.0, "by": "gains"}))
    return folder


@pytest.mark.parametrize(
    ("per", "name", "fewest", "most"),
    [("layer", "ratio per layer", 20, 40), ("kv_head", "ratio per KV head", 16, 48)],
)
def test_a_budget_is_compared_with_one_ratio_of_equal_bytes(measured_model, capsys, tmp_path, per, name, fewest, most):
    place = ["--budget", f"{measured_model}/budget.json", "--model", f"{measured_model}/model"]
    sizes = ["--length", "64", "--tokens", "2", "--samples", "2", "--observed", "8", "--factors", "1"]
    how = ["--per", per, "--record", f"{tmp_path}/new/one.json"]
    assert main([*place, "--text", f"{measured_model}/text.txt", *sizes, *how]) == 0
    own, one, difference = capsys.readouterr().out.splitlines()[-3:]
    *kept, own_lost = own.split(name)[1].split()[:4]
    assert kept == ["30.0", f"{fewest}", f"{most}"]
    *kept, one_lost = one.split("one ratio")[1].split()[:4]
    assert kept == ["30.0", "30", "30"]
    gained = float(difference.split("difference")[1].split()[0])
    assert gained == pytest.approx(float(own_lost) - float(one_lost), abs=0.0016)  # of three rounded numbers
    assert gained != 0
    record = json.loads((tmp_path / "new" / "one.json").read_text())
    assert [way["press"] for way in record["ways"]] == [name, "one ratio"]
    assert [way["keys"] for way in record["ways"]] == [30, 30]
    assert record["per"] == per
    dense, of_own, of_one = record["dense"], *(way["losses"] for way in record["ways"])
    assert fmean(of_own) - fmean(dense) == pytest.approx(float(own_lost), abs=0.0006)
    assert fmean(of_own) - fmean(of_one) == pytest.approx(gained, abs=0.0006)


def test_a_missing_budget_is_one_line(capsys):
    assert main(["--budget", "none.json"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
