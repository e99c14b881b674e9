"""Windows that go by what a method takes for the row: own_top_p, own_threshold and ada, in rows and in a model."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.answers import Subset
from experiments.errors import UserError
from experiments.launch import configure
from experiments.machine import Machine
from experiments.measures.compute import Compute
from experiments.measures.own import OwnRows, own_needs
from experiments.models.attend import attend_by
from experiments.models.context import Context
from experiments.models.load import load_model
from experiments.models.probe import forward
from experiments.models.windowed import within
from experiments.records.folder import Record
from experiments.reference.exact import ExactRows
from experiments.selectors.blocks import MASS, Blocks
from experiments.selectors.double_sparsity import DoubleSparsity
from experiments.selectors.pca_keys import PcaKeys
from experiments.selectors.quantised_keys import QuantisedKeys
from experiments.selectors.quest import Quest
from experiments.selectors.snap_kv import SnapKV
from experiments.selectors.sparq import SparQ
from experiments.windows.rules.ada import Ada
from tests.models import small
from tests.selectors.test_selectors import METHODS, measured, selector
from tests.selectors.test_sinks import rows_at

WEIGHING = [name for name in METHODS if selector(name).traits.weighs and name != "oracle"]
POSITIONS = [5, 20, 37, 63]


def answer_of(method, rows):
    return method.prepare(rows.cache())(rows.questions())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_estimates_probabilities_if_it_says_so(name):
    answer = answer_of(selector(name), rows_at(POSITIONS, 64))
    if isinstance(answer, Subset):
        assert (answer.log_p is not None) == selector(name).traits.weighs
    else:
        assert selector(name).traits.weighs == (name == "oracle")


@pytest.mark.parametrize("name", WEIGHING)
def test_an_estimate_has_a_number_for_every_visible_key_and_knows_no_later_one(name):
    rows = rows_at(POSITIONS, 64)
    log_p_RN = answer_of(selector(name), rows).log_p()
    assert not log_p_RN.isnan().any()
    assert torch.equal(torch.isneginf(log_p_RN), ~rows.visible_RN)
    noise = torch.randn(64, 4, generator=torch.manual_seed(1))
    for r, position in enumerate(POSITIONS):
        later = torch.arange(64)[:, None] > position
        changed = rows_at(POSITIONS, 64, key_ND=torch.where(later, noise, rows.key_ND))
        after_RN = answer_of(selector(name), changed).log_p()
        torch.testing.assert_close(after_RN[r], log_p_RN[r], rtol=1e-5, atol=1e-5)
    if not selector(name).traits.frozen:  # else its prompt ends at the first row
        part_RN = answer_of(selector(name), rows.block(1, 3)).log_p()
        torch.testing.assert_close(part_RN, log_p_RN[1:3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("eta", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("name", WEIGHING)
def test_as_many_keys_are_kept_as_the_estimate_needs(name, eta):
    rows = rows_at(POSITIONS, 64)
    windows = configure("windows/rules=[own_top_p]", f"windows.own_top_p=[{eta}]").windows.at(64)
    k_R = measured(rows, [selector(name)], windows)[1][0]["k"][:, 0]
    answer = answer_of(selector(name), rows)
    for k, order_N, log_p_N in zip(k_R.tolist(), answer.order().tolist(), answer.log_p().tolist(), strict=True):
        rest = {key: math.exp(log_p) for key, log_p in enumerate(log_p_N) if abs(log_p) < math.inf}
        certain = sum(log_p == math.inf for log_p in log_p_N)
        left = [sum(rest.get(key, 0.0) for key in order_N[kept:]) for kept in range(65)]
        fewest = next(kept for kept in range(65) if left[kept] <= eta * (1 + 1e-6) * sum(rest.values()))
        assert k == max(fewest, certain, 1)


EXACT = [SparQ(channels=9), DoubleSparsity(channels=9), PcaKeys(components=9), QuantisedKeys(group=64)]


@pytest.mark.parametrize("method", EXACT, ids=lambda method: method.name)
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_an_estimate_that_is_exact_keeps_what_top_p_keeps(method, softcap):
    rows = replace(rows_at(POSITIONS, 64), scale=0.7, softcap=softcap)
    wanted = configure("windows.top_p=[0.5,0.1,0.01]", "windows.own_top_p=[0.5,0.1,0.01]").windows.at(64)
    rules = pd.Series(wanted.columns()["rule"])
    of_method = measured(rows, [method], wanted)[1][0]
    own, exact = (of_method["k"][:, rules == rule] for rule in ("own_top_p", "top_p"))
    assert ((own == exact) | (own == exact + 1)).all()  # the own key is kept first, whatever it weighs
    kept = of_method["dropped_mass"][:, rules == "own_top_p"]
    assert (kept <= torch.tensor([0.5, 0.1, 0.01]) * (1 + 1e-5)).all()


@pytest.mark.parametrize("epsilon", [0.1, 0.01])
@pytest.mark.parametrize("name", WEIGHING)
def test_all_keys_are_kept_that_the_estimate_takes_for_more_probable(name, epsilon):
    rows = rows_at(POSITIONS, 64)
    windows = configure("windows/rules=[own_threshold]", f"windows.own_threshold=[{epsilon}]").windows.at(64)
    k_R = measured(rows, [selector(name)], windows)[1][0]["k"][:, 0]
    answer = answer_of(selector(name), rows)
    for k, order_N, log_p_N in zip(k_R.tolist(), answer.order().tolist(), answer.log_p().tolist(), strict=True):
        rest = {key: math.exp(log_p) for key, log_p in enumerate(log_p_N) if abs(log_p) < math.inf}
        wanted = {key for key, p in rest.items() if p > epsilon * sum(rest.values())}
        wanted |= {key for key, log_p in enumerate(log_p_N) if log_p == math.inf}
        assert wanted <= set(order_N[:k])
        assert k == 1 or order_N[k - 1] in wanted  # and none beyond them


def test_a_key_that_is_kept_first_whatever_it_weighs_takes_no_other_s_place():
    """As the row's own, where nearly all mass is on key 0."""
    log_p_RN = torch.tensor([[10.0, -10.0, -10.0, -10.0]])
    own = OwnRows(torch.tensor([[3, 0, 1, 2]]), log_p_RN)
    assert own.count_above(0.1).tolist() == [2]
    assert own.k_min(0.1).tolist() == [2]
    assert own.count_above(1 - 1e-12).tolist() == [1]  # none: a row keeps one key


