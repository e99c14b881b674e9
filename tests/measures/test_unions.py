"""Keys that consecutive rows need together, against sets built row by row and a greedy choice without shortcuts."""

import numpy as np
import pytest
import torch

from experiments.kernels.fixed_set import fixed_set_size
from experiments.measures.compute import Compute
from experiments.measures.unions import measure_unions
from experiments.rows import Rows
from experiments.tables.rows import ETAS
from experiments.tables.unions import EVERY_HEAD

HEADS, RUN, KEYS = 2, 6, 60


def consecutive_rows(seed=0, scale=1.5):
    """Two heads, each with six consecutive rows that see one key more each time."""
    generator = torch.manual_seed(seed)
    return Rows(
        layer=3,
        kv_head=1,
        head_R=torch.tensor([2, 3]).repeat_interleave(RUN),
        sample=0,
        variant="plain",
        length=KEYS,
        position_R=torch.arange(KEYS - RUN, KEYS).repeat(HEADS),
        query_RD=torch.randn(HEADS * RUN, 8, generator=generator),
        key_ND=torch.randn(KEYS, 8, generator=generator),
        value_NV=torch.randn(KEYS, 4, generator=generator),
        scale=scale,
        causal=True,
    )


def greedy(p_RN, eta, held_R=0.0):
    """Add the key that brings most lacking mass, all gains computed anew each time; `held_R` costs no key."""
    lacking_R, size = np.full(len(p_RN), 1 - eta * (1 + 1e-6)) - held_R, 0
    while lacking_R.max() > 0:
        gains = np.minimum(p_RN, lacking_R[:, None]).sum(0)
        best = gains.argmax()
        lacking_R = np.maximum(lacking_R - p_RN[:, best], 0)
        p_RN = np.where(np.arange(p_RN.shape[1]) == best, 0, p_RN)
        size += 1
    return size


@pytest.mark.parametrize("scale", [0.3, 1.5])
def test_each_union_is_that_of_the_rows_own_sets(scale):
    rows = consecutive_rows(scale=scale)
    p_RN = torch.softmax(rows.logits().double(), -1).numpy()
    lines = measure_unions(rows, [2, 6], Compute())
    assert {(line["head"], line["rows"], line["eta"]) for line in lines} == {
        (head, run, eta) for head in (2, 3, EVERY_HEAD) for run in (1, 2, 6) for eta in ETAS
    }
    for line in lines:
        asked = [
            h * RUN + i
            for h, head in enumerate((2, 3))
            if line["head"] in (head, EVERY_HEAD)
            for i in range(RUN - line["rows"], RUN)
        ]
        sets = []
        for r in asked:
            order = np.argsort(-p_RN[r], kind="stable")
            left = 1 - np.cumsum(p_RN[r, order])
            sets.append(set(order[: int((left > line["eta"] * (1 + 1e-6)).sum()) + 1].tolist()))
        assert line["union"] == len(set().union(*sets))
        assert line["k"] == pytest.approx(np.mean([len(one) for one in sets]))
        assert line["n"] == KEYS
        assert line["fixed"] == min(greedy(p_RN[asked], line["eta"]), line["union"])
        assert max(len(one) for one in sets) <= line["fixed"] <= line["union"]
        if len(sets) == 1:
            assert line["fixed"] == line["union"] == line["k"]


def test_rows_that_need_the_same_keys_need_no_more_together():
    weight_RN = np.repeat(np.array([[8.0, 4, 2, 1, 1]], dtype=np.float32), 3, axis=0)
    assert fixed_set_size(np.ascontiguousarray(weight_RN.T), np.full(3, 14.0)) == 3


def test_rows_that_need_different_keys_need_all_of_them():
    assert fixed_set_size(np.eye(4, dtype=np.float32), np.full(4, 0.9)) == 4


def test_lazy_gains_choose_as_well_as_gains_computed_anew():
    draw = np.random.default_rng(0)
    for trial in range(20):
        p_RN = draw.dirichlet(np.full(40, 0.3), size=1 + trial % 7)
        for eta in (0.3, 0.05):
            lacking_R = np.full(len(p_RN), 1 - eta * (1 + 1e-6))
            assert fixed_set_size(np.ascontiguousarray(p_RN.T), lacking_R) == greedy(p_RN, eta)
