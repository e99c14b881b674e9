"""source.device_map=auto: layers lie where accelerate puts them, and no number and no run id depends on it."""

import accelerate
import pandas as pd
import pytest
import torch

from experiments.errors import UserError
from experiments.launch import configure
from experiments.models.load import _check_held, load_model
from experiments.models.loss import token_losses
from experiments.records.folder import Record
from experiments.records.identity import run_id
from tests.models import small

MACHINE = type("Machine", (), {"device": torch.device("cpu"), "memory_bytes": 10**9})
TABLES = {"approximation": "windows", "language": "losses"}


@pytest.fixture
def job(tmp_path):
    folder = small.save("llama", tmp_path / "model")
    (tmp_path / "text.txt").write_text(small.text())
    few = ["source.lengths=[24,48]", "source.rows=2", "source.samples=1", "windows.fixed=[4]"]
    paths = [f"source.model={folder}", f"source.text={tmp_path / 'text.txt'}"]
    return lambda *overrides: configure("source=checkpoint", *paths, *few, *overrides)


def measured(job, table, folder):
    folder.mkdir()
    record = Record(folder, job.runner.tables)
    job.runner.run(job.source, job.selector, job.windows, MACHINE, 0, record, lambda: None)
    record.close("", dict)
    return pd.read_parquet(folder / f"{table}.parquet")


@pytest.mark.parametrize("weights", ["null", "3"])
@pytest.mark.parametrize("runner", TABLES)
def test_a_model_that_is_spread_gives_the_same_record(runner, weights, job, tmp_path):
    table = TABLES[runner]
    given = [f"runner={runner}", f"source.random_weights={weights}"]
    alone, spread = job(*given), job(*given, "source.device_map=auto")
    assert run_id(alone) == run_id(spread)
    pd.testing.assert_frame_equal(
        measured(alone, table, tmp_path / "alone"), measured(spread, table, tmp_path / "spread")
    )


def test_weights_that_the_cards_do_not_hold_are_refused(job):
    """Accelerate leaves them on `meta`, and would bring each layer's as it is run."""
    located = job("source.device_map=auto").source.located
    model = load_model(located, torch.float32, torch.device("cpu"))
    _check_held(located, model)
    model.get_decoder().layers[1].mlp.to("meta")
    with pytest.raises(UserError, match=r"3 of them, such as .*layers\.1\.mlp"):
        _check_held(located, model)


def test_hooks_of_accelerate_stay_through_losses(job):
    """Losses put the model's own states in the place of its body, which accelerate's hooks wrap."""
    source = job("source.device_map=auto").source
    model = load_model(source.located, torch.float32, torch.device("cpu"), "AutoModelForCausalLM")
    token_N = torch.arange(40)
    before = token_losses(model, token_N)
    accelerate.hooks.add_hook_to_module(model.model, accelerate.hooks.ModelHook())
    hooked = model.model.forward
    torch.testing.assert_close(token_losses(model, token_N), before, rtol=0, atol=0)
    assert model.model.forward is hooked
