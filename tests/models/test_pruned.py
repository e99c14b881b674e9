"""Masks of query and key weights: what is exact, what goes first, and the gradient through a layer's own forward."""

import pytest
import torch
from torch import nn

from experiments.errors import UserError
from experiments.models.load import load_config, load_model
from experiments.models.locate import locate
from experiments.models.loss import token_losses
from experiments.models.probe import LayerRows, forward, watch
from experiments.models.pruned import (
    Pair,
    check_prunable,
    descend,
    keep,
    layer_inputs,
    loss_of_masks,
    masked,
    mean_squared_gradients,
    pruned,
    row_errors,
    rows_of,
    scores,
)
from experiments.tables.pruning import CRITERIA, MAGNITUDE
from tests.models import small

CPU = torch.device("cpu")
TOKENS = torch.arange(24) * 7 % small.VOCABULARY
HOW = {"steps": 20, "penalty": 1e-3, "probes": 4}
FAMILIES = ["llama", "qwen3", "gemma3", "gemma2", "gpt_oss"]  # norms of queries and keys, windows, a cap, sinks


def load(family, folder, dtype=torch.float32):
    return load_model(locate(str(small.save(family, folder))), dtype, CPU, "AutoModelForCausalLM")


def scored(criterion, layer, **how):
    return scores(criterion, layer, generator=torch.Generator().manual_seed(0), **HOW | how)


