"""Two jobs have one run id if and only if they measure the same numbers, whichever field tells them apart."""

import dataclasses
import json

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from experiments.errors import UserError
from experiments.launch import configure
from experiments.records.folder import Record
from experiments.records.identity import run_id
from experiments.runners.retrieval import CITIES
from experiments.windows.standard import FIRST
from tests.models import small
from tests.runners.lm_eval_tasks import write_tasks

SMALL = [
    *("windows.fixed=[5]", "windows.log_powers=[]", "windows.log_factors=[1]", "windows.exponents=[]"),
    *("windows.fractions=[]", "windows.top_p=[]", "windows.thresholds=[]", "windows.grid_per_octave=0"),
    *("selector=sinks", "selector.sinks=2", "source.samples=1", "source.rows=2"),
]
CASES = {
    "gaussian": ["source.lengths=[16,32]"],
    "approximation": ["source=checkpoint", "source.lengths=[16,24]", "source.variants=[plain,no_sink]"],
    "matrices": ["source.lengths=[16]", "runner.matrix_layers=[0]", "runner.matrix_heads=[0]"],
    "prefill": ["source=checkpoint", "source.lengths=[24,32]", "runner=language"],
    "decode": ["source=checkpoint", "source.lengths=[24,32]", "runner=language", "runner.phase=decode"],
    "gains": ["source=checkpoint", "source.lengths=[24,32]", "runner=gains"],
    "retrieval": ["source=checkpoint", "source.lengths=[80,96]", "runner=retrieval", "runner.depths=[0.2,0.6]"],
    "decoding": ["source=checkpoint", "source.lengths=[24,32]", "runner=decoding"],
    "lm_eval": ["source=checkpoint", "source.lengths=[24,32]", "runner=lm_eval", "runner.tasks=[local_text]"],
}
BASE = {
    "decode": {"decode_tokens": 8},
    "gains": {"decode_tokens": 8},
    "decoding": {"repeats": 1},
    "lm_eval": {"fewshot": 1, "limit": 3},
}

