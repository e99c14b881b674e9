"""A preset keeps its design with another source."""

import pytest

from experiments.command.preset import ROWS, TEXT, _kind, _sources, with_design
from experiments.launch import configure, main
from tests.test_conf import PRESETS


def models(preset):
    """Return the sources of a preset that are models."""
    return [name for name in _sources(preset) if _kind(name) == "checkpoint"]


@pytest.mark.parametrize("preset", [preset for preset in PRESETS if models(preset)])
def test_every_preset_keeps_its_design_with_another_model(preset):
    own = models(preset)
    expected = configure(f"experiment={preset}", f"source={own[0]}").source
    found = configure(f"experiment={preset}", "source=checkpoint", "source.model=somewhere").source
    for name in (*ROWS, *TEXT):
        assert getattr(found, name) == getattr(expected, name), name


def test_what_the_user_sets_stays():
    heads = ["experiment=heads", "source=checkpoint", "source.model=x"]
    source = configure(*heads).source
    assert source.lengths == [512, 768, 1152, 1728, 2592, 3888, 5632, 8192]
    assert source.variants == ["plain", "no_sink", "truncated_context"]
    assert (source.rows, source.samples) == (16, 12)
    source = configure(*heads, "source.lengths=[64,128]", "source.samples=2").source
    assert (source.lengths, source.samples, source.rows) == ([64, 128], 2, 16)


def test_what_an_option_sets_for_its_model_stays():
    """An encoder of 512 tokens is not asked for 8192, nor for a context to the left."""
    heads = configure("experiment=heads", "source=minilm").source
    assert (heads.lengths[-1], heads.variants, heads.rows, heads.samples) == (512, ["plain"], 16, 12)
    assert configure("experiment=heads", "source=qwen3").source.variants == ["plain", "no_sink", "truncated_context"]


def test_sources_of_the_preset_and_plain_commands_are_left_alone():
    for arguments in (
        ["run.py", "experiment=heads"],
        ["run.py", "experiment=heads", "source=paper/smollm2_king_james"],
        ["run.py", "source=checkpoint", "source.model=x"],
        ["run.py", "experiment=nothing", "source=checkpoint"],
        ["run.py", "experiment=heads", "source=nothing"],
        ["run.py", "experiment=heads", "source=gaussian"],  # it has no design of Gaussian rows
        ["run.py", "experiment=heads,quick", "source=checkpoint"],
    ):
        assert with_design(arguments) == (arguments, [])


def test_a_gaussian_source_takes_what_it_has_of_a_design():
    _, new = with_design(["experiment=selectors", "source=gaussian", "source.s=0.4"])
    assert new == ["source.lengths=[2048,4096,8192,16384]", "source.rows=32", "source.samples=6"]


def test_the_terminal_says_what_is_kept(tmp_path, monkeypatch, capsys):
    arguments = ["experiment=selectors", "source=gaussian", "source.s=0.4", "source.lengths=[16,32]", "source.rows=2"]
    rest = ["selector=oracle", "tracking=disabled", f"outputs={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["run.py", *arguments, *rest])
    assert main() == 0
    assert "The preset's own: source.samples=6" in capsys.readouterr().out
