"""Every source, method and runner at the size of an 8B model and 131,072 tokens on a card of 80 GB, without a card.

A model of two of its layers stands for all of them: what the others hold, weights and caches, is added.
"""

from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
import transformers
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch._subclasses.fake_tensor import DynamicOutputShapeException

from experiments.launch import CONF, configure
from experiments.machine import Machine
from experiments.models import load
from experiments.records.folder import Record
from tests.gpu.fake_card import fake_cards
from tests.models import small
from tests.runners.lm_eval_tasks import write_tasks

TOKENS, CARD, GB = 131_072, 80e9, 1e9
EIGHT_B = {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8}
SEVENTY_B = {"hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "num_key_value_heads": 8}
LAYERS, MEASURED = 32, 2
WEIGHTS_OF_LAYER = 2 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
CACHE_OF_LAYER = 2 * 2 * 8 * 128 * TOKENS
WINDOWS = ["windows.grid_per_octave=0", "windows.exponents=[0.5]", "windows.fixed=[256]"]
ROWS = ["source.layers=[1]", "source.heads=[0,1,2,3]", "source.rows=2"]
ONE_RULE = ["windows/rules=[fixed]"]
DECODE = ["runner.phase=decode", "runner.decode_tokens=4"]
# What these make has a shape that goes with numbers of the model, which a card that is not there does not have.
BY_NUMBERS = {
    "coreset": DynamicOutputShapeException,
    "low_rank": DynamicOutputShapeException,
    "magic_pig": DynamicOutputShapeException,
}
SELECTORS = sorted(
    path.stem
    for path in Path(CONF, "selector").glob("*.yaml")
    if "/schema/selector/several@" not in path.read_text(encoding="utf-8")
)
QUICK = ("oracle", "quest", "snap_kv_prompt")  # the others in make test-all
RUNNERS = {
    "approximation": ROWS,
    "approximation of runs": ["source.layers=[1]", "source.rows=2", "source.runs=[8]"],
    "distance": ["runner=distance", *ROWS],
    "coverage": ["runner=coverage", *ROWS],
    "sketches": ["runner=sketches", *ROWS],
    "language": ["runner=language", *DECODE],
    "language by a method": ["runner=language", *DECODE, "selector=snap_kv_prompt"],
    "columns": ["runner=columns", *ROWS],
    "pruning": ["runner=pruning", "source.layers=[1]", "runner.steps=2", "runner.probes=2"],
    "retrieval": ["runner=retrieval", "runner.depths=[0.5]", *ONE_RULE],
    "retrieval by a method": ["runner=retrieval", "runner.depths=[0.5]", "selector=snap_kv_prompt", *ONE_RULE],
    "decoding": ["runner=decoding", "runner.repeats=1", *ONE_RULE],
    "tasks": ["runner=tasks", "runner/task=[single_needle]", *ONE_RULE],
    "gains": ["runner=gains", "runner.decode_tokens=4", "runner.layers=[1]", "selector=snap_kv_prompt"],
}

NARROW = {
    "vocab_size": 32_000,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "max_position_embeddings": TOKENS,
    "dtype": "bfloat16",
}
FAMILIES = {
    "gemma3": partial(
        transformers.Gemma3TextConfig,
        num_hidden_layers=2,
        layer_types=["sliding_attention", "full_attention"],
        head_dim=256,
        sliding_window=512,
    ),
    "mistral": partial(transformers.MistralConfig, num_hidden_layers=1, sliding_window=4096),
    "qwen3": partial(transformers.Qwen3Config, num_hidden_layers=1, head_dim=128),
    "phi3": partial(transformers.Phi3Config, num_hidden_layers=1, pad_token_id=0, eos_token_id=1),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    (folder / "text.txt").write_text(small.text(TOKENS + 1000))
    return folder


@pytest.fixture
def on_cards(monkeypatch):
    """Make models where cards are, and let transformers attend as it does where nothing is traced."""
    monkeypatch.setattr("transformers.masking_utils.is_tracing", lambda *_: False)

    def drawn(checkpoint, dtype, device, auto):
        config = load._whole_config(checkpoint)
        cls = load._class_of(config, auto)
        with torch.device("meta" if checkpoint.spread else device):
            model = (getattr(cls, "from_config", None) or cls._from_config)(config, dtype=dtype)
        return _spread(model) if checkpoint.spread else model

    monkeypatch.setattr(load, "_with_random_weights", drawn)


@pytest.fixture
def without_gradients(monkeypatch):
    """Take all gradients for 0: autograd asks for the streams of a card in C++, and ends the process without one."""

    def backward(loss, inputs):
        for tensor in inputs:
            tensor.grad = torch.zeros_like(tensor)

    monkeypatch.setattr("torch.autograd.grad", lambda of, by, *_, **__: [torch.zeros_like(tensor) for tensor in by])
    monkeypatch.setattr("torch.Tensor.backward", backward)
    with torch.no_grad():
        yield


def _spread(model):
    """Lay one half of the layers on each of two cards, with accelerate's hooks, which carry states over."""
    half, inner = model.config.num_hidden_layers // 2, model.model
    for part in (inner.embed_tokens, inner.rotary_emb, *inner.layers[:half]):
        _lay(part, "cuda:0")
    for part in (*inner.layers[half:], inner.norm, model.lm_head):
        _lay(part, "cuda:1")
    return model


def _lay(part, card):
    for module in part.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            module._parameters[name] = torch.nn.Parameter(torch.empty_like(weight, device=card), requires_grad=False)
        for name, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[name] = torch.empty_like(buffer, device=card)
    add_hook_to_module(part, AlignDevicesHook(card))


def job_of(folder, config, *overrides):
    text, folder = folder / "text.txt", folder / f"{config.model_type}-{config.num_hidden_layers}"
    config.architectures = ["LlamaForCausalLM"] if config.model_type == "llama" else None
    config.save_pretrained(folder)
    small.write_tokenizer(folder)
    files = [f"source.model={folder}", f"source.text={text}", "source.random_weights=0"]
    few = ["source.dtype=bfloat16", f"source.lengths=[{config.max_position_embeddings}]", "source.samples=1"]
    return configure("source=checkpoint", *files, *few, *WINDOWS, *overrides)


def llama(sizes, layers, tokens):
    shape = {"vocab_size": 128_256, "num_hidden_layers": layers, "max_position_embeddings": tokens}
    return transformers.LlamaConfig(**sizes, **shape, tie_word_embeddings=False, dtype="bfloat16")


def peak_of(job, tmp_path):
    """Return the bytes that each card holds at most while a job is measured, and what was asked of cards."""
    with fake_cards() as card:
        machine = Machine(torch.device("cuda:0"), int(75 * GB))
        record = Record(tmp_path, job.runner.tables)
        job.runner.run(job.source, job.selector, job.windows, machine, 0, record, lambda: None)
    return card


def peak_of_all_layers(job, tmp_path):
    """Return the bytes of a card with all layers of the 8B model, caches too where the runner keeps them."""
    (peak,) = peak_of(job, tmp_path).peak.values()
    cached = job.runner.name in ("language", "gains", "retrieval", "tasks", "decoding")
    return peak + (LAYERS - MEASURED) * (WEIGHTS_OF_LAYER + cached * CACHE_OF_LAYER)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in SELECTORS]
)
def test_every_method_fits_a_card_and_meets_no_other_device(name, folder, tmp_path, on_cards):
    keep = ["source.keep_layers=1"] if name == "shared" else []
    job = job_of(folder, llama(EIGHT_B, MEASURED, TOKENS), f"selector={name}", *ROWS, *keep)
    if name in BY_NUMBERS:
        with pytest.raises(BY_NUMBERS[name]):
            peak_of(job, tmp_path)
        return
    assert peak_of_all_layers(job, tmp_path) < CARD


