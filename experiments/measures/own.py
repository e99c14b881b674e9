"""What a method takes rows for: the estimates by which it may size its own windows.

Shape letters: H heads, R rows, N keys, M windows of one rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from experiments.answers import Answer, Subset
from experiments.errors import UserError
from experiments.measures.compute import Compute
from experiments.reference.exact import ETA_SLACK
from experiments.rows import Rows
from experiments.selectors import Answering, Selector
from experiments.windows import Needs, PerLayer, Share, Windows

MOST_SHARED = 1 << 23  # estimates of all heads of a layer that are held at once

OfHead = Callable[[int, int], tuple[Tensor, Tensor]]
"""Maps start, stop to what a method takes for the logarithms of the probabilities of one head's rows there [R, N], and
the keys that they see [R]."""


class OwnRows:
    """Rows as a method estimates them, in the order in which it keeps their keys."""

    def __init__(self, order_RN: Tensor, log_p_RN: Tensor) -> None:
        """Take the order, and logarithms of probabilities in key order; see `experiments.answers.Subset.log_p`."""
        log_RN = log_p_RN.double().gather(1, order_RN)
        certain_RN = torch.isposinf(log_RN)
        self._certain_R = certain_RN.sum(-1)
        log_RN.masked_fill_(certain_RN, -torch.inf)
        self._p_RN = torch.softmax(log_RN, dim=-1).nan_to_num_()  # where all keys are certain nothing is left to weigh

    def k_min(self, eta: float) -> Tensor:
        """Return how many of the first keys leave an estimated mass <= eta, and all that are kept anyway [R] int64."""
        left_RN = self._p_RN.flip(-1).cumsum(-1)  # mass of the last keys of the order
        bound_R1 = left_RN.new_full((len(left_RN), 1), eta * (1 + ETA_SLACK))
        droppable_R = torch.searchsorted(left_RN, bound_R1, right=True).squeeze(-1)
        return (left_RN.shape[1] - droppable_R).maximum(self._certain_R).clamp(min=1)

    def count_above(self, epsilon: float) -> Tensor:
        """Return how many of the first keys hold all with an estimated probability > epsilon [R] int64.

        A method may keep keys first that weigh little, such as the row's own: they count, or others would give way.
        """
        place_N = torch.arange(1, self._p_RN.shape[1] + 1, device=self._p_RN.device)
        last_R = torch.where(self._p_RN > epsilon, place_N, 0).amax(-1)
        return last_R.maximum(self._certain_R).clamp(min=1)


def own_needs(answer: Answer, exact: Needs, sink_R: Tensor | None, compute: Compute) -> Needs:
    """Return what tells the keys that a method needs by its own estimate: for the most probable keys the exact rows.

    Raises
    ------
    UserError
        If rows have a learned sink, of which an estimate of keys says nothing.
    """
    if isinstance(answer, Subset) and answer.log_p is not None:
        _check_no_learned_sink(sink_R)
        order_RN = answer.order() if answer.turn is None else compute.order(answer.turn())
        return OwnRows(order_RN, answer.log_p())
    return exact


def _check_no_learned_sink(sink_R: Tensor | None) -> None:
    if sink_R is not None:
        raise UserError(
            "windows.own_top_p, own_threshold and ada go by what a method takes for the probability of each key, which "
            "says nothing of a learned sink, and this model has one: leave them out, and give windows.top_p or "
            "windows.fixed"
        )


def log_p_of(answer: Answer, logits: Callable[[], Tensor], sink_R: Tensor | None) -> Tensor:
    """Return what a method takes for the logarithms of the keys' probabilities [R, N], up to a constant of the row.

    The key that it keeps first is kept anyway.

    Raises
    ------
    UserError
        If rows have a learned sink, as `own_needs`.
    """
    _check_no_learned_sink(sink_R)
    if isinstance(answer, Subset):
        assert answer.log_p is not None  # checked before anything is measured: check_weighs
        return answer.log_p().scatter(1, answer.best(), torch.inf)
    return logits()


def shared_keys(heads: Sequence[OfHead], rows: int, keys: int, shares: Sequence[Share]) -> list[Tensor]:
    """Return the keys that each head of a layer keeps [H, R] of those that its heads share, for each way to share.

    Parameters
    ----------
    rows, keys
        Rows of a head, and the keys of their context.
    shares
        As `Windows.sharing` returns them.
    """
    block = min(max(MOST_SHARED // (len(heads) * keys), 1), rows)
    parts: list[list[Tensor]] = [[] for _ in shares]
    for start in range(0, rows, block):
        log_p, n = zip(*(of_head(start, min(start + block, rows)) for of_head in heads), strict=True)
        log_p_HRN, n_HR = torch.stack(log_p), torch.stack(n)
        for part, share in zip(parts, shares, strict=True):
            part.append(share(log_p_HRN, n_HR.amax(0)).clamp(min=1).minimum(n_HR))
    return [torch.cat(part, dim=1) for part in parts]


Place = tuple[str, int, int]  # variant, length and KV head: one of a layer's groups of rows


def share_layer(
    groups: Sequence[Rows], methods: Sequence[Selector], windows_at: Callable[[int], Windows]
) -> dict[Place, dict[int, Tensor]]:
    """Return the keys [M, R] of M methods in each window that the heads of a layer share, by its index, per group.

    Parameters
    ----------
    groups
        All KV heads of a layer, of any lengths and variants.
    windows_at
        Returns the windows of rows of a nominal length.
    """

    def of_head(answering: Answering, rows: Rows, start: int, stop: int) -> tuple[Tensor, Tensor]:
        part = rows.block(start, stop)
        return log_p_of(answering(part.questions()), part.logits, part.sink_R), part.n_R

    def place(rows: Rows) -> Place:
        return rows.variant, rows.length, rows.kv_head

    shared: dict[Place, dict[int, Tensor]] = {}
    for _, of_one in groupby(sorted(groups, key=place), key=lambda rows: place(rows)[:2]):
        layer = list(of_one)
        windows, counts = windows_at(layer[0].length), [len(rows.heads) for rows in layer]
        shares = {index: windows.sharing(index) for index in windows.of_kind(PerLayer)}
        of_methods = []
        for method in methods:
            heads: list[OfHead] = []
            for rows in layer:
                answering = method.prepare(rows.cache())
                heads += [partial(of_head, answering, of_one_head) for of_one_head in rows.of_each_head()]
            of_methods.append(shared_keys(heads, len(layer[0]) // counts[0], layer[0].num_keys, [*shares.values()]))
        for index, of_window in zip(shares, zip(*of_methods, strict=True), strict=True):
            k_MHR = torch.stack(of_window)
            for rows, k_MSR in zip(layer, k_MHR.split(counts, dim=1), strict=True):
                shared.setdefault(place(rows), {})[index] = k_MSR.flatten(1)
    return shared
