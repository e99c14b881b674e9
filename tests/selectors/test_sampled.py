"""Hashes, samples and leverage: what each method promises of its choice and its weights."""

import math
from dataclasses import replace

import pytest
import torch

from experiments.errors import UserError
from experiments.launch import configure
from experiments.measures.estimate import measure_weighted
from experiments.records.table_file import read
from experiments.reference.exact import ExactRows
from experiments.selectors.lev_attention import LevAttention, leverage
from experiments.selectors.magic_pig import MagicPIG, Tables
from experiments.selectors.random import Random
from experiments.selectors.sort_lsh import SortLSH, _buckets
from experiments.selectors.uniform_columns import UniformColumns
from experiments.tables.windows import WINDOWS
from tests.selectors.test_selectors import measured
from tests.selectors.test_sinks import order, rows_at

WIDE = 24


def wide_rows(rows=4, keys=512, seed=0):
    generator = torch.manual_seed(seed)
    key_ND = torch.randn(keys, WIDE, generator=generator)
    base = rows_at([keys - 1] * rows, keys)
    return replace(
        base, key_ND=key_ND, value_NV=key_ND, query_RD=torch.randn(rows, WIDE, generator=generator), scale=WIDE**-0.5
    )


def sampled(selector, rows):
    return selector.prepare(rows.cache())(rows.questions())


def test_buckets_that_stand_side_by_side_differ_in_one_sign():
    signs = torch.tensor([[(code >> bit) & 1 for bit in range(5)] for code in range(32)]) * 2.0 - 1
    place = _buckets(signs)
    assert sorted(place.tolist()) == list(range(32))
    in_order = signs[place.argsort()]
    assert ((in_order[1:] != in_order[:-1]).sum(-1) == 1).all()


def test_sort_lsh_keeps_its_own_bucket_before_others_and_beats_chance_on_peaked_rows():
    rows = replace(wide_rows(rows=256), scale=1.0)
    windows = configure("windows.fixed=[64]", "windows/rules=[fixed]").windows.at(512)
    lsh, chance = (measured(rows, [s], windows)[1][0]["dropped_mass"].mean() for s in (SortLSH(), Random()))
    assert lsh < chance - 0.05


def test_magic_pig_weighs_by_one_over_the_chance_of_being_sampled():
    """Over draws of the tables, a key is hit twice as often as its weight says."""
    rows, tables = wide_rows(rows=2, keys=96), 6
    unit = torch.nn.functional.normalize
    key_ND = rows.key_ND - rows.key_ND.mean(0)
    cosine_RN = unit(rows.query_RD, dim=-1) @ unit(key_ND, dim=-1).T
    kept_RN, draws = torch.zeros(2, 96), 600
    for draw in range(draws):
        hashed = Tables(rows.cache(), bits=2, tables=tables, draw=draw)
        second_RN, chance_RN = hashed.second_hits(rows.questions()), hashed.chances(rows.questions())
        kept_RN += second_RN <= tables
    torch.testing.assert_close(chance_RN.float(), (1 - cosine_RN.acos() / math.pi) ** 2, rtol=1e-4, atol=1e-5)
    c = chance_RN
    expected_RN = 1 - (1 - c) ** tables - tables * c * (1 - c) ** (tables - 1)
    assert (kept_RN / draws - expected_RN).abs().max() < 5 * 0.5 / math.sqrt(draws)


def test_magic_pigs_window_reaches_the_table_that_its_last_key_names():
    rows = wide_rows(rows=3, keys=256)
    selector = MagicPIG(bits=3, tables=12, sinks=2, recent=8)
    chosen = sampled(selector, rows)
    order_RN = chosen.order()
    static = {0, 1, *range(248, 256)}
    for r in range(3):
        assert set(order_RN[r, :10].tolist()) == static
    k_R = torch.tensor([10, 40, 256])
    weight_RN = chosen.weight(k_R)
    assert (weight_RN[:, sorted(static)] == 1).all()
    assert (weight_RN[1, order_RN[1, 10:40]] > 1).all()
    assert (weight_RN[2] == 1).all()  # the exact window reaches back to the first key
    few, many = chosen.weight(torch.full((3,), 20)), chosen.weight(torch.full((3,), 60))
    assert (few >= many - 1e-12).all()


