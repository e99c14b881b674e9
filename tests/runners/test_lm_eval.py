"""Tasks of lm-evaluation-harness: dense answers are its own, windows of all keys change none."""

import importlib.metadata
import json
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.errors import UserError
from experiments.launch import configure
from experiments.machine import Machine
from experiments.models.dequantise import dequantised
from experiments.models.language_model import open_language_model
from experiments.models.load import load_tokenizer
from experiments.models.locate import locate
from experiments.models.reading import Reading
from experiments.records.folder import Record
from experiments.records.identity import run_id
from experiments.runners.asking import Ask, each_way
from experiments.runners.lm_eval import _ends
from experiments.runners.writing import each_text
from experiments.selectors.several import each
from tests.runners.lm_eval_tasks import write_tasks

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install '.[lm-eval]'")
from lm_eval import evaluator
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from experiments.models.harness import Harness, load_tasks, text_until

MANY = 10_000
LONGEST = 96


@pytest.fixture
def folder(tmp_path):
    """Write a task of each kind, with its documents."""
    return write_tasks(tmp_path / "tasks")


@pytest.fixture
def narrow_model(in_its_place, narrow):
    """Let the jobs of a test read a quick model in the default checkpoint's place; return it."""
    in_its_place(narrow)
    return locate(str(narrow))


def job_of(folder, *overrides):
    sizes = (
        "source.samples=1",
        "source.rows=1",
        f"source.lengths=[{LONGEST}]",
        "windows/rules=[fixed]",
        f"windows.fixed=[4,{MANY}]",
    )
    names = "runner.tasks=[local_choice,local_text,local_write]"
    return configure("source=smollm2", *sizes, "runner=lm_eval", names, f"runner.include_path={folder}", *overrides)


def measured(job, folder):
    job.runner.check(job.source, job.selector, job.windows)
    folder.mkdir()
    record, advanced = Record(folder, job.runner.tables), []
    machine = Machine.from_settings(job.device, job.memory_gb, job.threads)
    job.runner.run(job.source, job.selector, job.windows, machine, job.seed, record, lambda: advanced.append(1))
    record.close("", dict)
    assert len(advanced) == job.runner.groups(job.source, job.selector, job.windows)
    return pd.read_parquet(folder / "lm_eval.parquet")


def of_window(lines, parameter):
    """Return the lines of one window, or the dense ones, by task and metric."""
    chosen = lines["rule"] == "dense" if parameter is None else lines["parameter"] == parameter
    return lines[chosen].set_index(["task", "metric"])


def own(checkpoint):
    """Return the package's own model on a checkpoint, in one batch of one."""
    path = dequantised(checkpoint) if checkpoint.gguf else checkpoint.folder
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return HFLM(model, tokenizer=AutoTokenizer.from_pretrained(path), batch_size=1, max_length=LONGEST)


@pytest.mark.parametrize("phase", ["decode", pytest.param("prefill", marks=pytest.mark.long)])
def test_dense_answers_are_those_of_the_package_and_windows_of_all_keys_change_none(
    folder, tmp_path, narrow_model, phase
):
    job = job_of(folder, f"runner.phase={phase}", "runner.fewshot=1")
    lines = measured(job, tmp_path / "record")
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    theirs = evaluator.simple_evaluate(
        own(narrow_model), tasks=list(job.runner.tasks), task_manager=manager, num_fewshot=1, bootstrap_iters=100
    )
    dense, every, few = (of_window(lines, parameter) for parameter in (None, MANY, 4))
    for task, values in theirs["results"].items():
        metrics = {name: value for name, value in values.items() if "," in name and "_stderr" not in name}
        for name, value in metrics.items():
            if "perplexity" in name:  # of the mean of ln p
                assert np.log(dense.loc[(task, name), "value"]) == pytest.approx(np.log(value), abs=1e-3)
                assert np.log(every.loc[(task, name), "value"]) == pytest.approx(np.log(value), abs=1e-3)
                assert abs(np.log(few.loc[(task, name), "value"]) - np.log(value)) > 0.01
            else:
                assert dense.loc[(task, name), "value"] == pytest.approx(value, abs=1e-6)
                assert every.loc[(task, name), "value"] == pytest.approx(value, abs=1e-6)
    assert set(dense.index.get_level_values("task")) == set(job.runner.tasks)
    assert (dense["documents"] == 4).all()
    assert (dense["requests"].xs("local_choice") == 9).all()
    assert (dense["requests"].xs("local_text") == 4).all()
    assert (few["keys"] == 4).all()
    assert (every["keys"] == dense["keys"]).all()
    assert (lines["cut"] == 0).all()