def test_for_the_oracle_it_is_the_threshold():
    wanted = configure("windows.thresholds=[0.1,0.01,0.9]", "windows.own_threshold=[0.1,0.01,0.9]").windows.at(64)
    rules = pd.Series(wanted.columns()["rule"])
    of_oracle = measured(rows_at(POSITIONS, 64), [selector("oracle")], wanted)[1][0]
    for name in ("k", "dropped_mass", "output_renormalised"):
        assert torch.equal(of_oracle[name][:, rules == "own_threshold"], of_oracle[name][:, rules == "threshold"])


def test_for_the_oracle_it_is_top_p():
    wanted = configure("windows.top_p=[0.5,0.1,0.01]", "windows.own_top_p=[0.5,0.1,0.01]").windows.at(64)
    rules = pd.Series(wanted.columns()["rule"])
    of_oracle = measured(rows_at(POSITIONS, 64), [selector("oracle")], wanted)[1][0]
    for name in ("k", "dropped_mass", "output_renormalised"):
        assert torch.equal(of_oracle[name][:, rules == "own_top_p"], of_oracle[name][:, rules == "top_p"])


@pytest.mark.parametrize("method", [Quest(page=1), Blocks(tile=1, by=MASS)], ids=["quest", "blocks"])
def test_pages_of_one_key_estimate_all_but_the_own_key_exactly(method):
    rows = rows_at(POSITIONS, 64)
    log_p_RN, exact_RN = answer_of(method, rows).log_p(), rows.logits()
    own_RN = torch.nn.functional.one_hot(torch.tensor(POSITIONS), 64).bool()
    assert torch.isposinf(log_p_RN[own_RN]).all()
    torch.testing.assert_close(log_p_RN[~own_RN], exact_RN[~own_RN])


def test_what_is_kept_anyway_counts_beside_what_the_estimate_needs():
    rows = rows_at([63], 64)
    log_p_RN = answer_of(SnapKV(window=10), rows).log_p()
    assert torch.isposinf(log_p_RN).sum() == 11  # the own key and the window
    needs = own_needs(answer_of(SnapKV(window=100), rows), ExactRows.from_logits(rows.logits()), None, Compute())
    assert needs.k_min(0.1).tolist() == [64]  # all keys are in the window


def test_ada_gives_the_oracle_the_least_dropped_mass_of_all_ways_to_share():
    generator = torch.manual_seed(3)
    log_p_HRN = torch.randn(3, 4, 6, generator=generator) * torch.tensor([0.2, 1.0, 4.0])[:, None, None]
    k_HR = Ada([2], floor=0.0).share(log_p_HRN, torch.full((4,), 2))
    assert (k_HR.sum(0) == 6).all()
    falling_HRN = torch.softmax(log_p_HRN.double(), -1).sort(-1, descending=True)[0]
    for r in range(4):

        def dropped(counts, r=r):
            return sum(float(falling_HRN[h, r, k:].sum()) for h, k in enumerate(counts))

        ways = [c for c in itertools.product(range(1, 7), repeat=3) if sum(c) == 6]
        assert dropped(k_HR[:, r].tolist()) == pytest.approx(min(map(dropped, ways)), abs=1e-12)
    assert len({tuple(column) for column in k_HR.T.tolist()}) > 1


