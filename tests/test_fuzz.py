"""Whatever is typed or lies in the way: one line and a status, never a traceback."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import analysis
from experiments.errors import UserError
from experiments.launch import main
from experiments.records.folder import finished

TINY = ["source.lengths=[16,32]", "source.rows=2", "source.samples=1", "tracking=disabled"]
KEYS = (
    *("source.lengths", "source.rows", "source.samples", "source.s", "source.sigma", "source.inputs", "source.dtype"),
    *("source.head_dim", "windows.exponents", "windows.fixed", "windows.top_p", "windows.thresholds", "windows.scales"),
    *("windows.grid_per_octave", "selector", "runner.matrix_size", "runner.window_variants", "runner.matrix_layers"),
    *("seed", "device", "memory_gb", "threads", "plan", "force", "tracking", "tracking.mode", "experiment", "windows"),
    *("source", "source.nothing", "+source.more", "~source.rows", "hydra.job.num", "", "=", "outputs.below"),
)
VALUES = (
    *("0", "-1", "1", "2", "1e300", "-1e-300", "nan", "inf", "null", "true", "[]", "[1,]", "[[1]]", "{}", "{a: 1}"),
    *(
        "${nowhere}",
        "${oc.env:NOWHERE_AT_ALL}",
        "${seed}",
        "???",
        "'",
        '"',
        "\\",
        "a b",
        "../..",
        "/",
        "a,b",
        "range(3)",
    ),
    *("[0.5,0.5]", "[1.5]", "[-1]", "[nan]", "[1e9]", "gaussian", "oracle", "cuda:99", "float64", "\u0000", "ü", "\n"),
)
overrides = st.lists(
    st.tuples(st.sampled_from(KEYS), st.one_of(st.sampled_from(VALUES), st.text(max_size=6))).map("=".join),
    min_size=1,
    max_size=2,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_overrides=overrides)
def test_any_override_ends_in_success_or_one_line(given_overrides, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run.py", *TINY, "plan=true", f"outputs={tmp_path / 'out'}", *given_overrides])
    status = main()
    errors = capsys.readouterr().err.strip().splitlines()
    if status == 0:
        assert not errors
    else:
        assert len(errors) == 1, errors
        assert errors[0].startswith("error: ")
        assert "Traceback" not in errors[0]
        assert "details in" not in errors[0]
    assert [path.name for path in tmp_path.iterdir() if path.name != "out"] == []


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Measure one tiny record with a matrix."""
    outputs = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        matrix = ["runner.matrix_layers=[0]", "runner.matrix_heads=[0]"]
        patch.setattr("sys.argv", ["run.py", *TINY, *matrix, f"outputs={outputs}"])
        assert main() == 0
    return outputs


def damage(content, kind, place, noise):
    at = int(place * max(len(content) - 1, 0))
    return {
        "cut": content[:at],
        "flip": content[:at] + bytes([content[at] ^ (1 + noise[0] % 255)]) + content[at + 1 :],
        "noise": noise,
        "longer": content + noise,
        "empty": b"",
    }[kind]


def says_the_same(name, before, now):
    """Bit for bit, or a manifest with other white space."""
    try:
        return now == before or (name == "manifest.json" and json.loads(now) == json.loads(before))
    except ValueError:
        return False


@settings(max_examples=120, deadline=None)
@given(
    name=st.sampled_from(["manifest.json", "config.yaml", "rows.parquet", "windows.parquet", "attention.safetensors"]),
    kind=st.sampled_from(["cut", "flip", "noise", "longer", "empty", "gone"]),
    place=st.floats(0, 1),
    noise=st.binary(min_size=1, max_size=40),
)
def test_a_damaged_record_is_never_read_as_good(recorded, tmp_path_factory, name, kind, place, noise):
    outputs = tmp_path_factory.mktemp("damaged")
    shutil.copytree(recorded, outputs, dirs_exist_ok=True)
    (folder,) = (outputs / "runs").iterdir()
    before = (folder / name).read_bytes()
    if kind == "gone":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(damage(before, kind, place, noise))
    harmless = kind != "gone" and says_the_same(name, before, (folder / name).read_bytes())
    assert (finished(folder) is not None) == harmless
    if harmless:
        analysis.load(outputs)
    else:
        with pytest.raises(UserError) as refused:
            analysis.load(outputs)
        assert len(str(refused.value).splitlines()) == 1
    shutil.rmtree(outputs)