def test_each_answer_has_the_log_probability_that_the_package_gives_it(folder, smollm2):
    job = job_of(folder)
    harness = Harness(load_tasks(tuple(job.runner.tasks), str(folder), None), None, 0)
    tokenizer = load_tokenizer(smollm2)
    requests = harness.requests(tokenizer, LONGEST)
    token_N = next(iter(job.source.documents(0).values()))
    model = open_language_model(job.source, torch.device("cpu"), token_N, [], "lm_eval", cached=True)
    reading = Reading(model, each(job.selector), job.windows.at(LONGEST, job.source.seen_keys))
    package = own(smollm2)
    scored = [request for request in requests if request.answer]
    asked = [Instance(*_parts(request), idx=0) for request in scored]
    changed = 0
    for request, theirs in zip(scored, package.loglikelihood(asked, disable_tqdm=True), strict=True):
        before_N = torch.tensor(request.context[:-1], dtype=torch.int64)
        ask = Ask([request.context[-1], *request.answer], [len(request.answer)])
        length = len(request.context) + len(request.answer)
        ways = list(each_way(model, reading, "decode", 0, length, before_N, [ask]))
        dense, few, every = (outcomes[0] for _, _, outcomes in ways)
        assert (dense.log_prob, dense.exact) == (pytest.approx(theirs[0], abs=1e-3), theirs[1])
        assert every.log_prob == pytest.approx(dense.log_prob, abs=1e-3)
        changed += abs(few.log_prob - dense.log_prob) > 1e-2
    assert changed > len(scored) / 3
    written = [request for request in requests if request.most]
    texts = package.generate_until([Instance(*_parts(request), idx=0) for request in written], disable_tqdm=True)
    assert len(written) == 4
    assert any(texts)
    decode = partial(tokenizer.decode, skip_special_tokens=True)
    for request, theirs in zip(written, texts, strict=True):
        before_N = torch.tensor(request.context[:-1], dtype=torch.int64)
        ends = partial(_ends, request, decode, tokenizer.eos_token_id)
        ways = each_text(model, reading, "decode", LONGEST, before_N, request.context[-1], request.most, ends)
        dense, _, every = (text_until(decode, request, tokens) for _, _, tokens in ways)
        assert dense == every == theirs


@pytest.mark.parametrize("set_of_methods", [pytest.param("deployed", marks=pytest.mark.long), "expected_attention"])
@pytest.mark.parametrize("length", [1, 60])
def test_what_is_written_token_by_token_is_most_probable_in_one_pass(folder, narrow_model, set_of_methods, length):
    """A method that chooses at the end of the prompt does not choose again at each token that is written."""
    job = job_of(folder, f"selector={set_of_methods}", "windows.fixed=[12]")
    token_N = next(iter(job.source.documents(0).values()))[:length]
    model = open_language_model(job.source, torch.device("cpu"), token_N.repeat(12), [], "lm_eval", cached=True)
    reading = Reading(model, each(job.selector), job.windows.at(LONGEST, job.source.seen_keys))
    context_N, last, most = token_N[:-1], int(token_N[-1]), 16
    texts = list(each_text(model, reading, "decode", LONGEST, context_N, last, most, lambda tokens: False))
    assert len({tuple(tokens) for _, _, tokens in texts}) > 1 or length == 1
    for index, (name, keys, tokens) in enumerate(texts):
        ask = Ask([last, *tokens], [most])
        ways = list(each_way(model, reading, "decode", 0, LONGEST, context_N, [ask]))
        assert (ways[index][0]["selector"], ways[index][1]) == (name["selector"], keys)
        assert ways[index][2][0].exact, name


def _parts(request):
    kind, arguments = request.key
    return kind, {}, tuple(json.loads(arguments))


@pytest.mark.usefixtures("narrow_model")
def test_a_long_context_is_cut_on_its_left_and_counted(folder, tmp_path):
    job = job_of(folder, "source.lengths=[16]", "runner.tasks=[local_text]", "runner.fewshot=2", "runner.limit=3")
    lines = measured(job, tmp_path / "record")
    assert (lines["requests"] == 3).all()
    assert (lines["documents"] == 3).all()
    assert (lines["cut"] == 3).all()
    assert (of_window(lines, None)["keys"] < 16).all()
    job = job_of(folder, "source.lengths=[6]", "runner.tasks=[local_write]")
    with pytest.raises(UserError, match=r"task local_write: .*no room for a context"):
        job.runner.check(job.source, job.selector, job.windows)


def test_an_empty_context_is_the_token_that_begins_a_text(folder, smollm2):
    tokenizer = load_tokenizer(smollm2)
    harness = Harness(load_tasks(("local_empty",), str(folder), None), None, 0)
    for request in harness.requests(tokenizer, LONGEST):
        assert request.context == (tokenizer.bos_token_id,)
        assert tokenizer.decode(request.answer).strip() in ("Paris", "four", "east", "oxygen")


