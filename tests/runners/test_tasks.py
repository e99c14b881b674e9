"""Tasks: contexts of the right size with right answers, and answers read as the model's own logits say."""

import json
import re
import zlib
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.errors import UserError
from experiments.launch import configure
from experiments.machine import Machine
from experiments.models.load import load_model
from experiments.models.loss import Quality
from experiments.records.folder import Record
from experiments.records.identity import run_id
from experiments.runners.asking import Ask, _outcome, ask_of
from experiments.tasks.common_words import CommonWords
from experiments.tasks.frequent_words import FrequentWords
from experiments.tasks.needle import Needle
from experiments.tasks.question_answering import QuestionAnswering, read_questions
from experiments.tasks.variable_tracking import VariableTracking

FILLER = [ord("~")] * 20_000
NEEDLES = [
    Needle("single"),
    Needle("keys", keys=8),
    Needle("values", values=4),
    Needle("queries", keys=5, queries=3, values=2),
    Needle("deep", depth=0.9, keys=3),
]
TASKS = [*NEEDLES, VariableTracking("variables", chains=3, hops=5), CommonWords("common"), FrequentWords("frequent")]


def characters(text):
    return [ord(letter) for letter in text]


def drawn(task, room=4000, seed=0):
    """Return a context as text, the question and the answer."""
    made = task.draw(0, np.random.default_rng(seed))
    (question,) = made.questions
    tokens = made.context(FILLER, room, characters)
    assert len(tokens) == room
    return "".join(map(chr, tokens)), question.text, question.answers[0]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_context_fills_its_room_and_depends_on_the_seed_alone(task):
    assert drawn(task) == drawn(task)
    assert drawn(task) != drawn(task, seed=1)
    for room in (3000, 9001):
        drawn(task, room)
    with pytest.raises(UserError, match="too short"):
        drawn(task, 40)


@pytest.mark.parametrize("task", NEEDLES, ids=lambda task: task.name)
def test_a_needle_is_answered_in_the_order_of_the_text(task):
    context, question, answer = drawn(task)
    there = re.findall(r"pass key of the (\w+ \w+) is (\d{5})\.", context)
    assert len(there) == task.keys * task.values  # noqa: PD011
    assert len(set(there)) == len(there)
    asked = re.findall(r"the (\w+ \w+)(?:,| and| is| are|$)", question.split("The pass key")[1])
    assert len(asked) == task.queries
    expected = [number for thing in asked for name, number in there if name == thing]
    assert "".join(answer) == " " + ", ".join(expected)
    if task.depth is not None:
        assert abs(context.index(expected[0]) / len(context) - task.depth) < 0.1


def test_variables_are_those_of_the_chain_in_order():
    context, question, answer = drawn(VariableTracking("variables", chains=3, hops=5))
    value = re.search(r"value (\d+)", question)[1]
    known = {}
    for name, of in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", context):
        known[name] = known.get(of, of)
    assert len(known) == 18
    expected = [name for name, held in known.items() if held == value]
    assert len(expected) == 6
    assert "VAR" + "".join(answer) == ", ".join(f"VAR {name}" for name in expected)


@pytest.mark.parametrize("room", [2000, 12_000])
def test_common_words_are_the_most_common_in_the_order_of_the_list(room):
    context, _, answer = drawn(CommonWords("common", common=6), room)
    words = re.findall(r"\n\d+\. (\w+)", context)
    counts = Counter(words)
    named = "".join(answer).strip().split(", ")
    assert set(named) == {word for word, _ in counts.most_common(6)}
    assert min(counts[word] for word in named) > max(counts[word] for word in counts if word not in named)
    assert sorted(named, key=words.index) == named


def test_frequent_words_fall_like_a_power():
    context, _, answer = drawn(FrequentWords("frequent", exponent=2.0), 12_000)
    counts = Counter(re.findall(r"\n\d+\. (\w+)", context))
    named = "".join(answer).strip().split(", ")
    assert named == [word for word, _ in counts.most_common(3)]
    assert counts[named[0]] / counts[named[1]] == pytest.approx(4, rel=0.2)