@pytest.mark.parametrize(
    "name", [name if name == "approximation" else pytest.param(name, marks=pytest.mark.long) for name in RUNNERS]
)
def test_every_runner_fits_a_card_and_meets_no_other_device(name, folder, tmp_path, on_cards, request):
    if name == "pruning":
        request.getfixturevalue("without_gradients")
    job = job_of(folder, llama(EIGHT_B, MEASURED, TOKENS), *RUNNERS[name])
    assert peak_of_all_layers(job, tmp_path) < CARD


@pytest.mark.long
def test_a_request_of_the_harness_meets_no_other_device(folder, tmp_path, on_cards):
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install '.[lm-eval]'")
    tasks = ["runner.tasks=[local_text]", "runner.limit=1", f"runner.include_path={write_tasks(tmp_path / 'tasks')}"]
    job = job_of(folder, llama(EIGHT_B, MEASURED, TOKENS), "runner=lm_eval", *tasks, *ONE_RULE)
    assert max(peak_of(job, tmp_path).peak.values()) < 4 * GB  # weights, and what short requests need


@pytest.mark.long
def test_layers_that_are_added_are_those_of_the_whole_model(folder, tmp_path, on_cards):
    part = peak_of_all_layers(job_of(folder, llama(EIGHT_B, MEASURED, TOKENS), *ROWS), tmp_path)
    (tmp_path / "whole").mkdir()
    (whole,) = peak_of(job_of(folder, llama(EIGHT_B, LAYERS, TOKENS), *ROWS), tmp_path / "whole").peak.values()
    assert whole == pytest.approx(part, rel=0.02)
    assert whole < 30 * GB


