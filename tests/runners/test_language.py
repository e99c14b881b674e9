"""The language runner against transformers' own loss, and what windows may and may not change."""

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.errors import UserError
from experiments.launch import configure
from experiments.models.load import load_model
from experiments.models.locate import locate
from experiments.models.loss import token_losses
from experiments.records.folder import Record
from tests.models import small

CPU = torch.device("cpu")
TOKENS = torch.arange(90) * 7 % small.VOCABULARY


@pytest.fixture(params=["llama", "mistral", "gpt2"])
def model(request, tmp_path):
    folder = small.save(request.param, tmp_path)
    return load_model(locate(str(folder)), torch.float32, CPU, "AutoModelForCausalLM")


def all_keys(rows, *_):
    return rows.n_R


def root(rows, *_):
    return rows.n_R.double().sqrt().ceil().long()


def test_dense_losses_are_those_of_transformers(model):
    with torch.inference_mode():
        theirs = model(input_ids=TOKENS[None], labels=TOKENS[None]).loss
    assert token_losses(model, TOKENS).mean().item() == pytest.approx(theirs.item(), abs=1e-4)


def test_all_keys_are_dense(model):
    dense = token_losses(model, TOKENS)
    with small.attend_to_top_k(model, all_keys):
        torch.testing.assert_close(token_losses(model, TOKENS), dense, rtol=0, atol=1e-4)


def test_a_later_token_changes_no_earlier_loss(model):
    with small.attend_to_top_k(model, root, keep_first=2, keep_recent=3):
        whole, shorter = token_losses(model, TOKENS), token_losses(model, TOKENS[:50])
    torch.testing.assert_close(whole[:49], shorter, rtol=1e-4, atol=1e-4)


def test_block_size_changes_nothing(model, monkeypatch):
    with small.attend_to_top_k(model, root):
        expected = token_losses(model, TOKENS)
        for block in (1, 7, 90):
            monkeypatch.setattr("experiments.models.attend.BLOCK", block)
            torch.testing.assert_close(token_losses(model, TOKENS), expected, rtol=1e-4, atol=1e-4)


def test_layers_that_are_left_out_attend_densely(model):
    dense = token_losses(model, TOKENS)
    with small.attend_to_top_k(model, root, layers=[]):
        torch.testing.assert_close(token_losses(model, TOKENS), dense)
    with small.attend_to_top_k(model, root, layers=[1]):
        assert (token_losses(model, TOKENS) - dense).abs().max() > 1e-4


def test_windows_may_differ_between_layers_and_heads(model):
    seen = set()

    def by_head(rows, position_R, layer, head):
        seen.add((layer, head))
        return rows.n_R if head else root(rows)

    with small.attend_to_top_k(model, by_head):
        losses = token_losses(model, TOKENS)
    heads, layers = model.config.num_attention_heads, model.config.num_hidden_layers
    assert seen == {(layer, head) for layer in range(layers) for head in range(heads)}
    assert (losses - token_losses(model, TOKENS)).abs().max() > 1e-4


def test_tokens_kept_first_and_recent_are_kept(model):
    with small.attend_to_top_k(model, lambda rows, *_: torch.ones_like(rows.n_R), keep_recent=200):
        everything = token_losses(model, TOKENS)
    torch.testing.assert_close(everything, token_losses(model, TOKENS), rtol=0, atol=1e-4)


def test_the_record_has_the_losses_of_every_window(tmp_path):
    folder = small.save("llama", tmp_path)
    job = configure(
        "runner=language",
        "source=checkpoint",
        f"source.model={folder}",
        "source.lengths=[64]",
        "source.rows=1",
        "source.samples=2",
        "windows.exponents=[0.5]",
        "windows.fixed=[10000]",
        "windows.log_powers=[]",
        "windows.fractions=[]",
        "windows.thresholds=[]",
        "windows.top_p=[0.1]",
        "windows.grid_per_octave=0",
    )
    calls = []
    (tmp_path / "record").mkdir()
    record = Record(tmp_path / "record", job.runner.tables)
    machine = type("Machine", (), {"device": CPU, "memory_bytes": 10**9})
    job.runner.run(job.source, job.selector, job.windows, machine, 0, record, lambda: calls.append(1))
    record.close("", dict)
    losses = pd.read_parquet(tmp_path / "record" / "losses.parquet")
    assert len(calls) == job.runner.groups(job.source, job.selector, job.windows) == 2 * 4
    assert set(losses["phase"]) == {"prefill"}
    assert losses.groupby(["sample", "rule"]).size().eq(63).all()
    wide = losses.pivot_table("loss", ["sample", "position"], "rule")
    np.testing.assert_allclose(wide["fixed"], wide["dense"], atol=1e-4)
    keys = losses.pivot_table("keys", "position", "rule")
    np.testing.assert_allclose(keys["power"], np.ceil(np.sqrt(np.arange(1, 64)) * (1 - 1e-9)))
    assert (keys["top_p"] <= keys["dense"]).all()
    assert (keys["power"] < keys["dense"])[10:].all()


def test_what_is_no_language_model_is_refused():
    job = configure("runner=language")
    with pytest.raises(UserError, match="needs a language model"):
        job.runner.check(job.source, job.selector, job.windows)
