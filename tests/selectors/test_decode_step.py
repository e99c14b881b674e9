"""A decode step of all heads at once answers as the rows of single heads that are measured at once do."""

from dataclasses import replace

import pytest
import torch

from experiments.answers import Estimate, TopK
from experiments.cache import Block, Cache, Earlier
from experiments.rows import Rows
from tests.selectors.test_selectors import ESTIMATES, NAMES, PLACED, selector

GROUPS, SHARED, KEYS, DIMS = 2, 3, 203, 16
HEADS = GROUPS * SHARED
BY_LENGTH = ("strided", "summary_columns")  # their strides go by the length of the whole context


class Context:
    """Queries of every position and head, and the keys and values of the KV heads that they share."""

    def __init__(self, seed=0):
        generator = torch.manual_seed(seed)
        normal = torch.randn(GROUPS, KEYS, DIMS, generator=generator)
        self.key_GND = normal + torch.randn(GROUPS, 1, DIMS, generator=generator)
        self.value_GNV = torch.randn(GROUPS, KEYS, 8, generator=generator)
        self.query_HND = 1.5 * torch.randn(HEADS, KEYS, DIMS, generator=generator)
        self.scale = DIMS**-0.5

    def earlier(self, group):
        def logits(start, stop):
            hidden_TN = torch.arange(stop) > torch.arange(start, stop)[:, None]
            return (queries(start, stop) @ self.key_GND[group, :stop].T).masked_fill(hidden_TN, -torch.inf)

        def queries(start, stop):
            return self.scale * self.query_HND[group * SHARED : (group + 1) * SHARED, start:stop]

        return Earlier(logits, queries)

    def rows(self, head, positions):
        """Return the rows of one query head, as a source pushes them."""
        group, position_R = head // SHARED, torch.tensor(positions)
        return Rows(
            layer=1,
            head_R=torch.full_like(position_R, head),
            sample=2,
            variant="plain",
            length=KEYS,
            position_R=position_R,
            query_RD=self.query_HND[head, position_R],
            key_ND=self.key_GND[group],
            value_NV=self.value_GNV[group],
            scale=self.scale,
            visible_RN=torch.arange(KEYS) <= position_R[:, None],
            earlier=self.earlier(group),
        )

    def step(self, position, prompt):
        """Return the cache of all KV heads at a decode step, and the row of every query head."""
        n = position + 1
        cache = Cache(
            key_GND=self.key_GND[:, :n],
            value_GNV=self.value_GNV[:, :n],
            common=lambda: torch.arange(n) <= prompt,
            prompt=prompt,
            earlier=[self.earlier(group) for group in range(GROUPS)],
        )
        block = Block(
            query_RD=self.query_HND[:, position],
            position_R=torch.full((HEADS,), position),
            num_keys=n,
            visible=lambda: torch.ones(HEADS, n, dtype=torch.bool),
            head_R=torch.arange(HEADS),
            layer=1,
            sample=2,
            scale=self.scale,
        )
        return cache, block


@pytest.mark.parametrize("name", NAMES)
def test_a_decode_step_is_the_row_measured_at_once(name):
    """A method that is refreshed by every key knows nothing of the prompt's end; a frozen one must share it."""
    method, context = selector(name), Context()
    positions = list(range(KEYS - 9, KEYS))
    for position in (positions[3], positions[-1]):
        prompt = positions[0] if method.traits.frozen else position
        cache, block = context.step(position, prompt)
        step = method.prepare(cache)(block)
        for head in range(HEADS):
            rows = context.rows(head, positions)
            row = positions.index(position)
            whole = method.prepare(rows.cache())(rows.questions())
            assert type(step) is type(whole)
            k = torch.tensor([40])
            if isinstance(step, TopK):
                exact_N = rows.logits()[row].argsort(descending=True, stable=True)
                assert step.first(40).key_RK[head].tolist() == exact_N[:40].tolist()
            elif isinstance(step, Estimate):
                zero = torch.zeros(1)
                one = step.row(k.expand(HEADS), zero.expand(HEADS))[head]
                other = whole.row(k.expand(len(positions)), zero.expand(len(positions)))[row, : len(one)]
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)
            elif name in BY_LENGTH and position < KEYS - 1:
                continue  # the context that is measured at once is longer than that of this step
            else:
                assert step.order()[head].tolist() == whole.order()[row, : position + 1].tolist()
                if step.weight is not None:
                    weights = step.weight(k.expand(HEADS))[head], whole.weight(k.expand(len(positions)))[row]
                    torch.testing.assert_close(weights[0], weights[1][: position + 1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 16, 17, 100, KEYS])
@pytest.mark.parametrize("name", PLACED)
def test_the_first_keys_are_those_of_the_order(name, k):
    cache, block = Context(1).step(KEYS - 1, KEYS - 1)
    answer = selector(name).prepare(cache)(block)
    first = answer.first(k)
    assert first.key_RK.tolist() == answer.order()[:, :k].tolist()
    if answer.weight is None:
        assert first.log_weight_RK is None
    else:
        expected = answer.weight(torch.full((HEADS,), k)).gather(1, first.key_RK)
        torch.testing.assert_close(first.log_weight_RK.exp().double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ESTIMATES)
def test_the_output_of_an_estimate_is_that_of_its_row(name):
    context = Context(2)
    for position in (0, 7, KEYS - 1):
        cache, block = context.step(position, position)
        answer = selector(name).prepare(cache)(block)
        k_R = torch.full((HEADS,), 1)
        row_RN = answer.row(k_R, torch.logsumexp(block.logits(cache).double(), -1))
        row_GSN = (row_RN / row_RN.sum(-1, keepdim=True)).unflatten(0, (GROUPS, SHARED))
        expected = (row_GSN @ cache.value_GNV.double()).flatten(0, 1)
        torch.testing.assert_close(answer.output(k_R).double(), expected, rtol=1e-5, atol=1e-6)


def test_snap_kv_of_a_prompt_keeps_all_that_came_after_it():
    prompt = KEYS - 20
    cache, block = Context().step(KEYS - 1, prompt)
    frozen = selector("snap_kv_prompt").prepare(cache)(block).order()
    newest = list(range(KEYS - 1, prompt - 33, -1))  # what came after it, and the 32 rows that voted
    assert frozen[:, : len(newest)].tolist() == [newest] * HEADS
    at_end = selector("snap_kv").prepare(Context().step(prompt, prompt)[0])(Context().step(prompt, prompt)[1]).order()
    voted = [[key for key in order if key < prompt - 32] for order in at_end.tolist()]
    assert [[key for key in order if key < prompt - 32] for order in frozen.tolist()] == voted


@pytest.mark.parametrize("name", PLACED)
def test_rows_without_a_key_in_common_are_answered(name):
    """As of a sliding window that is shorter than the rows are apart."""
    context = Context()
    rows = context.rows(0, [9, 60, 150])
    near_RN = (rows.position_R[:, None] - torch.arange(KEYS)).abs() < 8
    rows = replace(rows, visible_RN=rows.visible_RN & near_RN)
    answer = selector(name).prepare(rows.cache())(rows.questions())
    for row, order in enumerate(answer.order().tolist()):
        assert rows.visible_RN[row, order[:8]].all()
    if answer.weight is not None:
        assert answer.weight(torch.tensor([4, 4, 4])).isfinite().all()