@pytest.mark.parametrize("selector", [UniformColumns(), MagicPIG(bits=4, tables=30, recent=16)], ids=lambda s: s.name)
def test_samples_estimate_the_exact_output_without_bias_to_speak_of(selector):
    rows = wide_rows(rows=1, keys=256)
    windows = configure("windows.fixed=[96]", "windows/rules=[fixed]").windows.at(256)
    exact = ExactRows.from_logits(rows.logits())
    key_RN = torch.arange(256)[None]
    p_N = exact.probabilities(key_RN)[0]
    k_R = windows.keys(exact)[:, 0]
    total, draws = torch.zeros(256, dtype=torch.float64), 300
    for draw in range(draws):
        chosen = sampled(replace(selector, draw=draw), rows)
        kept_N = torch.zeros(256, dtype=torch.bool).scatter_(0, chosen.order()[0, : int(k_R)], True)
        total += torch.where(kept_N, chosen.weight(k_R)[0] * p_N, 0.0)
    assert abs(float(total.sum() / draws) - 1) < 0.06


def test_weighted_rows_against_the_sums_written_out():
    generator = torch.manual_seed(3)
    p = torch.softmax(torch.randn(2, 9, generator=generator).double(), -1)
    value = torch.randn(9, 5, generator=generator)
    order_RN = torch.stack([torch.randperm(9, generator=generator) for _ in range(2)])
    weight = torch.rand(2, 9, generator=generator).double() + 1
    found = measure_weighted(order_RN, lambda k_R: weight, p, value, torch.tensor([[3, 9], [5, 1]]))
    for r, k in [(0, 3), (1, 5)]:
        kept = order_RN[r, :k].tolist()
        estimate = [weight[r, j] * p[r, j] if j in kept else 0.0 for j in range(9)]
        total = sum(estimate)
        tv = sum(abs(e / total - q) for e, q in zip(estimate, p[r], strict=True)) / 2
        kl = sum(e / total * math.log(e / total / q) for e, q in zip(estimate, p[r], strict=True) if e)
        output = sum((e / total - q) * value[j].double() for j, (e, q) in enumerate(zip(estimate, p[r], strict=True)))
        assert found["tv"][r, 0] == pytest.approx(float(tv))
        assert found["kl"][r, 0] == pytest.approx(float(kl))
        assert found["dropped_mass"][r, 0] == pytest.approx(1 - sum(float(p[r, j]) for j in kept))
        assert found["linf_truncated"][r, 0] == pytest.approx(
            max(abs(float(e - q)) for e, q in zip(estimate, p[r], strict=True))
        )
        assert found["output_renormalised"][r, 0] == pytest.approx(float(output.square().sum()))


def test_uniform_columns_are_those_of_every_row_of_a_head():
    rows = rows_at([40, 63], 64)
    order_RN, _ = order(UniformColumns(), rows)
    first = [key for key in order_RN[0, 1:41].tolist() if key < 40]
    second = [key for key in order_RN[1, 1:].tolist() if key < 40]
    assert first == second
    assert order(UniformColumns(draw=1), rows)[0].tolist() != order_RN.tolist()


def test_no_key_weighs_more_than_its_leverage_under_a_square():
    """The guarantee of LevAttention: over all queries, |q.k|^2 is at most the leverage of its sum."""
    rows = replace(wide_rows(rows=64), power=2.0)
    p_RN = torch.softmax(rows.logits().double(), -1)
    bound_N = leverage(rows.key_ND, torch.ones(512, dtype=torch.bool))
    assert float(bound_N.sum()) == pytest.approx(WIDE, rel=1e-6)
    assert (p_RN <= bound_N * (1 + 1e-5)).all()
    product = (rows.query_RD @ rows.key_ND.T).double().square()
    torch.testing.assert_close(p_RN, product / product.sum(-1, keepdim=True), rtol=1e-4, atol=1e-8)
    order_RN, _ = order(LevAttention(), rows)
    others = order_RN[0, 1:]
    assert (bound_N[others].diff() <= 0).all()


def test_the_score_power_is_a_variant_of_its_own(tmp_path, monkeypatch):

    from experiments.launch import main

    options = ["source.lengths=[64]", "source.rows=4", "source.samples=1", "tracking=disabled", f"outputs={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["run.py", "runner.score_power=2", "selector=lev_attention", *options])
    assert main() == 0
    windows = read(next(tmp_path.glob("runs/*/windows.parquet")), WINDOWS)
    assert set(windows["variant"]) == {"plain, |x|^2"}
    assert (windows["keys_read"] == windows["k"]).all()


@pytest.mark.parametrize(
    ("part", "options"),
    [(SortLSH, {"bits": 0}), (MagicPIG, {"bits": 16}), (MagicPIG, {"tables": 1}), (MagicPIG, {"recent": 0})],
)
def test_sizes_out_of_range_are_refused(part, options):
    with pytest.raises(UserError, match=next(iter(options))):
        part(**options)