@pytest.fixture
def layer(tmp_path):
    return layer_inputs(load("llama", tmp_path, torch.float64), TOKENS, [1])[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_those_that_the_model_has_and_all_weights_are_exact(family, tmp_path):
    model = load(family, tmp_path)
    seen = []
    with watch(model, lambda attention: seen.append(LayerRows.of(attention).row_HRN)):
        forward(model, TOKENS)
    for index, layer in layer_inputs(model, TOKENS, [0, 1, 2]).items():
        torch.testing.assert_close(layer.rows(layer.weights).detach(), seen[index], rtol=0, atol=1e-6)
        attention = layer.attend(layer.weights)
        for criterion in CRITERIA:
            every = keep(criterion, layer, scored(criterion, layer, steps=2), 1.0)
            assert all(mask_OI.all() for mask_OI in every)
            errors = row_errors(attention, rows_of(attention), layer.rows(masked(layer.weights, every)))
            assert all((error_H == 0).all() for error_H in errors)
            few = keep(criterion, layer, scored(criterion, layer, steps=2), 0.3)
            tv_H, error_H = row_errors(attention, rows_of(attention), layer.rows(masked(layer.weights, few)))
            assert ((tv_H > 0) & (tv_H <= 1) & (error_H > 0)).all()


@pytest.mark.parametrize("share", [0.5, 0.3, 0.01])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_share_is_kept_in_the_whole_or_in_each_head_or_output_channel(criterion, share, layer):
    for mask_OI in keep(criterion, layer, scored(criterion, layer, steps=2), share):
        if criterion in ("magnitude", "wanda"):
            assert (mask_OI.sum(1) == max(1, round(share * mask_OI.shape[1]))).all()
        elif criterion == "head_saliency":
            of_head = mask_OI.view(-1, 8, 32)  # head x its channels x input channels
            assert (of_head.sum((1, 2)) == round(share * 8 * 32)).all()
        else:
            assert mask_OI.sum() == round(share * mask_OI.numel())


@pytest.mark.parametrize("criterion", CRITERIA)
def test_input_channels_that_never_act_go_first_but_by_magnitude(criterion, tmp_path):
    model = load("llama", tmp_path, torch.float64)
    dead = torch.tensor([3, 17])
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight[dead] = 0
        for linear in (model.model.layers[1].self_attn.q_proj, model.model.layers[1].self_attn.k_proj):
            linear.weight[:, dead] = 9.0
    layer = layer_inputs(model, TOKENS, [1])[1]
    # of their penalty alone, soft masks come to 0 after some 85 steps
    for mask_OI in keep(criterion, layer, scored(criterion, layer, steps=100), 1 - 2 / 32):
        assert mask_OI[:, dead].all() if criterion == MAGNITUDE else not mask_OI[:, dead].any()


def test_without_a_penalty_all_weights_stay_at_no_loss(layer):
    ones = Pair(*map(torch.ones_like, layer.weights))
    row_HNN = layer.rows(layer.weights).detach()
    assert loss_of_masks(layer, row_HNN, ones, 0.0) == 0
    for mask_OI in descend(layer, 20, 0.0):
        assert (mask_OI == 1).all()
    assert any((mask_OI < 1).any() for mask_OI in descend(layer, 20, 1e-3))


def test_the_gradient_of_the_loss_is_that_of_finite_differences(tmp_path):
    layer = layer_inputs(load("gemma2", tmp_path, torch.float64), TOKENS, [1])[1]  # through the cap of its logits
    draw = torch.Generator().manual_seed(0)
    soft = Pair(*(torch.rand(w.shape, generator=draw, dtype=w.dtype).requires_grad_() for w in layer.weights))
    row_HNN = layer.rows(layer.weights).detach()

    def loss(masks):
        return loss_of_masks(layer, row_HNN, masks, 1e-3)

    gradients = torch.autograd.grad(loss(soft), soft)
    step = 1e-5
    for which in range(2):
        for place in ((0, 0), (5, 9), (15, 31)):
            ends = []
            for sign in (1, -1):
                moved = [mask.detach().clone() for mask in soft]
                moved[which][place] += sign * step
                ends.append(float(loss(Pair(*moved)).detach()))
            assert gradients[which][place].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


def test_the_mean_squared_gradient_is_the_diagonal_of_gauss_newton(layer):
    weights = Pair(*(weight.clone().requires_grad_() for weight in layer.weights))
    row_HNN = layer.rows(weights)
    entry_E = row_HNN[row_HNN > 0]
    (gradient_EOI,) = torch.autograd.grad(entry_E, weights.key_OI, torch.eye(len(entry_E)), is_grads_batched=True)
    exact = (gradient_EOI**2).sum(0)
    drawn = mean_squared_gradients(layer, 400, torch.Generator().manual_seed(0)).key_OI
    assert (drawn.sum() / exact.sum()).item() == pytest.approx(1, abs=0.1)
    assert ((drawn - exact).norm() / exact.norm()).item() < 0.15


def test_a_head_on_one_key_keeps_its_weights_if_heads_are_not_compared(tmp_path):
    model = load("llama", tmp_path, torch.float64)
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[:8] *= 300  # head 0: its softmax is saturated
    layer = layer_inputs(model, TOKENS, [1])[1]
    assert layer.rows(layer.weights)[0].max(-1).values.mean() > 0.999
    kept = {}
    for criterion in ("softmax_saliency", "head_saliency"):
        mask_OI = keep(criterion, layer, scored(criterion, layer), 0.5).query_OI
        kept[criterion] = mask_OI.view(4, -1).double().mean(1)
    assert kept["softmax_saliency"][0] == 0
    assert (kept["head_saliency"] == 0.5).all()


def test_ties_go_by_what_acts(layer):
    same = Pair(*map(torch.ones_like, layer.weights))
    weight_OI, norm_I = layer.weights.query_OI, layer.norm[0]
    mask_OI = keep("gradient", layer, same, 0.5).query_OI
    act_OI = weight_OI.abs() * norm_I
    assert act_OI[mask_OI].min() >= act_OI[~mask_OI].max()


def test_the_model_reads_with_pruned_weights_and_then_as_before(tmp_path):
    model = load("llama", tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    dense = token_losses(model, TOKENS)
    layers = layer_inputs(model, TOKENS, [0, 2])
    masks = {index: keep("wanda", layer, scored("wanda", layer), 0.3) for index, layer in layers.items()}

    def read_and_fail():
        with pruned(model, masks):
            for index in masks:
                weight = model.model.layers[index].self_attn.q_proj.weight
                assert (weight == 0).double().mean() > 0.6
            assert (token_losses(model, TOKENS) - dense).abs().max() > 1e-4
            raise KeyError

    with pytest.raises(KeyError):
        read_and_fail()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(token_losses(model, TOKENS), dense)


def test_half_precision_is_pruned_too(tmp_path):
    layer = layer_inputs(load("llama", tmp_path, torch.bfloat16), TOKENS, [1])[1]
    for criterion in CRITERIA:
        masks = keep(criterion, layer, scored(criterion, layer, steps=2), 0.5)
        weights = masked(layer.weights, masks)
        assert weights.query_OI.dtype == torch.bfloat16
        assert layer.rows(weights).isfinite().all()


@pytest.mark.parametrize("family", ["gpt2", "falcon"])
def test_fused_weights_are_refused_by_name(family, tmp_path):
    checkpoint = locate(str(small.save(family, tmp_path)))
    with pytest.raises(UserError, match=rf"of type {family}: .*q_proj and k_proj") as refusal:
        check_prunable(checkpoint.label, load_config(checkpoint))
    assert "\n" not in str(refusal.value)


def test_a_layer_keeps_no_hook(tmp_path):
    model = load("llama", tmp_path)
    layer_inputs(model, TOKENS, [0])
    assert not any(module._forward_pre_hooks for module in model.modules() if isinstance(module, nn.Module))
