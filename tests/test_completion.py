"""Completion at the shell: every word is in the script, so that none starts Python."""

import shutil
import subprocess

import pytest

from experiments.completion import SCRIPT, words
from experiments.launch import configure

PRESS = """
COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=($COMP_LINE); COMPREPLY=()
_nc_sparse_attention
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("python run.py source.le", ["source.lengths="]),
        ("python run.py source=sm", ["smollm2 "]),  # bash has taken what stands before = for a word of its own
        (".venv/bin/python run.py -m windows=st", ["standard "]),
        ("python run.py hydra/launcher=j", ["joblib "]),
        ("python run.py selector=snap", ["snap_kv", "snap_kv_prompt"]),
        ("python another.py sour", [""]),
    ],
)
def test_what_is_begun_is_completed(line, offered):
    script = SCRIPT.format(words=" ".join(words())) + PRESS.format(line=line)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.rstrip("\n").split("\n") == offered


def test_every_word_is_one_of_the_configuration():
    there = set(words())
    assert {"source=gaussian", "experiment=quick", "source.lengths=", "seed=", "plan=", "windows.exponents="} <= there
    assert configure(*sorted(word for word in there if word in ("source=smollm2", "windows=paper"))).source.lengths
    assert not {word for word in there if " " in word or '"' in word}
