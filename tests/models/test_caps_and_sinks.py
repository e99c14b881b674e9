"""Soft-capped logits (Gemma 2) and learned sinks (gpt-oss) in every runner, against eager attention."""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from experiments.errors import UserError
from experiments.launch import configure
from experiments.models.attend import cache_of
from experiments.models.context import Context
from experiments.models.earlier import EarlierQueries
from experiments.models.load import load_model
from experiments.models.locate import locate
from experiments.models.probe import check_watchable, forward, intercept, watch
from experiments.records.folder import Record
from experiments.runners.decoding import Prepared, _Step
from experiments.selectors.oracle import Oracle
from experiments.selectors.several import Several
from experiments.selectors.sharpened import Sharpened
from experiments.sources import MatrixRequest
from experiments.sources.checkpoint import Checkpoint
from experiments.tables.rows import ETAS
from experiments.windows import Windows
from experiments.windows.rules.fixed import Fixed
from tests import brute_force
from tests.models import small, test_methods
from tests.selectors.test_selectors import ORDERED, selector

CPU = torch.device("cpu")
LENGTH, ROWS = 40, 4
FAMILIES = ["capped", "sink"]
MODELS = {
    "capped": ("gemma2", {"attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8, "sliding_window": 16}),
    "sink": ("gpt_oss", {"sliding_window": 16, "num_hidden_layers": 2}),
    "capped_wide": (
        "gemma2",
        {"attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8, "sliding_window": 256, "num_hidden_layers": 1},
    ),
    "sink_wide": ("gpt_oss", {"sliding_window": 256, "num_hidden_layers": 1}),
}


@cache
def checkpoint(name):
    """Return a small model whose cap or sinks matter, for as long as this process lives."""
    folder = Path(tempfile.mkdtemp()) / name
    family, settings = MODELS[name]
    small.save(family, folder, **settings)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "q_proj.weight" in parameter_name:
                parameter.mul_(8.0 if family == "gemma2" else 1.0)
            if parameter_name.endswith("sinks"):
                parameter.copy_(torch.linspace(-1, 3, len(parameter)))
    model.save_pretrained(folder)
    (folder / "text.txt").write_text(small.text())
    return folder


def causal_model(name):
    return load_model(locate(str(checkpoint(name))), torch.float32, CPU, "AutoModelForCausalLM")


def source_of(name, **settings):
    folder = checkpoint(name)
    given = {"lengths": [20, LENGTH], "rows": ROWS, "samples": 1, "text": str(folder / "text.txt")} | settings
    return Checkpoint(model=str(folder), **given)


def eager(name, token_N):
    """Return transformers' own eager rows of each layer [H, N, N], and its logits over the vocabulary [N, C]."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint(name), attn_implementation="eager", dtype=torch.float32
    ).eval()
    with torch.inference_mode():
        output = model(input_ids=token_N[None], output_attentions=True, use_cache=False)
    return [layer[0] for layer in output.attentions], output.logits[0]


def pushed(source):
    groups = []
    source.stream(
        groups.extend, seed=0, device=CPU, matrices=MatrixRequest([], []), record=lambda rows: None, runs=pytest.fail
    )
    return groups


def probabilities(logits, sink):
    """Return the probabilities of the visible keys of one row, float64."""
    entries = logits if sink is None else np.append(logits, sink)
    return brute_force.softmax(entries.astype(float))[: len(logits)]


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_are_eager_attentions_and_would_not_be_without_cap_or_sink(name):
    source = source_of(name)
    layers, _ = eager(name, source._token_samples()[0])
    without = []
    for rows in pushed(source):
        logits_RN, sink_R = rows.logits().numpy(), rows.sink_R
        for r, (head, position) in enumerate(zip(rows.head_R, rows.position_R, strict=True)):
            expected_N = layers[rows.layer][head, position, : rows.length].numpy()
            result_N = probabilities(logits_RN[r], None if sink_R is None else float(sink_R[r]))
            assert result_N == pytest.approx(expected_N, rel=1e-4, abs=1e-6)
            plain = replace(rows, softcap=None, sink_S=None).logits()[r].numpy()
            without.append(np.abs(probabilities(plain, None) - expected_N).max())
    assert max(without) > 0.1


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_is_watched_without_changing_what_it_says(name):
    model, token_N = causal_model(name), source_of(name)._token_samples()[0]
    own = forward(model, token_N)
    with watch(model, lambda attention: None):
        torch.testing.assert_close(forward(model, token_N), own, rtol=0, atol=1e-4)
    assert model.config._attn_implementation == "eager"
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert check_watchable(model.to(dtype), token_N[:12])


def record_of(name, folder, *overrides, method=None):
    """Run a job and return the folder of its record."""
    job = configure(
        *test_methods.SOURCE,
        f"source.model={checkpoint(name)}",
        f"source.text={checkpoint(name) / 'text.txt'}",
        *test_methods.WINDOWS,
        *overrides,
    )
    job = job if method is None else replace(job, selector=method)
    record = Record(folder, job.runner.tables)
    machine = type("Machine", (), {"device": CPU, "memory_bytes": 10**9})
    job.runner.check(job.source, job.selector, job.windows)
    job.runner.run(job.source, job.selector, job.windows, machine, 0, record, lambda: None)
    record.close("", dict)
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_a_record_of_rows_is_that_of_a_brute_force(name, tmp_path):
    """k_min, the learned sink's mass, dropped mass and output error, from eager's rows and the model's own values."""
    overrides = ["runner=approximation", f"source.lengths=[{LENGTH}]", f"source.rows={ROWS}", "windows.fixed=[3,8]"]
    folder = record_of(name, tmp_path, *overrides)
    rows, windows = (pd.read_parquet(folder / f"{table}.parquet") for table in ("rows", "windows"))
    token_N, value_of = source_of(name)._token_samples()[0], {}
    layers, _ = eager(name, token_N)
    with watch(model := causal_model(name), lambda attention: value_of.update({attention.layer: attention.value_GNV})):
        forward(model, token_N)
    for line in rows.to_dict("records"):
        p = layers[line["layer"]][line["head"], line["position"]].double().numpy()
        assert line["learned_sink_mass"] == pytest.approx(1 - p.sum(), abs=1e-5)
        falling = np.sort(p)[::-1]
        for eta in ETAS:
            assert line[f"k_min_{eta:g}"] in [
                next(k for k in range(1, len(p) + 1) if falling[k:].sum() <= eta + slack) for slack in (1e-5, -1e-5)
            ]
    for line in windows.to_dict("records"):
        dropped, errors, outputs = [], [], []
        for position in range(LENGTH - ROWS, LENGTH):
            p = layers[line["layer"]][line["head"], position].double().numpy()
            value_NV = value_of[line["layer"]][line["head"] // 2].double().numpy()
            kept = brute_force.ranked(p)[: int(line["parameter"])]
            tau = p.sum() - p[kept].sum()
            dropped.append(tau)
            outputs.append(p @ value_NV)
            errors.append(p @ value_NV - p[kept] @ value_NV[kept] / (1 - tau))
        assert line["dropped_mass"] == pytest.approx(np.mean(dropped), abs=1e-5)
        expected = np.sqrt(np.square(errors).sum() / np.square(outputs).sum())
        assert line["output_error_renormalised"] == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("name", FAMILIES)
def test_dense_losses_are_the_models_own(name, phase, tmp_path):
    folder = record_of(name, tmp_path, *test_methods.WAYS[f"language, {phase}"], "source.lengths=[40]")
    losses = pd.read_parquet(folder / "losses.parquet")
    dense = losses[losses["rule"] == "dense"].sort_values("position")
    token_N = source_of(name)._token_samples()[0]
    logits_NC = eager(name, token_N)[1].double()
    true_N = torch.nn.functional.cross_entropy(logits_NC[:-1], token_N[1:], reduction="none").numpy()
    assert dense["loss"].to_numpy() == pytest.approx(true_N[dense["position"].to_numpy()], abs=1e-4)


WIDE = ["capped_wide", "sink_wide"]  # where every layer keeps all keys, methods that look back are timed too


@pytest.mark.parametrize("way", test_methods.WAYS)
@pytest.mark.parametrize("name", WIDE)
def test_every_method_that_keeps_keys_runs_in_every_runner(name, way, tmp_path):
    """Within a window of all keys each is dense attention, as the model has it, but those that weigh their keys."""
    methods = [selector(method) for method in ORDERED]
    parts = {part.name: part for part in methods if not (part.traits.frozen and way.endswith("prefill"))}
    folder = record_of(name, tmp_path, *test_methods.WAYS[way], method=Several(parts))
    (table,) = (path for path in folder.glob("*.parquet") if path.stem in test_methods.TABLES.values())
    result = pd.read_parquet(table)
    assert set(result["selector"]) - {"dense"} == set(parts)
    if way in test_methods.MODEL_WAYS:
        value = "loss" if "loss" in result else "log_prob"
        line = [column for column in ("sample", "length", "position", "depth") if column in result]
        dense = result[result["rule"] == "dense"].set_index(line)[value]
        for method, of_method in result[result["parameter"] == 10000].groupby("selector"):
            if method not in test_methods.WEIGHTED:
                gap = (of_method.set_index(line)[value] - dense).abs()
                assert gap.max() < 1e-3, method


@pytest.mark.parametrize("way", ["rows", "language, decode", "decoding"])
@pytest.mark.parametrize("method", ["mean_value", "sharpened"])
def test_what_estimates_a_whole_row_is_refused_beside_a_learned_sink(method, way, tmp_path):
    with pytest.raises(UserError, match=f"selector={method}: it estimates whole rows.*learned sink"):
        record_of("sink", tmp_path, *test_methods.WAYS[way], method=selector(method))


@pytest.mark.parametrize("name", FAMILIES)
def test_proportional_attention_is_refused_where_it_has_no_meaning(name, tmp_path):
    with pytest.raises(UserError, match=r"runner\.score_power=2: .* soft cap and no learned sink"):
        record_of(name, tmp_path, "runner=approximation", "runner.score_power=2")


def test_a_sharper_softmax_is_of_capped_logits(tmp_path):
    """By a factor of 1 it is dense attention; it makes whole rows there, so that it is not timed."""
    folder = record_of("capped", tmp_path, *test_methods.WAYS["language, prefill"], method=Sharpened(1.0))
    losses = pd.read_parquet(folder / "losses.parquet").pivot_table("loss", "position", "rule")
    assert (losses["any"] - losses["dense"]).abs().max() < 1e-3
    with pytest.raises(UserError, match="selector=sharpened: without an output of its own it is not timed"):
        record_of("capped", tmp_path / "timed", *test_methods.WAYS["decoding"], method=Sharpened(1.0))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_decode_step_over_all_keys_is_eager_attention(name):
    token_N = source_of(name)._token_samples()[0]
    model, expected_NW = causal_model(name), forward(causal_model(name), token_N)[0]
    context, prepared = Context(model), Prepared(Oracle(), 0, None)
    context.read(token_N[:-1])
    step, everything = _Step(), Windows([Fixed([1000])], [[(1000, 1.0)]])
    with intercept(model, lambda attention: step.attend(attention, prepared, everything)):
        state_1W = context.read(token_N[-1:])
    torch.testing.assert_close(state_1W, expected_NW[-1:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_methods_that_look_back_see_the_models_own_attention(name):
    model, token_N = causal_model(name), source_of(name)._token_samples()[0]
    layers, _ = eager(name, token_N)
    earlier, caches = EarlierQueries(), []

    def look(attention):
        earlier.add(attention)
        caches.append(cache_of(attention, range(2), earlier))

    with watch(model, look):
        forward(model, token_N)
        for layer, seen in enumerate(caches):
            for kv_head in (0, 1):
                expected_STN = layers[layer][2 * kv_head : 2 * kv_head + 2, 5:20, :20]
                torch.testing.assert_close(seen.earlier_rows(kv_head, 5, 20), expected_STN, rtol=1e-4, atol=1e-5)
    for rows in pushed(source_of(name, lengths=[LENGTH])):
        seen_STN = rows.cache().earlier_rows(0, 5, 20)
        expected_STN = layers[rows.layer][2 * rows.kv_head : 2 * rows.kv_head + 2, 5:20, :20]
        torch.testing.assert_close(seen_STN, expected_STN, rtol=1e-4, atol=1e-5)


def test_sinks_of_another_shape_are_refused(monkeypatch):
    model = causal_model("sink")
    plain = type(model.model.layers[0].self_attn).forward

    def handing_over(self, *args, **kwargs):
        self.sinks = torch.nn.Parameter(torch.zeros(5))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(type(model.model.layers[0].self_attn), "forward", handing_over)
    with pytest.raises(UserError, match="layer 0 has learned sinks of another shape than one a head"):
        check_watchable(model, torch.arange(12))