@pytest.mark.usefixtures("narrow_model")
def test_an_empty_context_is_answered(folder, tmp_path):
    for phase in ("decode", "prefill"):
        lines = measured(job_of(folder, "runner.tasks=[local_empty]", f"runner.phase={phase}"), tmp_path / phase)
        assert (lines["keys"] == 1).all()
        assert np.isfinite(lines["value"]).all()


@pytest.mark.usefixtures("narrow_model")
def test_a_group_has_lines_of_its_own(folder, tmp_path, capfd):
    job = job_of(folder, "runner.tasks=[local_group]")
    lines = of_window(measured(job, tmp_path / "record"), 4)
    assert set(lines.index.get_level_values("task")) == {"local_choice", "local_text", "local_group"}
    group, parts = lines.loc[("local_group", "acc,none")], lines.xs("acc,none", level="metric").drop("local_group")
    assert (group["documents"], group["requests"]) == (8, 13)
    assert group["value"] == pytest.approx(parts["value"].mean())
    assert np.isfinite(group["stderr"])
    assert capfd.readouterr() == ("", "")
    (table,) = job.runner.findings(tmp_path / "record", {"label": "tiny", "seconds": 1.0}).shown
    named = [name for name in table.columns[0].cells if "requests" in name]
    assert "local_group acc,none, 13 requests" in named
    assert "requests of at most" in str(table.title)  # a group's are those of its tasks: they have no sum


def test_the_run_id_holds_the_files_of_the_folder_but_not_its_place(folder, tmp_path):
    before = run_id(job_of(folder))
    moved = write_tasks(tmp_path / "elsewhere")
    assert run_id(job_of(moved)) != before  # its task files name the place of their documents
    (folder / "notes.txt").write_text("more")
    assert run_id(job_of(folder)) != before
    (folder / "notes.txt").unlink()
    assert run_id(job_of(folder)) == before
    assert run_id(job_of(folder, "source.samples=2")) == before
    assert run_id(job_of(folder, "runner.limit=2")) != before


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["runner.tasks=[local_choise]"], "no such task: did you mean local_choice"),
        (["runner.tasks=[local_rolling]"], "local_rolling: it asks for loglikelihood_rolling"),
        (["runner.tasks=[local_sampled]"], "local_sampled: .* ask for sampling"),
        (["runner.tasks=[local_missing]"], "local_missing: the task or its data cannot be had"),
        (["runner.tasks=[local_hub]"], "local_hub: the task or its data cannot be had"),
        (["runner.tasks=[local_unsafe]"], "runs code that the model writes"),
        (["runner.tasks=[local_zero]", "runner.fewshot=2"], "local_zero sets its examples to 0"),
        (["runner.include_path=nowhere"], "include_path=nowhere: no such folder"),
        (["source=gaussian"], "needs a language model"),
        (["runner.phase=prefill", "selector=snap_kv_prompt"], "snap_kv_prompt"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(folder, overrides, reason):
    job = job_of(folder, *overrides)
    with pytest.raises(UserError, match=reason) as refusal:
        job.runner.check(job.source, job.selector, job.windows)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("override", ["runner.phase=both", "runner.tasks=[]", "runner.limit=0", "runner.fewshot=-1"])
def test_a_value_out_of_range_is_refused_by_its_key(folder, override):
    with pytest.raises(UserError, match=override.split("=")[0]):
        job_of(folder, override)


def test_documents_outside_the_folder_are_refused(folder, tmp_path):
    (folder / "documents.jsonl").rename(tmp_path / "documents.jsonl")
    for file in folder.glob("*.yaml"):
        file.write_text(file.read_text().replace(str(folder / "documents"), str(tmp_path / "documents")))
    job = job_of(folder)
    with pytest.raises(UserError, match=r"outside runner\.include_path"):
        job.runner.check(job.source, job.selector, job.windows)


def test_without_the_package_one_line_names_the_extra(folder, monkeypatch):
    version = importlib.metadata.version

    def missing(name):
        if name == "lm-eval":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    job = job_of(folder)
    with pytest.raises(UserError, match=r"pip install '\.\[lm-eval\]'"):
        job.runner.check(job.source, job.selector, job.windows)


def test_a_plan_counts_the_requests(folder):
    job = job_of(folder)
    machine = Machine.from_settings(job.device, job.memory_gb, job.threads)
    plan = job.runner.plan(job.source, job.selector, job.windows, machine)
    assert (plan.rows, plan.windows) == (9 + 4 + 4, 2)
    assert 0 < plan.seconds < 60