@pytest.fixture
def questions(tmp_path):
    """Write a file of questions."""
    file = tmp_path / "questions.jsonl"
    lines = [
        {"context": "The cat sat on the mat.", "question": "Where did the cat sit?", "answers": ["on the mat", "mat"]},
        {"context": "Anna lives in Rome.", "question": "Where does Anna live?", "answers": "Rome"},
    ]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return file


def test_questions_of_a_file_stand_in_the_text(questions):
    task = QuestionAnswering("qa", str(questions), depth=0.25)
    made = task.draw(1, np.random.default_rng(0))
    context = "".join(map(chr, made.context(FILLER, 1000, characters)))
    assert 200 < context.index("Anna lives in Rome.") < 300
    assert made.questions[0].answers == [[" Rome"]]
    assert task.draw(0, np.random.default_rng(0)).questions[0].answers == [[" on the mat"], [" mat"]]


BAD = [
    ('{"context": "c", "question": "q"}', "line 2: answers is missing or empty"),
    ('{"context": "c", "question": "q", "answers": []}', "line 2: answers is missing or empty"),
    ('{"context": "c", "question": "q", "answers": [3]}', "line 2: context and question are texts"),
    ('{"context": "", "question": "q", "answers": "a"}', "line 2: context is missing or empty"),
    ("[1]", "line 2: give an object"),
    ("{", "line 2 is no JSON"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_a_line_that_lacks_something_is_named(questions, line, message):
    questions.write_text('{"context": "c", "question": "q", "answers": "a"}\n' + line)
    with pytest.raises(UserError, match=re.escape(message)):
        QuestionAnswering("qa", str(questions)).check_samples(1)


def test_what_a_task_cannot_mean_is_refused(questions, tmp_path):
    for override, message in (
        ("runner.tasks.single_needle.depth=1.5", "single_needle.depth=1.5"),
        ("runner.tasks.multi_query.queries=9", "only 4 keys"),
        ("runner.tasks.common_words.common=0", "common_words.common=0"),
        ("runner.phase=both", "runner.phase=both"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            configure("runner=tasks", override)
    for file, message in ((tmp_path / "none.jsonl", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=message):
            QuestionAnswering("qa", str(file)).check_samples(1)
    with pytest.raises(UserError, match=r"has 2 questions, and source\.samples=3"):
        QuestionAnswering("qa", str(questions)).check_samples(3)
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9")
    with pytest.raises(UserError, match="not UTF-8"):
        QuestionAnswering("qa", str(tmp_path / "latin.jsonl")).check_samples(1)


def test_what_json_allows_within_a_text_ends_no_line(tmp_path):
    file = tmp_path / "questions.jsonl"
    lines = [{"context": f"one{end}two", "question": "which?", "answers": "one"} for end in "\u2028\u2029\x85\u000b"]
    content = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    file.write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert [line["context"] for line in read_questions(str(file))] == [line["context"] for line in lines]
    half = '{"context": "\\ud800", "question": "a", "answers": "b"}'
    for text, message in ((half, "line 2 has half a"), ("[" * 10**5, "line 2")):
        file = tmp_path / f"{len(text)}.jsonl"
        file.write_text(f"{json.dumps(lines[0])}\n{text}\n")
        with pytest.raises(UserError, match=message):
            read_questions(str(file))


def test_questions_that_change_within_a_process_are_read_anew(questions):
    before = read_questions(str(questions))
    questions.write_text(questions.read_text().replace("Anna", "Berta"))
    assert read_questions(str(questions)) != before


def test_another_file_or_task_is_another_run(questions):
    def job(*overrides):
        file = f"runner.tasks.question_answering.file={questions}"
        return configure("source=smollm2", "runner=tasks", "runner/task=[question_answering]", file, *overrides)

    before = run_id(job())
    questions.rename(questions.with_name("renamed.jsonl"))
    questions.with_name("renamed.jsonl").rename(questions)
    assert run_id(job()) == before
    assert run_id(job("runner.tasks.question_answering.depth=0.1")) != before
    questions.write_text(questions.read_text().replace("Anna", "Berta"))
    assert run_id(job()) != before


def test_an_answer_ends_part_by_part():
    def pair(answer):
        return characters("Q:"), characters(answer)

    assert ask_of(pair, [" a", ", bc"]) == Ask(characters("Q: a, bc"), [2, 6])

    hits = torch.tensor([False, True, True, True, True, True, False])
    agreed = torch.tensor([False, True, True, True, True, False, False])
    found = _outcome(Quality(torch.arange(7.0), hits, agreed, torch.ones(7)), Ask(characters("Q: a, bc"), [2, 6]))
    assert (found.tokens, found.log_prob, found.exact, found.recalled) == (6, -21.0, False, 0.5)
    assert (found.agreement, found.kl) == (pytest.approx(4 / 6), 1.0)


def record_of(tmp_path, *overrides):
    job = configure("source=smollm2", "runner=tasks", "source.samples=1", *overrides)
    job.runner.check(job.source, job.selector, job.windows)
    tmp_path.mkdir(exist_ok=True)
    record = Record(tmp_path, job.runner.tables)
    job.runner.run(job.source, job.selector, job.windows, Machine(torch.device("cpu"), 10**9), 0, record, lambda: None)
    record.close("", dict)
    return job, pd.read_parquet(tmp_path / "tasks.parquet")


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_a_window_of_all_keys_answers_as_dense_attention(tmp_path, in_its_place, narrow, questions, phase):
    in_its_place(narrow)
    tasks = "runner/task=[single_needle,multi_value,question_answering]"
    file = f"runner.tasks.question_answering.file={questions}"
    windows = ["windows/rules=[fixed]", "windows.fixed=[8,100000]"]
    _, answers = record_of(tmp_path / "r", tasks, file, "source.lengths=[384]", *windows, f"runner.phase={phase}")
    wide = answers.pivot_table("log_prob", "task", ["rule", "parameter"], dropna=False)
    dense = answers[answers["rule"] == "dense"].set_index("task")["log_prob"]
    np.testing.assert_allclose(wide["fixed", 100000.0], dense[wide.index], atol=2e-3)
    assert (wide["fixed", 8.0] != dense[wide.index]).all()
    assert (answers["exact"] <= (answers["recalled"] == 1)).all()


def test_dense_answers_are_those_of_the_model_itself(tmp_path, smollm2):
    """The log-probability of an answer, from the logits of one pass of transformers over all that is read."""
    windows = ["windows/rules=[fixed]", "windows.fixed=[8]"]
    tasks = "runner/task=[multi_query]"
    job, answers = record_of(tmp_path / "r", tasks, "source.lengths=[512]", *windows)
    from experiments.models.load import CAUSAL, encode, encode_pair

    model = load_model(job.source.located, torch.float32, torch.device("cpu"), CAUSAL)
    (text_N,) = job.source.documents(0).values()
    made = job.runner.tasks["multi_query"].draw(0, np.random.default_rng([0, 0, 512, zlib.crc32(b"multi_query")]))
    question, answer = encode_pair(job.source.located, made.questions[0].text, "".join(made.questions[0].answers[0]))
    room = 512 - len(question) - len(answer)
    context = made.context(text_N.tolist(), room, lambda text: encode(job.source.located, text))
    token_N = torch.tensor(context + question + answer)
    assert len(token_N) == 512
    with torch.inference_mode():
        log_p_NC = model(input_ids=token_N[None]).logits[0].log_softmax(-1)
    own = log_p_NC[-len(answer) - 1 : -1]
    expected = float(own.gather(1, torch.tensor(answer)[:, None]).sum())
    dense = answers[answers["rule"] == "dense"]
    assert dense["log_prob"].item() == pytest.approx(expected, abs=1e-2)
    assert dense["tokens"].item() == len(answer)
    assert dense["exact"].item() == (own.argmax(-1) == torch.tensor(answer)).all().item()


@pytest.mark.parametrize(
    "runner", [["runner=retrieval"], ["runner=tasks", "runner/task=[single_needle]"]], ids=lambda words: words[0]
)
def test_a_length_without_room_is_refused_before_the_model_is_loaded(monkeypatch, runner):
    loaded = []
    monkeypatch.setattr("experiments.models.language_model.load_model", lambda *_: loaded.append(True))
    sizes = ["source.lengths=[512,24]", "source.samples=1", "source.rows=1", "windows.fixed=[8]"]
    job = configure("source=smollm2", *runner, *sizes)
    machine = Machine(torch.device("cpu"), 1 << 32)
    with pytest.raises(UserError, match="too short"):
        job.runner.run(job.source, job.selector, job.windows, machine, 0, None, print)
    assert not loaded
