"""Rows with a learned sink against a float64 brute force of n + 1 entries, of which the sink has no value.

Every window keeps the sink, and it costs no key (docs/theory.md, section 1).
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.measures.compute import Compute
from experiments.measures.estimate import measure_weighted
from experiments.measures.matrix import attention_matrix
from experiments.measures.unions import measure_unions
from experiments.reference.exact import ExactRows
from experiments.reference.subset import measure_subset
from experiments.tables.rows import EPSILONS, ETAS
from experiments.tables.unions import EVERY_HEAD
from experiments.windows import Sizes
from tests import brute_force
from tests.measures.test_unions import consecutive_rows, greedy

ROWS, KEYS, WIDTH = 5, 40, 6
SINKS = [-20.0, -1.0, 2.0, 6.0, 60.0]  # nearly no mass, ..., nearly all of it
K = [1, 2, 5, 17, KEYS]


@pytest.fixture
def drawn():
    """Logits [R, N], values [N, V] and sinks [R] in float64, and what each path is given."""
    rng = np.random.default_rng(3)
    return np.float32(2 * rng.normal(size=(ROWS, KEYS))).astype(float), rng.normal(size=(KEYS, WIDTH)), np.array(SINKS)


def with_sink(logits, sink):
    return np.append(logits, sink)


def smallest(logits, sink, eta):
    """Return the fewest keys that leave a dropped mass of at most eta; one is always kept."""
    p = np.sort(brute_force.softmax(with_sink(logits, sink))[:-1])[::-1]
    return next(k for k in range(1, len(p) + 1) if p[k:].sum() <= eta * (1 + 1e-6))


@pytest.mark.parametrize("reference", [True, False])
def test_a_row_and_its_windows_are_those_of_n_plus_1_entries(drawn, reference):
    logits, values, sinks = drawn
    tensors = torch.tensor(logits).float(), torch.tensor(values).float()
    compute, k_RW = Compute(reference=reference), torch.tensor(K).repeat(ROWS, 1)
    sizes = Sizes(k_RW, {}, {})
    statistics, kept_RW, measured = compute.measure_top_k(*tensors, sizes, torch.tensor(sinks).float())
    assert torch.equal(kept_RW, k_RW)
    for r in range(ROWS):
        row = with_sink(logits[r], sinks[r])
        p = brute_force.softmax(row)
        expected = {
            "n": KEYS,
            "logit_mean": logits[r].mean(),
            "logit_std": logits[r].std(),
            "logit_max": logits[r].max(),
            "logsumexp": np.logaddexp.reduce(row),
            "entropy": -(p * np.log(p)).sum(),
            "participation": 1 / (p**2).sum(),
            "p_max": p[:-1].max(),
            "sink_mass": p[0],
            "learned_sink_mass": p[-1],
            **{f"k_min_{eta:g}": smallest(logits[r], sinks[r], eta) for eta in ETAS},
            **{f"count_{epsilon:g}": (p[:-1] > epsilon).sum() for epsilon in EPSILONS},
        }
        assert {name: float(statistics[name][r]) for name in expected} == pytest.approx(expected, rel=1e-5, abs=1e-9)
        assert np.isnan([float(statistics[name][r]) for name in ("log_p_variance", "root_sum")]).all()
        order = brute_force.ranked(p[:-1])
        for w, k in enumerate(K):
            kept = [*order[:k], KEYS]
            lines = brute_force.sparse_row(row, np.vstack([values, np.zeros(WIDTH)]), kept)
            for name, result_RW in measured.items():
                result = result_RW[r] if name == "output" else result_RW[r, w]
                assert float(result) == pytest.approx(lines[name], rel=2e-5, abs=1e-9), (name, r, k)


def test_a_subset_and_its_weighted_form_keep_the_sink(drawn):
    """Any order of keys; keys that each weigh for themselves alone are a subset."""
    logits, values, sinks = drawn
    exact = ExactRows.from_logits(torch.tensor(logits), torch.tensor(sinks))
    order_RN = torch.stack([torch.randperm(KEYS, generator=torch.manual_seed(r)) for r in range(ROWS)])
    k_RW, one_RN = torch.tensor(K).repeat(ROWS, 1), torch.ones(ROWS, KEYS, dtype=torch.float64)
    value_NV, sink_R = torch.tensor(values), exact.learned_sink_R
    subset = measure_subset(order_RN, exact.probabilities(order_RN), value_NV, k_RW, sink_R)
    weighted = measure_weighted(order_RN, lambda k_R: one_RN, exact.in_key_order(), value_NV, k_RW, sink_R)
    for r in range(ROWS):
        row = with_sink(logits[r], sinks[r])
        for w, k in enumerate(K):
            kept = [*order_RN[r, :k].tolist(), KEYS]
            lines = brute_force.sparse_row(row, np.vstack([values, np.zeros(WIDTH)]), kept)
            for name in subset:
                results = (part[name][r] if name == "output" else part[name][r, w] for part in (subset, weighted))
                for result in results:
                    assert float(result) == pytest.approx(lines[name], rel=2e-5, abs=1e-9), (name, r, k)


def test_outputs_within_a_window_keep_the_sink(drawn):
    logits, values, sinks = drawn
    for k in K:
        given = torch.tensor(logits).float(), torch.tensor(values).float(), torch.full((ROWS,), k)
        output_RV = Compute().top_k_output(*given, torch.tensor(sinks))
        for r in range(ROWS):
            kept = brute_force.ranked(logits[r])[:k]
            p = brute_force.softmax(with_sink(logits[r][kept], sinks[r]))
            assert output_RV[r].numpy() == pytest.approx(p[:-1] @ values[kept], rel=1e-4, abs=1e-6)


def test_consecutive_rows_lack_what_their_sink_does_not_hold():
    sinks = np.array([1.0, 4.0])
    rows = replace(consecutive_rows(), sink_S=torch.tensor(sinks))
    lines = measure_unions(rows, [3], Compute())
    logits = rows.logits().double().numpy()
    masses = [
        brute_force.softmax(with_sink(row, sinks[head % 2])) for row, head in zip(logits, rows.head_R, strict=True)
    ]
    p_RN, held_R = np.array(masses)[:, :-1], np.array(masses)[:, -1]
    runs = {2: [3, 4, 5], 3: [9, 10, 11], EVERY_HEAD: [3, 4, 5, 9, 10, 11]}
    for line in (line for line in lines if line["rows"] == 3):
        asked = runs[line["head"]]
        k_R = [smallest(logits[r][np.isfinite(logits[r])], sinks[rows.head_R[r] % 2], line["eta"]) for r in asked]
        union = set().union(*(brute_force.ranked(p_RN[r])[:k].tolist() for r, k in zip(asked, k_R, strict=True)))
        assert line["k"] == pytest.approx(np.mean(k_R))
        assert line["union"] == len(union)
        fixed = greedy(p_RN[asked], line["eta"], held_R[asked])
        assert line["fixed"] == min(max(fixed, 1), len(union))


def test_a_recorded_matrix_is_the_models_own_attention():
    rows = replace(consecutive_rows(), sink_S=torch.tensor([1.0, 4.0]))
    matrix, *_ = attention_matrix(rows, 1000, 4)
    expected = [
        brute_force.softmax(with_sink(row, sink))[:-1]
        for row, sink in zip(rows.logits().double().numpy(), rows.sink_R.tolist(), strict=True)
    ]
    assert matrix.double().numpy() == pytest.approx(np.array(expected), abs=1e-3)
