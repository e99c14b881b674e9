"""Masks of the query and key weights of one attention layer, by what keeps its rows (arXiv 2410.11261).

The paper chooses the mask M of W = W_Q W_K^T by descent on 1/2 |softmax(X W X^T) - softmax(X (M o W) X^T)|_F^2 +
lambda/2 |M|^2. Rotary embedding stands between W_Q and W_K^T, so that the two are masked apart here, and the gradient
runs through the layer's own forward pass: whatever it does to queries and keys, no architecture's code is repeated.

Shape letters: H query heads, N tokens, D head dimension, V value dimension, O output channels, I input channels,
X groups of weights, Y weights of a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from experiments.cache import softmax
from experiments.errors import UserError
from experiments.models.probe import Attention, body, forward, intercept, logits_of, watch
from experiments.models.shape import skeleton
from experiments.tables.pruning import GRADIENT, HEAD_SALIENCY, MAGNITUDE, WANDA

BY_CHANNEL = (MAGNITUDE, WANDA)  # compared within each output channel, as Wanda's authors do
# Compared within each head. Over the whole matrix a head whose rows all lie on one key loses nearly every weight: where
# the softmax is saturated its derivatives are 0, whatever the weights hold up.
BY_HEAD = (HEAD_SALIENCY,)
RATE = 0.02  # of Adam


class Pair(NamedTuple):
    """Something of W_Q and W_K each [O, I]: weights, scores or masks."""

    query_OI: Tensor
    key_OI: Tensor


@dataclass(frozen=True)
class LayerInput:
    """An attention layer with what it was given while the model read some tokens.

    Attributes
    ----------
    model, module
        The model, and the layer's attention.
    args, kwargs
        What its `forward` was called with.
    norm
        L2 norms over the tokens of the input channels of W_Q and W_K [I].
    heads
        Numbers of query heads and of KV heads.
    """

    model: Any
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    norm: tuple[Tensor, Tensor]
    heads: tuple[int, int]

    @property
    def weights(self) -> Pair:
        """W_Q and W_K as they are."""
        return weights_of(self.module)

    def attend(self, weights: Pair) -> Attention:
        """Return what the layer attends to by other weights, with their gradients."""
        seen: list[Attention] = []

        def look(attention: Attention) -> Tensor:
            seen.append(attention)
            heads, tokens = attention.query_HND.shape[:2]
            return attention.value_GNV.new_zeros(heads, tokens, attention.value_GNV.shape[2])  # nobody reads it

        replaced = {"q_proj.weight": weights.query_OI, "k_proj.weight": weights.key_OI}
        with intercept(self.model, look):
            functional_call(self.module, replaced, self.args, self.kwargs)
        return seen[0]

    def rows(self, weights: Pair) -> Tensor:
        """Return the layer's rows [H, N, N] by other weights, with their gradients."""
        return rows_of(self.attend(weights))


def rows_of(attention: Attention) -> Tensor:
    """Return all rows of a layer [H, N, N]."""
    groups, tokens = attention.key_GND.shape[:2]
    logits_HNN = torch.cat([logits_of(attention, kv_head, 0, tokens) for kv_head in range(groups)])
    return softmax(logits_HNN, None if attention.sink_H is None else attention.sink_H[:, None])


def weights_of(module: nn.Module) -> Pair:
    """Return W_Q and W_K of an attention module, without gradients."""
    query, key = _projections(module)
    return Pair(query.weight.detach(), key.weight.detach())


def check_prunable(label: str, config: Any) -> None:
    """Raise UserError unless every layer of a configuration's model has W_Q and W_K each as a matrix of its own."""
    _modules(label, skeleton(config), config)


def attention_modules(model: Any) -> list[nn.Module]:
    """Return the attention of every layer of a loaded model; refuse what `check_prunable` refuses."""
    return _modules(type(model).__name__, body(model), model.config.get_text_config())


def _modules(label: str, model: nn.Module, config: Any) -> list[nn.Module]:
    modules = [part for part in model.modules() if all(isinstance(own, nn.Linear) for own in _projections(part))]
    if len(modules) != config.num_hidden_layers:
        raise UserError(
            f"{label}, of type {config.model_type}: not every attention layer has linear layers q_proj and k_proj of "
            "its own, which runner=pruning prunes; fused weights are not pruned"
        )
    return modules


