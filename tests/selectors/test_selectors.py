"""What every selector must be: a nested order of visible keys, blind to the future, never better than the oracle."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import hydra
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from experiments.answers import Estimate, Subset
from experiments.errors import UserError
from experiments.launch import CONF, configure
from experiments.measures.compute import Compute
from experiments.measures.measure import measure_rows
from experiments.schema import register
from experiments.selectors.big_bird import BigBird
from experiments.selectors.mean_value import MeanValue
from experiments.selectors.oracle import Oracle
from experiments.selectors.quest import Quest
from experiments.selectors.random import Random
from experiments.selectors.several import Several, each
from experiments.selectors.strided import Strided
from experiments.selectors.summary_columns import SummaryColumns
from experiments.sources import MatrixRequest
from tests.selectors.test_sinks import order, rows_at

YAMLS = sorted(path.stem for path in Path(__file__).parents[2].joinpath("conf/selector").glob("*.yaml"))


@cache
def selector(name):
    register()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=CONF):
        return OmegaConf.to_object(hydra.compose(f"selector/{name}").selector)  # quicker than a whole job


NAMES = [name for name in YAMLS if not isinstance(selector(name), Several)]
METHODS = [name for name in NAMES if not selector(name).traits.sees_ahead]
ESTIMATES = [name for name in METHODS if selector(name).traits.estimates]
BUDGETED = [name for name in ESTIMATES if selector(name).traits.has_budget]
LEAST_ONE = ("conv_basis",)  # has a value at every budget
ORDERED = [name for name in METHODS if name not in ESTIMATES]  # those that keep keys
PLACED = [name for name in ORDERED if name != "oracle"]


def measured(rows, selectors, windows, block=1000):
    methods = [part.prepare(rows.cache()) for part in selectors]
    return measure_rows(rows, methods, windows.sizes(rows.n_R, rows.position_R), block, Compute())


@pytest.mark.parametrize("name", YAMLS)
def test_its_yaml_bears_its_name(name):
    assert selector(name).name == name


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ORDERED)
def test_every_order_is_a_permutation_with_invisible_keys_last(name, causal):
    order_RN, exact = order(selector(name), rows_at([0, 1, 9, 30, 63], 64, causal))
    assert order_RN.sort(-1).values.tolist() == [list(range(64))] * 5
    for r, n in enumerate(exact.n_R.tolist()):
        assert max(order_RN[r, :n].tolist()) < n


@pytest.mark.parametrize("name", PLACED)
def test_the_own_key_comes_first(name):
    positions = [0, 1, 9, 30, 63]
    assert order(selector(name), rows_at(positions, 64))[0][:, 0].tolist() == positions


@pytest.mark.parametrize("name", ORDERED)
def test_no_row_sees_a_later_key(name):
    rows = rows_at([5, 20, 37], 64)
    noise = torch.randn(64, 4, generator=torch.manual_seed(1))
    for r, position in enumerate(rows.position_R.tolist()):
        later = torch.arange(64)[:, None] > position
        changed = rows_at([5, 20, 37], 64, key_ND=torch.where(later, noise, rows.key_ND))
        before, after = order(selector(name), rows)[0], order(selector(name), changed)[0]
        assert before[r, : position + 1].tolist() == after[r, : position + 1].tolist()


@pytest.mark.parametrize("name", ORDERED)
def test_the_order_does_not_depend_on_the_block(name):
    rows = rows_at(list(range(40, 60)), 64)
    chosen = selector(name)
    whole, _ = order(chosen, rows)
    part = chosen.prepare(rows.cache())(rows.block(7, 9).questions())
    if isinstance(part, Subset):
        assert part.order().tolist() == whole[7:9].tolist()


WINDOWS = configure("windows.fixed=[1,5,20]").windows.at(64)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 4.0))
def test_the_oracle_drops_least_on_every_row_and_all_keep_what_was_asked(seed, scale):
    rows = rows_at([10, 40, 63], 64)
    rows = replace(rows, query_RD=scale * torch.randn(3, 4, generator=torch.manual_seed(seed)))
    least = measured(rows, [Oracle()], WINDOWS)[1][0]
    chosen = [selector(name) for name in PLACED]
    for name, of_name in zip(PLACED, measured(rows, chosen, WINDOWS)[1], strict=True):
        columns = [i for i, rule in enumerate(WINDOWS.columns()["rule"]) if rule in ("fixed", "power", "grid")]
        assert (of_name["k"][:, columns] == least["k"][:, columns]).all(), name
        assert (of_name["dropped_mass"][:, columns] >= least["dropped_mass"][:, columns] - 1e-6).all(), name


@pytest.mark.parametrize("name", ESTIMATES)
def test_an_estimate_sees_no_later_key_and_no_key_that_is_hidden(name):
    positions = [31, 34, 37]  # near each other, for what is frozen keeps all that came since
    rows = rows_at(positions, 64)
    noise = torch.randn(64, 4, generator=torch.manual_seed(1))
    later = torch.arange(64)[:, None] > 34
    changed = rows_at(positions, 64, key_ND=torch.where(later, noise, rows.key_ND))
    zero_R = torch.zeros(3)
    before, after = (selector(name).prepare(r.cache())(r.questions()) for r in (rows, changed))
    for k in (24, 30, 64):
        k_R = torch.full((3,), k)
        assert not before.row(k_R, zero_R).isnan().any()
        assert (before.row(k_R, zero_R)[~rows.visible_RN] == 0).all()
        assert torch.equal(before.row(k_R, zero_R)[:2], after.row(k_R, zero_R)[:2])
        if before.output is not None:
            torch.testing.assert_close(before.output(k_R)[:2], after.output(k_R)[:2])


@pytest.mark.parametrize("name", BUDGETED)
def test_an_estimate_with_a_budget_of_all_keys_is_the_row_and_below_its_least_has_no_value(name):
    rows = rows_at([5, 20, 63], 64)
    answer = selector(name).prepare(rows.cache())(rows.questions())
    exact_RN = torch.softmax(rows.logits().double(), -1)
    whole_RN = answer.row(torch.full((3,), 64), torch.logsumexp(rows.logits().double(), -1))
    torch.testing.assert_close(whole_RN, exact_RN, rtol=1e-6, atol=1e-9)
    least_RN = answer.row(torch.ones(3), torch.zeros(3))
    assert (~least_RN.isnan() if name in LEAST_ONE else least_RN.isnan()).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_method_says_whether_it_estimates(name):
    rows = rows_at([9], 64)
    answer = selector(name).prepare(rows.cache())(rows.questions())
    assert isinstance(answer, Estimate) == selector(name).traits.estimates


@pytest.mark.parametrize("name", ESTIMATES)
def test_an_estimate_does_not_depend_on_the_block(name):
    rows = rows_at(list(range(40, 50)), 64)
    k_R, zero_R = torch.full((10,), 32), torch.zeros(10)
    answering = selector(name).prepare(rows.cache())
    whole_RN = answering(rows.questions()).row(k_R, zero_R)
    part_RN = answering(rows.block(7, 9).questions()).row(k_R[:2], zero_R[:2])
    atol = 1e-6 * float(part_RN.abs().max())  # float32 logits are those of the block
    torch.testing.assert_close(part_RN, whole_RN[7:9], rtol=1e-4, atol=atol)


def test_the_mean_of_values_is_the_row_one_over_n():
    rows = rows_at([0, 9, 63], 64)
    windows = configure("windows.fixed=[1,20]", "windows/rules=[fixed]").windows.at(64)
    _, (of_mean,) = measured(rows, [MeanValue()], windows)
    p_RN = torch.softmax(rows.logits().double(), -1)
    for r, n in enumerate([1, 10, 64]):
        off_N = torch.full((n,), 1 / n) - p_RN[r, :n]
        for w in range(2):  # the same at every window
            assert float(of_mean["tv"][r, w]) == pytest.approx(float(off_N.abs().sum() / 2), abs=1e-6)
            assert float(of_mean["l2_renormalised"][r, w]) == pytest.approx(float(off_N.norm()), abs=1e-6)
            squared = float((off_N @ rows.value_NV[:n].double()).square().sum())
            assert float(of_mean["output_renormalised"][r, w]) == pytest.approx(squared, abs=1e-6)
    assert of_mean["dropped_mass"].isnan().all()
    assert (of_mean["failed"] == 0).all()
    assert (of_mean["normaliser_error"].abs() < 1e-6).all()


def test_the_strided_pattern_is_the_papers_at_its_own_size():
    order_RN, _ = order(Strided(stride=8), rows_at([63], 64))
    assert set(order_RN[0, :15].tolist()) == {*range(56, 64), *range(7, 56, 8)}


def test_the_fixed_pattern_is_the_papers_at_its_own_size():
    order_RN, _ = order(SummaryColumns(block=8, columns=1), rows_at([60], 64))
    assert set(order_RN[0, :12].tolist()) == {*range(56, 61), *range(7, 56, 8)}


def test_big_bird_shares_its_keys_three_to_two_to_three():
    order_RN, _ = order(BigBird(), rows_at([4095], 4096))
    kept = set(order_RN[0, :800].tolist())
    assert len(kept & set(range(4096 - 300, 4096))) >= 290
    assert len(kept & set(range(200))) >= 190


def test_random_keys_are_uniform_and_differ_from_row_to_row():
    order_RN, _ = order(Random(), rows_at([1023] * 64, 1024))
    counts = torch.bincount(order_RN[:, 1:129].flatten(), minlength=1024)[:-1].double()
    assert abs(counts.mean() - 64 * 128 / 1023) < 1e-9
    assert 0.7 < counts.var() / (8 * (1 - 128 / 1023)) < 1.3  # binomial, as drawn without replacement
    assert order_RN.unique(dim=0).shape[0] == 64


def test_quest_bounds_every_logit_of_a_page_and_keeps_the_best_bounded():
    rows = rows_at([63], 64)
    order_RN, exact = order(Quest(page=8), rows)
    pages = (order_RN[0] // 8).reshape(8, 8)
    assert (pages == pages[:, :1]).all()
    assert pages[0, 0] == 7
    paged = rows.key_ND.reshape(8, 8, 4)
    products = torch.maximum(rows.query_RD[0] * paged.amin(1), rows.query_RD[0] * paged.amax(1)).sum(-1)
    assert (products[:, None] >= exact.logits_RN[0].reshape(8, 8) - 1e-5).all()
    assert pages[1:, 0].tolist() == products[:7].argsort(descending=True).tolist()


@pytest.mark.parametrize(
    ("part", "options"),
    [
        (Strided, {"stride": 0}),
        (SummaryColumns, {"columns": 0}),
        (BigBird, {"random_share": 0.0}),
        (Quest, {"page": 0}),
    ],
)
def test_sizes_out_of_range_are_refused(part, options):
    with pytest.raises(UserError, match=next(iter(options))):
        part(**options)


def test_several_has_every_selector_and_measures_each_as_it_would_be_alone():
    several = selector("several")
    assert [part.name for part in each(several)] == list(several.parts)
    assert set(several.parts) | set(selector("key_choices").parts) == set(ORDERED) - {"snap_kv_prompt", "verified"}
    rows, windows = rows_at([30, 50, 63], 64), configure().windows.at(64)
    statistics, together = measured(rows, each(several), windows, 2)
    for part, found in zip(each(several), together, strict=True):
        alone_statistics, (alone,) = measured(rows, [part], windows, 2)
        for name, values in alone.items():
            torch.testing.assert_close(found[name], values, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(alone_statistics["entropy"], statistics["entropy"])


def test_two_selectors_of_one_name_are_refused():
    with pytest.raises(UserError, match="own name"):
        Several({"a": Oracle(), "b": Oracle()})


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_is_at_least_what_is_kept_and_at_most_what_dense_reads(name):
    n, k = torch.full((2, 3), 65536.0), torch.tensor([[16.0, 256.0, 4096.0]] * 2)
    read = selector(name).keys_read(n, k, 64)
    assert (read >= k).all() or not selector(name).traits.has_budget
    assert (read <= n).all()


def test_the_oracle_drops_least_on_every_row_of_a_real_model(smollm2):
    job = configure(
        *("source=smollm2", "source.lengths=[160,400]", "source.rows=6", "source.samples=1", "source.layers=[0,17]"),
        *("selector=several", "windows=selectors", "windows.fixed=[1,8,64]", "windows.grid_per_octave=1"),
    )
    parts, seen, worse = each(job.selector), [], {}

    def on_rows(groups):
        for rows in groups:
            compare(rows)

    def compare(rows):
        windows = job.windows.at(rows.length)
        _, of_parts = measured(rows, parts, windows)
        least = of_parts[0]["dropped_mass"]
        for part, found in zip(parts, of_parts, strict=True):
            assert (found["k"] == of_parts[0]["k"]).all(), part.name
            assert (found["dropped_mass"] >= least - 1e-6).all(), part.name
            worse.setdefault(part.name, []).append(float((found["dropped_mass"] - least).max()))
        seen.extend((rows.layer, head, rows.length) for head in rows.heads)

    job.source.stream(
        on_rows, seed=0, device=torch.device("cpu"), matrices=MatrixRequest([], []), record=None, runs=None
    )
    assert len(seen) == 2 * 9 * 2
    assert all(max(gaps) > 0.01 for name, gaps in worse.items() if name != "oracle")
