"""The loss of each token of a text, given those before it, by the model's own head.

Shape letters: N tokens, W width of the model, C vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers.modeling_outputs import BaseModelOutputWithPast

from experiments.errors import UserError
from experiments.models.probe import body, forward
from experiments.models.replaced import replaced

BLOCK = 256  # tokens whose logits over the vocabulary are held at once
ROWS = 32  # of them, in float64
HEAD_GAP = 0.02  # of the largest logit; half precision rounds by less


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

    Raises
    ------
    UserError
        If a loss is not finite.
    """
    parts = [_judged(model, *stretch, token_N) for stretch in _stretches(model, state_NW, token_N)]
    losses, hits = zip(*parts, strict=True)
    return torch.cat(losses).cpu(), torch.cat(hits).cpu()


def _stretches(model: Any, state_NW: Tensor, token_N: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the logits of all tokens but the last, a stretch at a time, each with the place of its first."""
    for start in range(0, len(token_N) - 1, BLOCK):
        part = slice(start, min(start + BLOCK, len(token_N) - 1))
        yield start, logits_of_states(model, state_NW[part], token_N[part].to(model.device))


def _judged(model: Any, start: int, logits_NC: Tensor, token_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return -ln p of the tokens after a stretch's, and whether each is the most probable one."""
    next_N = token_N[start + 1 : start + 1 + len(logits_NC)].to(logits_NC.device)
    loss_N = cross_entropy(logits_NC, next_N, reduction="none")
    if not bool(loss_N.isfinite().all()):
        bad = start + 1 + int((~loss_N.isfinite()).nonzero()[0])
        raise UserError(
            f"{type(model).__name__}: the loss of token {bad} is not finite in {model.dtype}; give "
            "source.dtype=float32 or bfloat16, or another checkpoint"
        )
    return loss_N, logits_NC.argmax(-1) == next_N


@dataclass(frozen=True)
class Quality:
    """What a pass predicts of tokens 1..N-1, beside a dense pass over the same tokens; each [N - 1].

    Attributes
    ----------
    loss_N
        -ln p of the token, in nats.
    hit_N
        Whether the token is the most probable one.
    agreement_N
        Whether the most probable token is that of the dense pass.
    kl_N
        KL(dense || this pass) of the next token, in nats.
    """

    loss_N: Tensor
    hit_N: Tensor
    agreement_N: Tensor
    kl_N: Tensor


class DensePass:
    """What a model predicts densely, for other passes over the same tokens to be compared with.

    The last hidden states are kept. Logits over the vocabulary are made of them again, a stretch of tokens at a time,
    of which the last is kept: the tokens that are decoded are but one.
    """

    def __init__(self, model: Any, state_NW: Tensor, token_N: Tensor) -> None:
        """Take the model's last hidden states of the tokens, read densely."""
        self._model, self._state_NW, self._token_N = model, state_NW, token_N
        self._kept: tuple[int, Tensor] | None = None

    def itself(self) -> Quality:
        """Return what the dense pass predicts: it agrees with itself."""
        loss_N, hit_N = losses_of_states(self._model, self._state_NW, self._token_N)
        return Quality(loss_N, hit_N, torch.ones_like(hit_N), torch.zeros_like(loss_N))

    def beside(self, state_NW: Tensor) -> Quality:
        """Return what another pass predicts, by its last hidden states.

        Raises
        ------
        UserError
            If a loss is not finite.
        """
        parts: list[tuple[Tensor, ...]] = []
        for start, logits_NC in _stretches(self._model, state_NW, self._token_N):
            dense_NC = self._logits(start, len(logits_NC))
            agreement_N = logits_NC.argmax(-1) == dense_NC.argmax(-1)
            judged = _judged(self._model, start, logits_NC, self._token_N)
            parts.append((*judged, agreement_N, _kl(dense_NC, logits_NC)))
        return Quality(*(torch.cat(part).cpu() for part in zip(*parts, strict=True)))

    def _logits(self, start: int, tokens: int) -> Tensor:
        """Return the dense logits of a stretch [tokens, C]."""
        if self._kept is None or self._kept[0] != start:
            part = slice(start, start + tokens)
            token_N = self._token_N[part].to(self._model.device)
            self._kept = start, logits_of_states(self._model, self._state_NW[part], token_N)
        return self._kept[1]


def _kl(dense_NC: Tensor, other_NC: Tensor) -> Tensor:
    """Return KL(dense || other) of each token in nats [N], from logits.

    In float64, a few rows at a time: it is the small difference of two large sums, which float32 has no digits for.
    """
    rows = zip(dense_NC.split(ROWS), other_NC.split(ROWS), strict=True)
    pairs = ((x.double().log_softmax(-1), y.double().log_softmax(-1)) for x, y in rows)
    return torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in pairs]).clamp_(min=0).float()


def logits_of_states(model: Any, state_NW: Tensor, token_N: Tensor) -> Tensor:
    """Return the logits [N, C] over the vocabulary that the model makes of last hidden states, in float32.

    They are made by the model's own forward pass, with its transform, scale and soft cap.
    """
    with _with_states(model, state_NW), torch.inference_mode():
        return model(input_ids=token_N[None], use_cache=False).logits[0].float()


def check_head(model: Any, token_N: Tensor) -> None:
    """Raise UserError unless `logits_of_states` gives the logits of the model's whole forward pass, tried on tokens."""
    token_N = token_N.to(model.device)
    with torch.inference_mode():
        whole_NC = model(input_ids=token_N[None], use_cache=False).logits[0].float()
    states_NW = forward(model, token_N)[0]
    part = slice(len(token_N) // 3, len(token_N))  # a part: what ignores the states it is given would differ
    part_NC, expected_NC = logits_of_states(model, states_NW[part], token_N[part]), whole_NC[part]
    bound = HEAD_GAP * float(whole_NC.abs().max())
    if part_NC.shape != expected_NC.shape or not float((part_NC - expected_NC).abs().max()) <= bound:
        raise UserError(
            f"{type(model).__name__}: its logits do not follow from its last hidden states alone, so that its losses "
            "cannot be measured; runner=approximation measures its rows"
        )


@contextmanager
def _with_states(model: Any, state_NW: Tensor) -> Iterator[None]:
    """Let the model's body, and its decoder, which some heads call themselves, return these hidden states."""
    # some models call their output layer a decoder
    parts = {body(model), model.get_decoder()} - {model, model.get_output_embeddings()}
    if not parts:
        raise UserError(f"{type(model).__name__}: has no head over a vocabulary, as runners of a language model need")
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(replaced(part, lambda *_, **__: _States(last_hidden_state=state_NW[None])))
        yield


class _States(BaseModelOutputWithPast):
    """Hidden states alone: whatever else a head looks for in its body's output, such as a router's, is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)