def _projections(module: nn.Module) -> tuple[Any, Any]:
    return getattr(module, "q_proj", None), getattr(module, "k_proj", None)


def layer_inputs(model: Any, token_N: Tensor, layers: list[int]) -> dict[int, LayerInput]:
    """Let a model read tokens, and return what the attention of some layers was given, by their indices."""
    modules = attention_modules(model)
    called: dict[int, tuple[Any, Any]] = {}
    norms: dict[tuple[int, int], Tensor] = {}
    heads: dict[int, tuple[int, int]] = {}

    def count_heads(attention: Attention) -> None:
        heads[attention.layer] = len(attention.query_HND), len(attention.key_GND)

    def keep_arguments(layer: int, module: nn.Module, args: Any, kwargs: Any) -> None:
        with torch.inference_mode(False):  # a tensor that was made there has no gradients
            called[layer] = tree_map(
                lambda value: value.clone() if isinstance(value, Tensor) else value, (args, kwargs)
            )

    def keep_norm(layer: int, which: int, module: nn.Module, args: Any) -> None:
        with torch.inference_mode(False):
            norms[layer, which] = args[0].clone().flatten(0, -2).double().norm(dim=0)

    hooks = []
    for layer in layers:
        hooks.append(modules[layer].register_forward_pre_hook(partial(keep_arguments, layer), with_kwargs=True))
        for which, linear in enumerate(_projections(modules[layer])):
            hooks.append(linear.register_forward_pre_hook(partial(keep_norm, layer, which)))
    try:
        with watch(model, count_heads):
            forward(model, token_N)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        layer: LayerInput(model, modules[layer], *called[layer], (norms[layer, 0], norms[layer, 1]), heads[layer])
        for layer in layers
    }


def scores(
    criterion: str, layer: LayerInput, *, steps: int, penalty: float, probes: int, generator: torch.Generator
) -> Pair:
    """Return how much each weight matters, by one of `tables.pruning.CRITERIA`, on the tokens that the layer was given.

    Parameters
    ----------
    steps, penalty
        Of the descent of `gradient`: its number of steps and lambda.
    probes
        Combinations of attention entries of both saliencies; their signs are drawn from `generator`.
    """
    weights = layer.weights
    if criterion == MAGNITUDE:
        return Pair(*(weight_OI.abs() for weight_OI in weights))
    if criterion == WANDA:
        return wanda(layer)
    if criterion == GRADIENT:
        return descend(layer, steps, penalty)
    gradients = mean_squared_gradients(layer, probes, generator)
    return Pair(*(weight.double() ** 2 * squared for weight, squared in zip(weights, gradients, strict=True)))


def wanda(layer: LayerInput) -> Pair:
    """Return |W_ij| |X_j|, by which Wanda keeps the layer's linear output (arXiv 2306.11695)."""
    return Pair(*(weight.abs() * norm_I for weight, norm_I in zip(layer.weights, layer.norm, strict=True)))


def mean_squared_gradients(layer: LayerInput, probes: int, generator: torch.Generator) -> Pair:
    """Return the mean squared gradients by W_Q and W_K of random +-1 combinations of the layer's attention entries.

    Its expectation is the diagonal of J^T J, J the derivatives of all entries: the Gauss-Newton form through the
    softmax. 1/2 W_ij^2 times it is what the squared error of the rows grows by, to second order, if W_ij alone goes.
    """
    weights = Pair(*(weight.clone().requires_grad_() for weight in layer.weights))
    row_HNN = layer.rows(weights)
    total = Pair(*(torch.zeros_like(weight, dtype=torch.float64) for weight in weights))
    for _ in range(probes):
        sign_HNN = 2 * torch.randint(2, row_HNN.shape, generator=generator).to(row_HNN) - 1
        for sum_OI, gradient in zip(
            total, torch.autograd.grad(row_HNN, weights, sign_HNN, retain_graph=True), strict=True
        ):
            sum_OI += gradient.double() ** 2 / probes
    return total


