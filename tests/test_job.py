"""What a job writes of itself, and how it knows that its files are still the same."""

import json

from omegaconf import OmegaConf

from experiments.job import _unchanged, _yaml
from experiments.launch import configure
from experiments.records.identity import identity
from tests.models import small


def test_a_configuration_is_written_as_omegaconf_writes_it():
    config = {
        "numbers": [1, 2.5, 1e-5, 1e300, True, None],
        "texts": ["1e-3", "on", "${x}", "???", "a: b", "é ü", "two\nlines", "x" * 200 + " y" * 50],
        "empty": {"dict": {}, "list": []},
        "nested": {"b": 1, "a": {"c": "null"}},
    }
    assert _yaml(config) == OmegaConf.to_yaml(OmegaConf.create(config))
    assert OmegaConf.to_container(OmegaConf.create(_yaml(config))) == config


def test_every_file_that_decides_is_looked_at_again_when_all_is_measured(tmp_path):
    model = small.save("llama", tmp_path / "m")
    text, budget, questions = (tmp_path / name for name in ("text.txt", "budget.json", "questions.jsonl"))
    text.write_text(small.text())
    law = {"alpha": 2.0, "C": 0.5}
    content = {"format": 1, "label": "m", "model": "h", "tolerance": None, "cost": 9.0, "supported_length": 99}
    content |= {"pooled": law, "heads": [law | {"layer": 0, "head": 0}]}
    line = {"context": "c", "question": "q", "answers": "a"}
    of_model = ["source=checkpoint", f"source.model={model}", f"source.text={text}"]
    in_budget = ["windows=budget", f"windows.file={budget}"]
    asking = ["runner=tasks", "runner/task=[question_answering]"]
    asking += [f"runner.tasks.question_answering.file={questions}"]
    written = {
        text: (text.read_text(), small.text()[5:], []),
        budget: (json.dumps(content), json.dumps(content | {"cost": 8.0}), in_budget),
        questions: (json.dumps(line), json.dumps(line | {"answers": "b"}), asking),
        model / "config.json": ((model / "config.json").read_text(), "{}", []),
    }
    for path, (before, after, asked) in written.items():
        path.write_text(before)
        job = configure(*of_model, *asked)
        deciding = identity(job)
        assert _unchanged(job, deciding)
        path.write_text(after)
        assert not _unchanged(job, deciding)
        path.write_text(before)
    path.unlink()
    assert not _unchanged(job, deciding)
