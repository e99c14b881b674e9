"""How many keys the rows of a loaded causal model see, by the masks that it makes itself.

Shape letters: N context lengths, K keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from experiments.errors import UserError
from experiments.models.probe import forward
from experiments.models.windowed import densely
from experiments.windows import Visible

NAME = "masks_watched"
MOST_LENGTHS = 512  # compared, spread over the context
WHOLE = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
BLOCK = 64  # lengths whose masks are evaluated at once


def check_seen(model: Any, token_N: Tensor, seen_keys: Visible) -> None:
    """Raise UserError unless rows see as many keys, on average over heads, as `seen_keys` says of the configuration.

    Windows of equal cost are solved for with the latter, before any weight is loaded.

    Parameters
    ----------
    token_N
        The longest context that is read.
    """
    n_N = np.unique(np.linspace(1, len(token_N), MOST_LENGTHS).round().astype(int))
    expected_KN, heads_K = seen_keys(n_N.astype(float))
    expected_N = np.average(expected_KN, axis=0, weights=heads_K)
    measured_N = _by_masks(model, n_N)
    if measured_N is None:
        with densely(model, len(token_N)) as kept:
            forward(model, token_N)
        measured_N = kept.mean()[n_N - 1]
    if (differs := np.abs(measured_N - expected_N) > 1e-3).any():
        first = int(differs.argmax())
        raise UserError(
            f"{type(model).__name__}: a row of context length {n_N[first]} sees {measured_N[first]:g} keys on average "
            f"over heads, but its config.json says {expected_N[first]:g} (sliding_window, layer_types), so that no "
            "windows of equal cost are known; correct its config.json"
        )


def _by_masks(model: Any, n_N: np.ndarray) -> np.ndarray | None:
    """Return the keys that the last row of n keys sees, on average over heads [N]; None if its masks do not say.

    Two tokens are read. transformers makes a mask from a function of positions, which is then evaluated at all n.
    """
    functions: dict[int, tuple[Tensor, Callable[..., Tensor]]] = {}
    layers: list[tuple[int, Tensor | None]] = []

    def make_mask(*, mask_function: Callable[..., Tensor], **rest: Any) -> Tensor:
        mask = sdpa_mask(mask_function=mask_function, **(rest | WHOLE))
        functions[id(mask)] = (mask, mask_function)  # with the mask, so that no other gets its id
        return mask

    def attend(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
    ) -> tuple[Tensor, None]:
        layers.append((query.shape[1], attention_mask))
        return value.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3]), None

    before = model.config._attn_implementation
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, make_mask)
    model.set_attn_implementation(NAME)
    try:
        forward(model, torch.zeros(2, dtype=torch.long))
    finally:
        model.set_attn_implementation(before)
    if any(mask is not None and id(mask) not in functions for _, mask in layers):
        return None
    try:
        counts = {key: _counts(function, n_N, mask.device) for key, (mask, function) in functions.items()}
    except IndexError:  # a function that looks its tokens up, of which there are two
        return None
    return np.average(
        [n_N if mask is None else counts[id(mask)] for _, mask in layers],
        axis=0,
        weights=[heads for heads, _ in layers],
    )


def _counts(function: Callable[..., Tensor], n_N: np.ndarray, device: torch.device) -> np.ndarray:
    """Return how many of its n keys the query at position n - 1 sees, by the function of a mask [N]."""
    zero, key_K = torch.zeros((), dtype=torch.long, device=device), torch.arange(n_N[-1], device=device)
    counts = []
    for start in range(0, len(n_N), BLOCK):
        position_N1 = torch.tensor(n_N[start : start + BLOCK] - 1, device=device)[:, None]
        visible_NK = function(zero, zero, position_N1, key_K[None]).expand(len(position_N1), len(key_K))
        counts.append(visible_NK.sum(-1).cpu().numpy())
    return np.concatenate(counts)