# Another value of each field of each part; two where one alone is refused.
SOURCE = {
    "lengths": {"lengths": [20, 32]},
    "rows": {"rows": 3},
    "samples": {"samples": 2},
    "name": {"name": "other"},
    "dtype": {"dtype": "float64"},
}
GAUSSIAN = SOURCE | {
    "s": {"s": 0.7},
    "sigma": {"s": None, "sigma": 2.0},
    "inputs": {"inputs": "layernorm"},
    "head_dim": {"head_dim": 32},
}
CHECKPOINT = SOURCE | {
    "model": {"model": "OTHER"},
    "text": {"text": "OTHER"},
    "shuffle": {"shuffle": True},
    "layers": {"layers": [1]},
    "heads": {"heads": [1]},
    "variants": {"variants": ["plain", "truncated_context"]},
    "stride": {"stride": 3},
    "runs": {"runs": [2]},
    "keep_layers": {"keep_layers": 1},
    "random_weights": {"random_weights": 0},
    "device_map": {"device_map": "auto"},
    "trust_remote_code": {"trust_remote_code": True},
}
KEPT = {"keep_first": {"keep_first": 3}, "keep_recent": {"keep_recent": 4}}
MATRICES = {"matrix_layers": [1], "matrix_heads": [1]}
RUNNERS = {
    "approximation": {
        "name": {"name": "other"},
        "matrix_layers": MATRICES,
        "matrix_heads": MATRICES,
        "matrix_size": {"matrix_size": 8},
        "window_variants": {"window_variants": ["no_sink"]},
        "score_power": {"score_power": 2.0},
    },
    "language": KEPT
    | {
        "name": {"name": "other"},
        "phase": {"phase": "decode", "decode_tokens": 12},
        "decode_tokens": {"decode_tokens": 12},
        "layers": {"layers": [1]},
    },
    "gains": {
        "name": {"name": "other"},
        "decode_tokens": {"decode_tokens": 12},
        "per": {"per": "kv_head"},
        "layers": {"layers": [1]},
    },
    "retrieval": KEPT
    | {
        "name": {"name": "other"},
        "depths": {"depths": [0.2, 0.5]},
        "phase": {"phase": "prefill"},
        "sharpen": {"sharpen": [1.5]},
    },
    "decoding": {"name": {"name": "other"}, "repeats": {"repeats": 2}},
    "lm_eval": {
        "name": {"name": "other"},
        "tasks": {"tasks": ["local_empty"]},
        "include_path": {"include_path": "OTHER"},
        "limit": {"limit": 2},
        "fewshot": {"fewshot": 2},
        "phase": {"phase": "prefill"},
    },
}
SELECTOR = {"name": {"name": "other"}, "sinks": {"sinks": 1}}
RULES = {
    "fixed": {"keys": [3]},
    "log": {"powers": [2.0]},
    "power": {"exponents": [0.7]},
    "linear": {"fractions": [0.3]},
    "top_p": {"etas": [0.3]},
    "threshold": {"epsilons": [0.03]},
    "grid": {"per_octave": 1},
    "own_top_p": {"etas": [0.3]},  # refused where the method estimates nothing
    "own_threshold": {"epsilons": [0.03]},
    "ada": {"keys": [3]},
    "relative_threshold": {"factors": [0.3]},
    "peak_threshold": {"factors": [0.3]},
}
# What is timed: where these differ, the clock alone can tell.
TIMED = {"source.model", "source.random_weights", "source.text", "source.shuffle", "selector.sinks"}
REST = {
    "seed": 1,
    "experiment": "other",
    "device": "cpu",
    "memory_gb": 2.0,
    "threads": 1,
    "triton": True,
    "outputs": "elsewhere",
    "plan": True,
    "force": True,
    "tracking": None,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return a folder with a tiny model, another model, and two texts of which it knows every word and digit."""
    folder = tmp_path_factory.mktemp("models")
    for name, family in (("one", "llama"), ("OTHER", "qwen3")):
        words = ["[UNK]", "w", *map(str, range(10)), *CITIES]
        (folder / name).mkdir()
        small.save(family, folder / name)
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
        split = [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
        tokenizer.save(str(folder / name / "tokenizer.json"))
        (folder / f"{name}.txt").write_text(small.text() if name == "one" else small.text()[100:])
    for name, first in (("one", 1), ("OTHER", 20)):
        answers = [[f"w{first + 2 * i + j}" for j in range(2)] for i in range(8)]
        asked = [
            {"question": f"w w{i} w", "choices": two, "answer": two[0], "label": 0} for i, two in enumerate(answers)
        ]
        write_tasks(folder / f"tasks_{name}", asked)
    return folder


def job_of(case, folder):
    files = [f"source.model={folder / 'one'}", f"source.text={folder / 'one.txt'}"]
    files += [f"runner.include_path={folder / 'tasks_one'}"] if case == "lm_eval" else []
    of_model = "source=checkpoint" in CASES[case]
    job = configure(*SMALL, *CASES[case], *(files if of_model else []))
    return dataclasses.replace(job, runner=dataclasses.replace(job.runner, **BASE.get(case, {})))


def numbers(job, folder):
    """Return the tables of a job's record but for what depends on the clock."""
    folder.mkdir()
    record = Record(folder, job.runner.tables)
    machine = type("Machine", (), {"device": torch.device("cpu"), "memory_bytes": 10**9})
    job.runner.run(job.source, job.selector, job.windows, machine, job.seed, record, lambda: None)
    record.close("", dict)
    tables = {path.name: pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}
    tables = {name: table.drop(columns=list(table.filter(like="seconds"))) for name, table in tables.items()}
    files = json.loads((folder / "manifest.json").read_text())["files"]
    return tables, files.get("attention.safetensors")


def same(one, other):
    return (
        one[1] == other[1]
        and one[0].keys() == other[0].keys()
        and all(table.equals(other[0][name]) for name, table in one[0].items())
    )


def variants_of(job, folder):
    """Yield each field of each part by its name, and the job that has another value of it."""
    on_disk = {"model": str(folder / "OTHER"), "text": str(folder / "OTHER.txt")}
    on_disk["include_path"] = str(folder / "tasks_OTHER")
    parts = {
        "source": CHECKPOINT if job.source.name == "checkpoint" else GAUSSIAN,
        "runner": RUNNERS[job.runner.name],
        "selector": SELECTOR,
    }
    for group, others in parts.items():
        part = getattr(job, group)
        assert {field.name for field in dataclasses.fields(part)} == set(others)
        for name, values in others.items():
            values = {key: on_disk[key] if value == "OTHER" else value for key, value in values.items()}
            if group == "source" and job.runner.name == "retrieval" and name == "lengths":
                values = {"lengths": [88, 96]}
            yield f"{group}.{name}", dataclasses.replace(job, **{group: dataclasses.replace(part, **values)})
    assert set(RULES) == set(job.windows.rules)
    for name, values in RULES.items():
        rules = job.windows.rules | {name: dataclasses.replace(job.windows.rules[name], **values)}
        yield f"windows.{name}", dataclasses.replace(job, windows=dataclasses.replace(job.windows, rules=rules))
    assert {field.name for field in dataclasses.fields(job)} == set(parts) | {"windows"} | set(REST)
    for name, value in REST.items():
        yield name, dataclasses.replace(job, **{name: value})


@pytest.mark.parametrize("case", CASES)
def test_the_run_id_changes_exactly_where_the_numbers_do(case, checkpoint, tmp_path):
    if case == "lm_eval":
        pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install '.[lm-eval]'")
    job = job_of(case, checkpoint)
    job.runner.check(job.source, job.selector, job.windows)
    before, expected, measured = numbers(job, tmp_path / "before"), {}, {}
    for name, other in variants_of(job, checkpoint):
        try:
            other.runner.check(other.source, other.selector, other.windows)
        except UserError:  # a refused job has no numbers
            continue
        measured[name] = run_id(other) != run_id(job)
        expected[name] = not same(before, numbers(other, tmp_path / name)) or (case == "decoding" and name in TIMED)
    assert measured == expected
    assert {"source.rows", "source.samples", "windows.power", "selector.sinks", "seed"} <= set(measured)


@pytest.mark.parametrize("case", ["gaussian", "prefill", "retrieval"])
def test_a_raised_version_of_any_part_is_another_run(case, checkpoint, monkeypatch):
    job = job_of(case, checkpoint)
    before = run_id(job)
    rules = [rule for rule in job.windows.rules.values() if rule.rule in FIRST or rule.coordinates(1)]
    for part in (job.source, job.runner, job.selector, job.windows, *rules):
        with monkeypatch.context() as raised:
            raised.setattr(type(part), "version", type(part).version + 1)
            assert run_id(job) != before, part
    for room in ("measures", "kernels"):
        with monkeypatch.context() as raised:
            raised.setattr(f"experiments.{room}.VERSION", 2)
            assert run_id(job) != before, room


def test_a_name_does_not_make_one_method_another():
    oracle, leverage = configure(), configure("selector=lev_attention", "selector.name=oracle")
    assert run_id(oracle) != run_id(leverage)


def test_one_method_is_the_same_run_however_it_is_given():
    one = configure("selector=sinks")
    parts = {"under_another_key": one.selector}
    several = configure("selector=several").selector
    alone = dataclasses.replace(several, parts=parts, name="other")
    assert run_id(dataclasses.replace(one, selector=alone)) == run_id(one)