def descend(layer: LayerInput, steps: int, penalty: float) -> Pair:
    """Return soft masks in [0, 1] after `steps` of Adam from 1 on the loss of `loss_of_masks` (arXiv 2410.11261).

    A weight that never acts, which only the penalty moves, comes to 0 after some 85 steps, whatever the penalty.
    """
    row_HNN = layer.rows(layer.weights).detach()
    masks = Pair(*(torch.ones_like(_exact(weight)).requires_grad_() for weight in layer.weights))
    adam = torch.optim.Adam(masks, lr=RATE)
    for _ in range(steps):
        adam.zero_grad()
        loss_of_masks(layer, row_HNN, masks, penalty).backward(inputs=list(masks))
        adam.step()
        with torch.no_grad():
            for mask in masks:
                mask.clamp_(0, 1)
    return Pair(*(mask.detach() for mask in masks))


def loss_of_masks(layer: LayerInput, row_HNN: Tensor, masks: Pair, penalty: float) -> Tensor:
    """Return 1/2 |rows - rows of the masked layer|_F^2 + penalty / 2 |M|^2, both masks together."""
    error = ((layer.rows(masked(layer.weights, masks)) - row_HNN) ** 2).sum()
    return (error + penalty * sum((mask**2).sum() for mask in masks)) / 2


def masked(weights: Pair, masks: Pair) -> Pair:
    """Return weights times masks, which may be soft, in the type of the weights."""
    return Pair(*((_exact(weight) * mask).to(weight.dtype) for weight, mask in zip(weights, masks, strict=True)))


def _exact(weight: Tensor) -> Tensor:
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


def keep(criterion: str, layer: LayerInput, score: Pair, share: float) -> Pair:
    """Return masks that keep the given share of W_Q and of W_K, those of the largest scores.

    Scores are compared within each output channel (`magnitude`, `wanda`), within each head (`head_saliency`), or over
    the whole matrix.
    What ties goes by `wanda`: soft masks that lie at 0 or 1 are many.
    """
    masks = []
    for score_OI, tie_OI, heads in zip(score, wanda(layer), layer.heads, strict=True):
        groups = len(score_OI) if criterion in BY_CHANNEL else heads if criterion in BY_HEAD else 1
        masks.append(_largest(score_OI, tie_OI, share, groups))
    return Pair(*masks)


def _largest(score_OI: Tensor, tie_OI: Tensor, share: float, groups: int) -> Tensor:
    """Return which weights are among the largest of their group of consecutive output channels."""
    score_XY, tie_XY = score_OI.reshape(groups, -1), tie_OI.reshape(groups, -1)
    order_XY = tie_XY.argsort(dim=1, descending=True, stable=True)
    order_XY = order_XY.gather(1, score_XY.gather(1, order_XY).argsort(dim=1, descending=True, stable=True))
    count = max(1, round(share * order_XY.shape[1]))
    kept_XY = torch.zeros_like(score_XY, dtype=torch.bool).scatter_(1, order_XY[:, :count], True)
    return kept_XY.view_as(score_OI)


def row_errors(attention: Attention, row_HNN: Tensor, pruned_HNN: Tensor) -> tuple[Tensor, Tensor]:
    """Return what rows lose against the dense ones of a layer, its values kept, per head.

    Returns
    -------
    tuple
        The mean total variation, and the RMS over the rows of the output's error over the RMS of the output [H] each.
    """
    value_HNV = attention.value_GNV.to(row_HNN.dtype).repeat_interleave(len(row_HNN) // len(attention.value_GNV), dim=0)
    output_HNV = row_HNN @ value_HNV
    error_HNV = pruned_HNN @ value_HNV - output_HNV
    tv_H = (pruned_HNN - row_HNN).abs().sum(-1).mean(-1) / 2
    return tv_H, error_HNV.double().flatten(1).norm(dim=1) / output_HNV.double().flatten(1).norm(dim=1)


@contextmanager
def pruned(model: Any, masks: Mapping[int, Pair]) -> Iterator[None]:
    """Let a model read with the weights that masks keep, of some layers; afterwards its weights are as before."""
    modules = attention_modules(model)
    before = {layer: Pair(*(weight.clone() for weight in weights_of(modules[layer]))) for layer in masks}
    try:
        for layer, kept in masks.items():
            _write(modules[layer], masked(before[layer], kept))
        yield
    finally:
        for layer, weights in before.items():
            _write(modules[layer], weights)


def _write(module: nn.Module, weights: Pair) -> None:
    for there, weight in zip(weights_of(module), weights, strict=True):
        there.copy_(weight)
