"""A plan counts all that a job does; its seconds are only an estimate, so that tests compare plans."""

import numba
import pytest
import torch
import transformers

from experiments.errors import UserError
from experiments.launch import configure
from experiments.machine import Machine
from experiments.models.trial import seconds_of_readings
from experiments.plan import PROCESS_BYTES, UNION_SECONDS, memory_of
from experiments.runners.phases import seconds_of_comparing
from tests.models import small

MACHINE = Machine(torch.device("cpu"), 4_000_000_000)


@pytest.fixture
def checkpoint(tmp_path):
    def job(family, *overrides, **settings):
        folder = small.save(family, tmp_path, **settings)
        (tmp_path / "text.txt").write_text(small.text())
        few = ["source.lengths=[64,128]", "source.rows=4", "source.samples=2", "source.stride=1"]
        return configure(
            "source=checkpoint", f"source.model={folder}", f"source.text={tmp_path / 'text.txt'}", *few, *overrides
        )

    return job


def planned(job):
    return job.runner.plan(job.source, job.selector, job.windows, MACHINE)


def test_consecutive_rows_are_counted(checkpoint, monkeypatch):
    monkeypatch.setattr("experiments.plan._seconds_per_entry", lambda *_: 0.0)
    plain, runs = planned(checkpoint("llama")), planned(checkpoint("llama", "source.runs=[8,32]"))
    entries = 3 * 4 * 2 * 32 * (64 + 128)  # layers, heads, samples, rows of the longest run, keys
    assert runs.seconds - plain.seconds == pytest.approx(entries * UNION_SECONDS / torch.get_num_threads())


@pytest.mark.parametrize(("family", "hides"), [("llama", False), ("mistral", True)])
def test_masks_are_counted_where_layers_hide_keys(checkpoint, family, hides):
    source = checkpoint(family).source
    assert (source.mask_bytes() > 0) == hides
    assert memory_of(source) == PROCESS_BYTES + source.resident_bytes() + source.mask_bytes()
    assert not hides or source.mask_bytes() >= 128**2 * torch.float32.itemsize


@pytest.mark.parametrize(("width", "times"), [(32, 0.30), (512, 0.26)])
def test_a_layer_that_hides_keys_costs_the_blocks_that_it_reads(tmp_path, width, times):
    """As measured at 16k tokens: seconds of a layer of 4 heads over a sliding window, over those of a causal one."""
    (tmp_path / "text.txt").write_text(small.text(20_000))
    seconds = []
    for family in ("llama", "mistral"):
        folder = small.save(family, tmp_path / family, hidden_size=width, max_position_embeddings=20_000)
        few = ["source.lengths=[4096,16384]", "source.samples=1", f"source.text={tmp_path / 'text.txt'}"]
        seconds.append(configure("source=checkpoint", f"source.model={folder}", *few).source.seconds(MACHINE))
    assert times / 1.3 < seconds[1] / seconds[0] < times * 1.3


def test_a_checkpoint_has_enough_lengths_by_default_to_rank_laws():
    """Six: laws of two and three parameters are compared by AICc, which needs more points than four."""
    for source in ("checkpoint", "gaussian", "smollm2"):
        model = ["source.model=x"] if source == "checkpoint" else []
        lengths = configure(f"source={source}", *model).source.lengths
        assert len(lengths) >= 6


def test_a_model_that_compares_text_with_pictures_is_refused_by_its_plan(tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    pictures = sizes | {"image_size": 32, "patch_size": 16}
    config = transformers.CLIPConfig(text_config=sizes | {"vocab_size": small.VOCABULARY}, vision_config=pictures)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "clip")
    small.write_tokenizer(tmp_path / "clip")
    (tmp_path / "text.txt").write_text(small.text())
    words = [f"source.model={tmp_path / 'clip'}", f"source.text={tmp_path / 'text.txt'}", "source.lengths=[8,16]"]
    with pytest.raises(UserError, match="compares text with pictures"):
        planned(configure("source=checkpoint", *words, "source.rows=4"))


@pytest.fixture
def ticking(monkeypatch):
    """A clock that is a second later each time it is read, so that every reading of a trial takes one."""
    ticks = iter(range(10**6))
    monkeypatch.setattr("experiments.models.trial.time.process_time", lambda: float(next(ticks)))


WINDOWS = ["windows/rules=[fixed,linear]", "windows.fixed=[4,8,16,32]", "windows.fractions=[0.5]"]  # five


@pytest.mark.parametrize(
    ("runner", "texts"),
    [
        (["runner.phase=decode", "runner.decode_tokens=16"], 1.5),  # 64 tokens read half of what 128 do
        (["runner.phase=prefill"], 1.0),  # of the longest alone
        (["runner.phase=prefill", "runner.layers=[1]"], 1 / 3),
    ],
)
def test_every_reading_by_a_method_is_tried(checkpoint, ticking, runner, texts):
    job = checkpoint("llama", "runner=language", "selector=frozen", *WINDOWS, *runner)
    plain = job.source.seconds(MACHINE)
    tokens = 2 * 16 if "decode" in runner[0] else 127
    readings, kv_heads = 2 * 5, 2 * 3  # methods in windows, and KV heads of three layers
    expected = plain * (1 + readings * tokens / 128) + 2 * texts * readings * kv_heads / torch.get_num_threads()
    compared = seconds_of_comparing(job.source, MACHINE, 2 * readings * tokens)
    assert planned(job).seconds == pytest.approx(expected + compared)