def test_ada_keeps_the_floor_and_what_is_certain_and_no_more_than_heads_see():
    log_p_HRN = torch.tensor([[[9.0, 0, 0, 0, 0, 0]], [[9.0, 8.9, 8.8, 8.7, 8.6, 8.5]], [[0.0] + [-torch.inf] * 5]])
    assert Ada([3], floor=1.0).share(log_p_HRN, torch.tensor([3])).flatten().tolist() == [3, 5, 1]
    assert Ada([3], floor=0.0).share(log_p_HRN, torch.tensor([3])).flatten().tolist() == [2, 6, 1]
    certain_HRN = log_p_HRN.clone()
    certain_HRN[0, 0, 1:5] = torch.inf
    assert Ada([3], floor=0.0).share(certain_HRN, torch.tensor([3])).flatten().tolist() == [5, 3, 1]
    assert Ada([50]).share(log_p_HRN, torch.tensor([6])).flatten().tolist() == [6, 6, 1]


def test_equal_keys_are_shared_rank_by_rank():
    log_p_HRN = torch.zeros(3, 2, 8)
    log_p_HRN[:, 1, 5:] = -torch.inf
    assert Ada([4], floor=0.0).share(log_p_HRN, torch.tensor([4, 4])).tolist() == [[4, 4]] * 3
    alone = Ada([4], floor=0.0).share(log_p_HRN[:, 1:, :5], torch.tensor([4]))
    assert alone.tolist() == [[4]] * 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = small.save("llama", tmp_path_factory.mktemp("model"))
    (folder / "text.txt").write_text(small.text())
    return folder


def windows_of(model, folder, *overrides):
    """Measure rows of a model; return windows.parquet."""
    source = ["source=checkpoint", f"source.model={model}", f"source.text={model / 'text.txt'}", "source.samples=2"]
    job = configure(*source, *overrides)
    machine = Machine(torch.device("cpu"), 10**9)
    folder.mkdir()
    record = Record(folder, job.runner.tables)
    job.runner.check(job.source, job.selector, job.windows)
    job.runner.run(job.source, job.selector, job.windows, machine, 0, record, lambda: None)
    record.close("", dict)
    return pd.read_parquet(folder / "windows.parquet")


def test_rows_of_a_layer_share_its_budget(model, tmp_path):
    rules = ["windows/rules=[ada,fixed]", "windows.ada=[6,12]", "windows.fixed=[6,12]"]
    source = ["source.lengths=[48,96]", "source.rows=4"]
    lines = windows_of(model, tmp_path / "record", "selector=own_scores", *rules, *source)
    place = ["selector", "layer", "sample", "length", "parameter"]
    means = lines.pivot_table("k", place, "rule")
    np.testing.assert_allclose(means["ada"], means["fixed"])
    oracle = lines[lines["selector"] == "oracle"]
    dropped = oracle.pivot_table("dropped_mass", ["layer", "parameter"], "rule")
    assert (dropped["ada"] < dropped["fixed"]).all()
    spread = lines[lines["rule"] == "ada"].groupby(place)["k"].nunique()
    assert (spread > 1).any()


@pytest.mark.parametrize("name", WEIGHING)
def test_a_model_that_shares_all_keys_is_dense(name, model):
    loaded, token_N = load_model_of(model)
    dense_NW = forward(loaded, token_N)[0]
    windows = configure("windows/rules=[ada]", "windows.ada=[10000]").windows.at(40)
    with within(loaded, selector(name), windows, 0, 40, Compute(), earlier=earlier_of(name)):
        torch.testing.assert_close(forward(loaded, token_N)[0], dense_NW, rtol=1e-3, atol=1e-3)


def load_model_of(folder):
    located = configure("source=checkpoint", f"source.model={folder}").source.located
    return load_model(located, torch.float32, torch.device("cpu")), torch.arange(40) % 30


def earlier_of(name):
    from experiments.models.earlier import EarlierQueries

    return EarlierQueries() if selector(name).traits.looks_back else None


