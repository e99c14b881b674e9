"""Whatever is typed or lies in the way: one line and a status, never a traceback."""

import faulthandler
import itertools
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, FloatNode, IntegerNode, ListConfig, UnionNode

import analysis
from experiments.errors import UserError
from experiments.launch import CONF, main
from experiments.records.folder import finished
from experiments.records.table_file import read
from experiments.schema import register
from experiments.tables import tables
from tests.models import small
from tests.runners.lm_eval_tasks import write_tasks

ROOT = Path(__file__).resolve().parents[1]

TINY = ["source.lengths=[16,32]", "source.rows=2", "source.samples=1", "tracking=disabled"]
KEYS = (
    *("source.lengths", "source.rows", "source.samples", "source.s", "source.sigma", "source.inputs", "source.dtype"),
    *("source.head_dim", "windows.exponents", "windows.fixed", "windows.top_p", "windows.thresholds", "windows.scales"),
    *("windows.grid_per_octave", "selector", "runner.matrix_size", "runner.window_variants", "runner.matrix_layers"),
    *(
        "seed",
        "device",
        "memory_gb",
        "threads",
        "triton",
        "plan",
        "force",
        "tracking",
        "tracking.mode",
        "experiment",
        "windows",
    ),
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


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


# What a number is set to: no number, out of every range, the last one of some, of the wrong type, or twice.
NUMBERS = (
    *("nan", "inf", "-inf", "-1", "0", "-0.0", "1", "3", "1.5", "1e-300", "1e300", "1" + "0" * 30, "2147483647"),
    *("9223372036854775807", "9223372036854775808", "'x'", "true", "null"),
)
LISTS = ("[]", "null", "3", "'x'", "[0.5,0.5]", "[3,3]", *(f"[{number}]" for number in NUMBERS))
CHECKPOINT = ["source=checkpoint", "source.lengths=[24,48]", "source.rows=2", "source.samples=1"]
WITHIN = ["windows.exponents=[0.5]", "windows.fixed=[4]", "windows.grid_per_octave=0"]
YAMLS = (ROOT / "conf" / "selector").glob("*.yaml")
# sets hold methods that are there by themselves
SELECTORS = sorted(path.stem for path in YAMLS if "/schema/selector/several@" not in path.read_text(encoding="utf-8"))
ESTIMATES = (
    *("mean_value", "sharpened", "coreset", "moment_tail", "polynomial", "conv_basis", "logit_sketch", "low_rank"),
)

BASES = {
    "rows": [],
    **{f"selector {name}": [f"selector={name}"] for name in SELECTORS},
    "equal cost": ["windows=equal_cost", "windows.budgets=[3]"],
    "checkpoint": CHECKPOINT,
    "language": [*CHECKPOINT, *WITHIN, "runner=language", "runner.phase=decode", "runner.decode_tokens=4"],
    "retrieval": [*CHECKPOINT, *WITHIN, "runner=retrieval", "runner.depths=[0.5]", "source.lengths=[100]"],
    "decoding": [*CHECKPOINT, *WITHIN, "runner=decoding", "runner.repeats=1"],
    "lm_eval": [*CHECKPOINT, *WITHIN, "runner=lm_eval", "runner.tasks=[local_text,local_write]"],
}


def numeric_keys(config, prefix=""):
    """Yield each key whose type is a number or a list of numbers, whether a list, and the class that has the field."""
    owner = str(config._metadata.object_type)
    for key in config:
        node, name = config._get_node(key), f"{prefix}{key}"
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            yield from numeric_keys(node, f"{name}.")
        elif isinstance(node, ListConfig):
            if node._metadata.element_type in (int, float) and not node._is_interpolation():
                yield name, True, owner
        elif isinstance(node, FloatNode | IntegerNode | UnionNode):
            yield name, False, owner


@cache
def inputs():
    """Return the overrides of each base: every numeric field that no base before it has, set to each odd value."""
    register()
    known, chosen = set(), {}
    with initialize_config_dir(version_base="1.3", config_dir=CONF):
        for base, overrides in BASES.items():
            found = list(numeric_keys(compose("config", overrides=overrides)))
            new = [(key, many) for key, many, owner in found if (owner, key.split(".")[-1]) not in known]
            chosen[base] = [f"{key}={value}" for key, many in new for value in (LISTS if many else NUMBERS)]
            known |= {(owner, key.split(".")[-1]) for key, _, owner in found}
    return chosen


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return the overrides that name a tiny random model and its text."""
    folder = small.save("llama", tmp_path_factory.mktemp("tiny") / "llama")
    (folder.parent / "text.txt").write_text(small.text())
    write_tasks(folder.parent / "tasks")
    return [f"source.model={folder}", f"source.text={folder.parent / 'text.txt'}"]


def arguments(base, override, tiny, outputs):
    model = tiny if "source=checkpoint" in BASES[base] else TINY[:3]
    if base == "lm_eval":
        model = [*model, f"runner.include_path={Path(tiny[1].partition('=')[2]).parent / 'tasks'}"]
    return [*model, "tracking=disabled", "threads=1", *BASES[base], f"outputs={outputs}", override]


def check_ended_well(arguments, status, errors, outputs):
    """One line and no record, or a record that says what is possible."""
    folders = list((outputs / "runs").glob("*"))
    if status != 0:
        assert status == 1, arguments
        assert len(errors) == 1, (arguments, errors)
        assert errors[0].startswith("error: ")
        assert "details in" not in errors[0], (arguments, errors)
        assert folders == []
        return
    assert errors == [], arguments
    (folder,) = folders
    assert finished(folder), arguments
    for path in folder.glob("*.parquet"):
        check_table(path.stem, read(path, tables()[path.stem]), arguments)


def check_table(name, table, arguments):
    assert len(table), (name, arguments)
    dense = table["rule"] == "dense" if "rule" in table else np.zeros(len(table), bool)
    numbers = table.select_dtypes("number")
    if name == "windows" and table["selector"].isin(ESTIMATES).all():
        check_estimates(numbers, arguments)
        numbers = numbers[["k"]]
    for column in numbers:
        checked = numbers.loc[~dense, column] if column in ("parameter", "scale") else numbers[column]
        if column == "stderr":  # of one document there is none
            checked = checked[table["documents"] > 1]
        if column != "index_seconds":  # the oracle has no index
            assert np.isfinite(checked).all(), (name, column, arguments)
    place = [key.name for key in tables()[name].keys]
    if name != "rows":  # queries of the Gaussian source share a position
        assert not table.duplicated(place).any(), (name, arguments)
    for column in (column for column in table if column.startswith("k_min")):
        assert ((table[column] >= 1) & (table[column] <= table["n"])).all(), (column, arguments)
    if name == "windows":
        assert ((table["k"] >= 1) & (table["k"] <= table["length"])).all(), arguments
        for column in {"dropped_mass", "tv"} & set(numbers):
            assert table[column].between(0, 1 + 1e-12).all(), (column, arguments)
        fixed = table[(table["rule"] == "fixed")]
        assert (fixed["k"] == np.minimum(fixed["parameter"], fixed["length"])).all() or "checkpoint" in str(arguments)


def check_estimates(numbers, arguments):
    """Hold lines of estimated rows to what they are: none below the least budget, no renormalised error if failed."""
    assert numbers["dropped_mass"].isna().all(), arguments  # an estimate drops no keys
    defined = numbers[numbers["failed"].notna()]
    for column in ("keys_read", "flops", "linf_truncated", "l2_truncated"):
        assert np.isfinite(defined[column]).all(), (column, arguments)
    for column in ("tv", "negative_mass", "normaliser_error"):
        assert (defined[column].dropna() >= 0).all(), (column, arguments)
        assert (defined[column].isna() <= (defined["failed"] == 1)).all(), (column, arguments)


def try_in_process(base, chosen, tiny, folder, monkeypatch, capsys):
    wrong = []
    for number, override in enumerate(chosen):
        outputs = folder / str(number)
        command = arguments(base, override, tiny, outputs)
        monkeypatch.setattr("sys.argv", ["run.py", *command])
        capsys.readouterr()
        faulthandler.dump_traceback_later(120, exit=True, file=sys.__stderr__)  # no input may hang
        try:
            status = main()
        finally:
            faulthandler.cancel_dump_traceback_later()
        try:
            check_ended_well(command, status, capsys.readouterr().err.strip().splitlines(), outputs)
        except AssertionError as error:
            wrong.append(f"{override}: {' '.join(str(error).split())[:300]}")
        shutil.rmtree(outputs, ignore_errors=True)
    assert wrong == []


@pytest.mark.long
@pytest.mark.parametrize("base", BASES)
def test_every_number_is_measured_rightly_or_refused(base, tiny, tmp_path, monkeypatch, capsys):
    try_in_process(base, inputs()[base], tiny, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("base", ["rows", "selector snap_kv", "checkpoint", "retrieval", "lm_eval"])
def test_numbers_are_measured_rightly_or_refused(base, tiny, tmp_path, monkeypatch, capsys):
    chosen = inputs()[base]
    try_in_process(base, chosen[:: max(len(chosen) // 8, 1)], tiny, tmp_path, monkeypatch, capsys)


def test_the_inputs_are_many_and_name_every_numeric_key():
    chosen = list(itertools.chain(*inputs().values()))
    keys = {override.split("=")[0] for override in chosen}
    assert len(chosen) > 500
    assert {"seed", "threads", "memory_gb", "source.s", "windows.exponents", "runner.sharpen"} <= keys
    assert {"selector.page", "selector.kernel", "runner.repeats", "windows.budgets", "source.layers"} <= keys


ALONE = [
    *[("rows", f"source.sigma={value}") for value in ("nan", "1e300", "1e6", "0")],
    *[("rows", f"threads={value}") for value in ("1000000", "nan", "8")],
    *[("rows", f"memory_gb={value}") for value in ("nan", "inf", "1e300", "1e-3")],
    *[("rows", f"windows.{key}") for key in ("scales=[1e300]", "log_factors=[1e300]", "grid_per_octave=1000000000")],
    *[("rows", f"source.{key}") for key in ("lengths=[8000000000]", "rows=2147483647", "head_dim=1024")],
    *[("rows", f"runner.{key}") for key in ("score_power=1e300", "score_power=1e6", "matrix_size=2147483647")],
    *[("checkpoint", f"source.{key}") for key in ("layers=[]", "heads=[0,0]")],
    *[("language", key) for key in ("runner.layers=[]", "runner.decode_tokens=2147483647")],
]


@pytest.mark.long
@pytest.mark.parametrize(("base", "override"), ALONE)
def test_a_process_of_its_own_ends_well(base, override, tiny, tmp_path):
    command = arguments(base, override, tiny, tmp_path)
    ended = subprocess.run(
        [sys.executable, "-X", "faulthandler", "run.py", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    check_ended_well(command, ended.returncode, ended.stderr.strip().splitlines(), tmp_path)
