"""The loss of each token of a text, given those before it.

Shape letters: N tokens, C vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from experiments.models.probe import forward

BLOCK = 256  # tokens whose logits over the vocabulary are held at once


def token_losses(model: Any, token_N: Tensor) -> Tensor:
    """Return -ln p of tokens 1..N-1 of a sequence, each given all before it, in nats [N - 1].

    Parameters
    ----------
    model
        A causal language model of transformers, with its output layer.
    """
    return losses_of_states(model, forward(model, token_N)[0], token_N)[0]


def losses_of_states(model: Any, state_NW: Tensor, token_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return -ln p of tokens 1..N-1 in nats, and whether each is the most probable one, [N - 1] each.

    Parameters
    ----------
    state_NW
        The model's last hidden states of the tokens.
    """
    token_N = token_N.to(model.device)
    losses, hits = [], []
    with torch.inference_mode():
        for start in range(0, len(token_N) - 1, BLOCK):
            stop = min(start + BLOCK, len(token_N) - 1)
            logits_NC = model.get_output_embeddings()(state_NW[start:stop]).float()
            losses.append(cross_entropy(logits_NC, token_N[start + 1 : stop + 1], reduction="none"))
            hits.append(logits_NC.argmax(-1) == token_N[start + 1 : stop + 1])
    return torch.cat(losses).cpu(), torch.cat(hits).cpu()