@pytest.mark.parametrize("name", ["oracle", "sparq", "h2o", "quest"])
def test_a_model_shares_a_layer_as_its_rows_do(name, model):
    loaded, token_N = load_model_of(model)
    windows = configure("windows/rules=[ada]", "windows.ada=[7]").windows.at(40)
    seen = []

    def keys_kept(facts, position_R, layer, head):
        seen.append((layer, head, facts.shared_R))
        return facts.shared_R

    with attend_by(loaded, selector(name), keys_kept, Compute(), share=windows.sharing(0), earlier=earlier_of(name)):
        forward(loaded, token_N)
    for layer in range(3):
        k_HN = torch.stack([k_N for at, _, k_N in seen if at == layer])
        assert k_HN.shape == (4, 40)
        assert (k_HN.sum(0) == 4 * torch.arange(1, 41).clamp(max=7)).all()


@pytest.mark.parametrize("name", ["oracle", "sparq", "quest"])
@pytest.mark.parametrize("rule", ["windows.ada=[7]", "windows.own_top_p=[0.3]", "windows.own_threshold=[0.05]"])
def test_a_decode_step_is_the_same_position_of_a_prefill(name, rule, model):
    """Of refreshed methods: every head keeps as many keys, and the hidden state is the same."""
    loaded, token_N = load_model_of(model)
    windows = configure("windows/rules=[ada,own_top_p,own_threshold]", rule).windows.at(40)
    with within(loaded, selector(name), windows, 0, 40, Compute()) as kept:
        whole_NW = forward(loaded, token_N)[0]
    context = Context(loaded)
    with within(loaded, selector(name), windows, 0, 40, Compute()) as kept_of_steps:
        context.read(token_N[:30])
        step_NW = torch.cat([context.read(token_N[i : i + 1]) for i in range(30, 40)])
    torch.testing.assert_close(step_NW, whole_NW[30:], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(kept_of_steps.mean(), kept.mean())


@pytest.mark.parametrize("rule", ["own_top_p=[0.2]", "own_threshold=[0.01]", "ada=[8]"])
@pytest.mark.parametrize("runner", ["approximation", "language"])
def test_a_learned_sink_is_refused_where_estimates_decide(runner, rule, tmp_path):
    folder = small.save("gpt_oss", tmp_path)
    (folder / "text.txt").write_text(small.text())
    rules = ["windows/rules=[own_top_p,own_threshold,ada]", f"windows.{rule}", "selector=sparq", f"runner={runner}"]
    with pytest.raises(UserError, match="nothing of a learned sink"):
        windows_of(folder, tmp_path / "record", "source.lengths=[48]", "source.rows=4", *rules)


def test_a_query_of_nothing_is_estimated_evenly():
    rows = rows_at([20], 64)
    rows = replace(rows, query_RD=torch.zeros_like(rows.query_RD))
    log_p_RN = answer_of(SparQ(channels=2), rows).log_p()
    assert (log_p_RN[:, :21] == 0).all()


@pytest.mark.parametrize("runner", ["approximation", "language", "retrieval"])
@pytest.mark.parametrize("rule", ["own_top_p=[0.1]", "own_threshold=[0.01]", "ada=[8]"])
def test_a_method_that_estimates_nothing_is_refused_by_name(job, model, runner, rule):
    asked = job(
        "source=checkpoint", f"source.model={model}", f"source.text={model / 'text.txt'}", "source.lengths=[64]",
        f"runner={runner}", "selector=sinks", f"windows.{rule}",
    )  # fmt: skip
    with pytest.raises(UserError, match=rf"selector=sinks: windows.{rule.partition('=')[0]} goes by what a method"):
        asked.runner.check(asked.source, asked.selector, asked.windows)


def test_windows_of_rows_are_not_timed_and_some_heads_share_nothing(job, model):
    source = ["source=checkpoint", f"source.model={model}", f"source.text={model / 'text.txt'}", "source.lengths=[64]"]
    for rule in ("own_top_p=[0.1]", "own_threshold=[0.01]", "ada=[8]"):
        asked = job(*source, "runner=decoding", "windows/rules=[fixed,own_top_p,own_threshold,ada]", f"windows.{rule}")
        with pytest.raises(UserError, match=rf"leave out windows.{rule.partition('=')[0]} "):
            asked.runner.check(asked.source, asked.selector, asked.windows)
    asked = job(*source, "source.heads=[1]", "windows.ada=[8]")
    with pytest.raises(UserError, match=r"leave out source\.heads"):
        asked.runner.check(asked.source, asked.selector, asked.windows)


def test_rules_that_came_later_leave_the_ids_of_records_alone(job):
    rules = [rule["rule"] for rule in job().windows.identity()["rules"]]
    assert not {"ada", "own_top_p", "own_threshold"} & set(rules)
    assert "ada" in [rule["rule"] for rule in job("windows.ada=[8]").windows.identity()["rules"]]