@pytest.mark.parametrize(("per", "units"), [("layer", 3), ("kv_head", 6)])
def test_a_unit_that_keeps_few_keys_is_planned_as_a_trial_of_its_layer(checkpoint, ticking, per, units):
    """That a KV head alone keeps few keys costs what its layer does: the method reads all of it."""
    job = checkpoint("llama", "runner=gains", "selector=frozen", *WINDOWS, f"runner.per={per}")
    plain, passes = job.source.seconds(MACHINE), units * 2 * 5
    within = 2 * 1.5 * 2 * passes / torch.get_num_threads()  # two samples of texts of 128 and 64 tokens, two KV heads
    compared = seconds_of_comparing(job.source, MACHINE, 2 * 2 * 32 * passes)
    assert planned(job).seconds == pytest.approx(plain * (1 + 3 * passes * 2 * 32 / 128) + within + compared)


def test_a_long_context_costs_what_its_beginning_foretells(checkpoint, ticking, monkeypatch):
    monkeypatch.setattr("experiments.models.trial.CONTEXT", 64)
    monkeypatch.setattr("experiments.models.trial.PREFILLED", 32)
    job = checkpoint("llama", "runner=language", *WINDOWS)
    windows, methods = job.windows.at(128), [job.selector]
    how = {"length": 128, "machine": MACHINE}
    assert seconds_of_readings(job.source, methods, windows, tokens=8, **how) * torch.get_num_threads() == 2 * 5 * 6
    # a trial of half as many tokens takes as long here: nothing grows as their square
    assert seconds_of_readings(job.source, methods, windows, tokens=128, **how) * torch.get_num_threads() == 4 * 5 * 6
    monkeypatch.setattr("experiments.models.trial._trial", lambda *given: given[-1] ** 2 + 3.0 * given[-1])
    within = seconds_of_readings(job.source, methods, windows, tokens=128, **how) * torch.get_num_threads()
    assert within == pytest.approx(6 * (128**2 + 3 * 128))


def test_what_a_trial_compiles_is_no_part_of_its_seconds(checkpoint, monkeypatch):
    """A fresh clone has no compiled kernels: a plan was three times what the next one was."""
    taken = iter([100.0, 1.0])
    monkeypatch.setattr("experiments.models.trial.WARM_UP", 8)

    def reading(model, methods, windows, weights, machine, length, tokens):
        if length == 8:
            return 0.0
        seconds = next(taken)
        if seconds == 100:
            numba.njit(lambda x: x + 1)(1)
        return seconds

    monkeypatch.setattr("experiments.models.trial._trial", reading)
    job = checkpoint("llama", "runner=language", *WINDOWS)
    how = {"length": 128, "tokens": 128, "machine": MACHINE}
    assert seconds_of_readings(job.source, [job.selector], job.windows.at(128), **how) * torch.get_num_threads() == 6
    assert not list(taken)


@pytest.mark.parametrize("selector", ["in_model", "in_model_others", "own_scores", "in_prefill", "deployed"])
def test_every_method_that_a_model_reads_by_has_a_trial(checkpoint, selector):
    own = ["windows/rules=[own_top_p,ada]", "windows.own_top_p=[0.1]", "windows.ada=[48]"]
    rules = own if selector == "own_scores" else ["windows/rules=[fixed]", "windows.fixed=[40]"]
    phase = "prefill" if selector == "in_prefill" else "decode"
    few = ["runner.decode_tokens=4", f"runner.phase={phase}"]
    assert planned(checkpoint("llama", "runner=language", f"selector={selector}", *rules, *few)).seconds > 0


def test_an_estimate_without_a_value_is_refused_by_the_name_of_its_method(checkpoint):
    """In a set of methods nothing else tells whose it is."""
    few = ["windows/rules=[fixed]", "windows.fixed=[1]", "runner.phase=decode", "runner.decode_tokens=8"]
    with pytest.raises(UserError, match=r"selector=coreset: an estimated row"):
        planned(checkpoint("llama", "runner=language", "selector=coreset", *few))


@pytest.mark.parametrize("runner", ["language", "tasks", "retrieval", "gains"])
def test_rules_without_a_window_are_no_part_of_a_trial(checkpoint, runner):
    """Those of windows=standard that are off unless asked for."""
    assert planned(checkpoint("llama", f"runner={runner}", "source.lengths=[256]")).seconds > 0


def test_a_window_that_is_too_small_in_a_shorter_trial_is_tried_in_the_whole_context(checkpoint, monkeypatch):
    """A polynomial of degree 2 needs 25 keys here, which are a quarter of the context, and not of half of it."""
    monkeypatch.setattr("experiments.models.trial.CONTEXT", 64)
    method = ["selector=polynomial", "selector.degree=2"]

    def seconds(share):
        linear = ["windows/rules=[linear]", f"windows.fractions=[{share}]"]
        decode = ["runner=language", "runner.phase=decode", "runner.decode_tokens=8"]
        return planned(checkpoint("llama", *method, *linear, *decode)).seconds

    assert seconds(0.25) > 0
    with pytest.raises(UserError, match="below its least"):
        seconds(0.1)