@pytest.mark.long
def test_layers_on_two_cards_are_measured_where_they_lie(folder, tmp_path, on_cards, monkeypatch):
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 2)
    sizes = llama(SEVENTY_B, 80, 8192)
    job = job_of(folder, sizes, "source.device_map=auto", "source.layers=[1,79]", "source.heads=[0]", "source.rows=2")
    peak = peak_of(job, tmp_path).peak
    assert len(peak) == 2
    assert 60 * GB < min(peak.values()) <= max(peak.values()) < CARD


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "runner"), [*product(FAMILIES, ["approximation"]), ("qwen3", "language"), ("phi3", "language")]
)
def test_layers_of_a_family_make_nothing_as_large_as_all_rows_by_all_keys(family, runner, folder, tmp_path, on_cards):
    config = FAMILIES[family](**NARROW)
    layers = [0, config.num_hidden_layers - 1]
    rows = [f"source.layers={sorted(set(layers))}", "source.heads=[0]", "source.rows=2"]
    job = job_of(folder, config, *(rows if runner == "approximation" else RUNNERS["language"]), *ONE_RULE)
    assert max(peak_of(job, tmp_path).peak.values()) < TOKENS**2 / 2


@pytest.mark.long
@pytest.mark.parametrize("runner", ["approximation", "language"])
def test_what_learned_sinks_need_grows_with_the_tokens_alone(runner, folder, tmp_path, on_cards, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (9, 0))  # by which experts are multiplied
    peaks = []
    for tokens in (2048, 4096, 8192):  # masks of all rows of 8192 would add 8% to what comes on last
        sizes = NARROW | {"max_position_embeddings": tokens, "num_local_experts": 2, "num_experts_per_tok": 2}
        config = transformers.GptOssConfig(num_hidden_layers=2, head_dim=64, **sizes)  # a sliding layer and a full one
        (here := tmp_path / str(tokens)).mkdir()
        (here / "text.txt").write_text((folder / "text.txt").read_text())
        rows = ["source.layers=[0,1]", "source.heads=[0]", "source.rows=2"]
        job = job_of(here, config, *(rows if runner == "approximation" else RUNNERS["language"]), *ONE_RULE)
        peaks.append(max(peak_of(job, here).peak.values()))
    assert peaks[2] - peaks[1] == pytest.approx(2 * (peaks[1] - peaks[0]), rel=0.01)


@pytest.mark.long
def test_an_encoder_is_measured_on_a_card(folder, tmp_path, on_cards):
    config = transformers.BertConfig(num_hidden_layers=2, dtype="bfloat16")
    job = job_of(folder, config, "source.layers=[0,1]", "source.heads=[0]", "source.rows=2", *ONE_RULE)
    assert 0 < max(peak_of(job, tmp_path).peak.values()) < GB


@pytest.mark.parametrize("source", ["gaussian", "tensor"])
def test_drawn_rows_are_measured_on_a_card(source, tmp_path):
    few = ["source.lengths=[4096]", "source.rows=4", "source.samples=1"]
    assert peak_of(configure(f"source={source}", *few, *WINDOWS), tmp_path).peak
