"""All heads of a layer measured at once: the numbers of the rows one by one, and a host that waits for no head."""

from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from experiments.errors import UserError
from experiments.launch import configure, main
from experiments.measures import together, workers
from experiments.measures.compute import Compute
from experiments.measures.measure import measure_rows
from experiments.measures.memory import rows_per_block
from experiments.records.table_file import read
from experiments.rows import Rows
from experiments.selectors.oracle import Oracle
from experiments.selectors.sinks import Sinks
from experiments.sources import MatrixRequest
from experiments.tables.rows import ROWS
from experiments.tables.windows import WINDOWS
from experiments.windows import PerHead, Windows
from tests.models import small

HEADS_OF_GROUP, QUERIES = 2, 5
RULES = [
    "windows.fixed=[1,7,64,100000]",
    "windows.grid_per_octave=2",
    "windows.top_p=[0.5,0.1,0.001]",
    "windows.thresholds=[0.1,0.0001]",
    "windows.own_top_p=[0.2]",
    "windows.fractions=[0.3]",
]
ROUNDED = 1e-6  # of a logit near 0: the product of all heads at once rounds otherwise than that of one
NEAR_0 = {"logit_mean", "logit_std", "logit_max", "log_p_variance"}
WITHIN = partial(rows_per_block, memory_bytes=10**10, resident_bytes=0)


def windows_of(*rules):
    windows = configure(*(rules or RULES)).windows
    return lambda rows: windows.at(rows.length)


def layer(keys, groups=3, *, dtype=torch.float32, device="cpu", **settings):
    """Return the rows of a layer's KV heads, whose keys and values are parts of one tensor."""
    generator = torch.Generator().manual_seed(keys)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).to(dtype).to(device)

    key_GND, value_NGV = draw(groups, keys, 16), draw(keys, groups, 8)
    position_R = torch.arange(max(keys - QUERIES, 0), max(keys - QUERIES, 0) + QUERIES, device=device)
    position_R = position_R.clamp(max=keys - 1).repeat(HEADS_OF_GROUP)
    return [
        Rows(
            layer=3,
            head_R=torch.arange(HEADS_OF_GROUP, device=device).repeat_interleave(QUERIES) + g * HEADS_OF_GROUP,
            sample=0,
            variant="plain",
            length=keys,
            position_R=position_R,
            query_RD=draw(len(position_R), 16),
            key_ND=key_GND[g],
            value_NV=value_NGV[:, g],
            scale=0.5,
            kv_head=g,
            **settings,
        )
        for g in range(groups)
    ]


def masked(groups):
    generator = torch.manual_seed(1)
    seen = [torch.rand(len(rows), rows.num_keys, generator=generator) < 0.6 for rows in groups]
    for visible_RN in seen:
        visible_RN[:, 0] = True
    return [replace(rows, visible_RN=visible_RN) for rows, visible_RN in zip(groups, seen, strict=True)]


def tied(groups):
    return [replace(rows, query_RD=rows.query_RD.round(), key_ND=rows.key_ND.round()) for rows in groups]


KINDS = {
    "plain": layer,
    "causal": partial(layer, causal=True),
    "masked": lambda keys: masked(layer(keys)),
    "ties": lambda keys: tied(layer(keys, causal=True)),
    "softcap": partial(layer, causal=True, softcap=1.5),
    "power": partial(layer, power=3.0),
    "sinks": partial(layer, causal=True, sink_S=torch.tensor([0.5, 3.0])),
    "one_head": partial(layer, groups=1),
    "bfloat16": partial(layer, causal=True, dtype=torch.bfloat16),
    "float64": partial(layer, dtype=torch.float64),
}


def one_by_one(rows, windows_of, block=10**6):
    sizes = windows_of(rows).of_heads(rows.layer, rows.heads, rows.n_R, rows.position_R)
    statistics, (measures,) = measure_rows(
        rows, [Oracle().prepare(rows.cache())], sizes, block, Compute(reference=True)
    )
    return statistics, measures


def assert_same(groups, windows_of, fitting=WITHIN, **how):
    results = together.measure_together(groups, windows_of, fitting, **how)
    assert len(results) == len(groups)
    for rows, result in zip(groups, results, strict=True):
        assert result.rows.kv_head == rows.kv_head
        for found, expected in zip((result.statistics, result.measures), one_by_one(rows, windows_of), strict=True):
            assert found.keys() == expected.keys()
            for name, values in expected.items():
                assert found[name].dtype == values.dtype, name
                if values.dtype == torch.int64:
                    assert torch.equal(found[name], values), name
                torch.testing.assert_close(
                    found[name].double(),
                    values.double(),
                    rtol=1e-5,
                    atol=ROUNDED if name in NEAR_0 else 1e-8,
                    equal_nan=True,
                    msg=lambda message, name=name: f"{name}: {message}",
                )


@pytest.mark.parametrize("keys", [1, 2, 300, 2500])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_at_once_is_its_rows_one_by_one(kind, keys):
    assert_same(KINDS[kind](keys), windows_of())


def test_several_lengths_and_variants_come_back_in_their_order():
    groups = [rows for pair in zip(layer(40), masked(layer(70)), layer(55, causal=True), strict=True) for rows in pair]
    assert_same(groups, windows_of())


def test_rows_whose_windows_are_not_measured_have_statistics_alone():
    assert_same(layer(60), lambda rows: Windows([], []))


def test_every_head_has_windows_of_its_own():
    class OfItsOwn:
        rule, version = "own", 1

        def of_head(self, layer, head):
            of_one = OfItsOwn()
            of_one.sizes = lambda n_R, *_: torch.full((len(n_R), 1), 2.0 * head + 1)
            return of_one

    windows = Windows([OfItsOwn()], [[(0.0, 1.0)]])
    assert windows.of_kind(PerHead)
    assert_same(layer(60), lambda rows: windows)
    results = together.measure_together(layer(60), lambda rows: windows, WITHIN)
    assert [result.measures["k"][:, 0].unique().tolist() for result in results] == [[1, 3], [5, 7], [9, 11]]


@pytest.mark.parametrize("rows_that_fit", [1, 4, 13, 21])
def test_memory_changes_no_number(rows_that_fit):
    assert_same(layer(200, causal=True), windows_of(), lambda rows, *_: min(rows, rows_that_fit))


def test_keys_and_values_of_a_layer_are_not_copied():
    key_GND = torch.randn(4, 30, 8)
    whole = together.whole([key_GND[g, :20] for g in range(4)])
    assert whole.data_ptr() == key_GND.data_ptr()
    assert torch.equal(whole, key_GND[:, :20])
    assert torch.equal(together.whole([key_GND[g] for g in (3, 1, 2)]), key_GND[[3, 1, 2]])
    assert torch.equal(together.whole([key_GND[0], torch.ones(30, 8)])[1], torch.ones(30, 8))


@pytest.mark.parametrize("bad", ["query", "key", "invisible"])
@pytest.mark.parametrize("of", [0, 2])
def test_the_refusal_is_that_of_the_rows_one_by_one(bad, of):
    groups = masked(layer(300))
    wrong = groups[of]
    if bad == "invisible":
        wrong.visible_RN[4] = False
    else:
        (wrong.query_RD if bad == "query" else wrong.key_ND)[2, 3] = torch.nan if bad == "query" else 3e38
    with pytest.raises(UserError) as expected:
        [one_by_one(rows, windows_of()) for rows in groups]
    with pytest.raises(UserError) as raised:
        together.measure_together(groups, windows_of(), WITHIN)
    assert str(raised.value) == str(expected.value)


def test_too_little_memory_is_refused_with_the_numbers():
    with pytest.raises(UserError, match=r"memory_gb=1e-06 is too little for a row of 300 keys"):
        together.measure_together(layer(300), windows_of(), partial(WITHIN, memory_bytes=1000))


def test_other_methods_and_windows_of_a_layer_are_measured_one_by_one():
    windows = configure(*RULES).windows.at(50)
    assert together.serves([Oracle()], windows)
    assert not together.serves([Oracle(), Sinks(sinks=2)], windows)
    assert not together.serves([Oracle()], configure("windows.ada=[8]").windows.at(50))


class Waits(TorchDispatchMode):
    """Counts what makes a host wait for a GPU; in inference mode some of it comes by its outer name."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten, kwargs = torch.ops.aten, kwargs or {}
        read = {aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.nonzero, aten.masked_select, aten.equal}
        device = kwargs.get("device", args[1] if func == aten.to.device else None)
        moved = func.overloadpacket in {aten.to, aten._to_copy} and device is not None
        self.count += func.overloadpacket in read or moved
        return func(*args, **kwargs)


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt_oss"])
def test_the_host_waits_as_often_for_one_kv_head_as_for_eight(family, tmp_path, monkeypatch):
    """From the model's attention on: the source, its masks, and all that is measured."""
    of_heads, waits = Windows.of_heads, {}

    def on_the_host(*given):  # sizes are made of what the first copy brought
        with _disable_current_modes():
            return of_heads(*given)

    monkeypatch.setattr(Windows, "of_heads", on_the_host)
    for heads in (1, 8):
        folder = small.save(family, tmp_path / str(heads), num_attention_heads=2 * heads, num_key_value_heads=heads)
        (tmp_path / "text.txt").write_text(small.text())
        about = [f"source.model={folder}", f"source.text={tmp_path / 'text.txt'}", "source.lengths=[24,48]"]
        source = configure("source=checkpoint", *about, "source.rows=4", "source.samples=1").source
        counts, layers = Waits(), []

        def measure(groups, counts=counts, layers=layers):
            layers.append(together.measure_together(groups, windows_of("windows.top_p=[0.1]"), WITHIN))

        with counts:
            source.stream(
                measure,
                seed=0,
                device=torch.device("cpu"),
                matrices=MatrixRequest([], []),
                record=pytest.fail,
                runs=pytest.fail,
            )
        assert [len(groups) for groups in layers] == [2 * heads] * 3
        waits[heads] = counts.count
    assert waits[1] == waits[8]
    assert waits[1] > 3 * len(layers)  # the mode sees what a layer reads


@pytest.mark.parametrize("kind", ["plain", "causal", "softcap", "power", "sinks", "bfloat16"])
def test_no_number_is_read_between_the_two_copies(kind, monkeypatch):
    """Tensors without numbers: whoever reads one, or has a shape that they decide, fails."""
    groups = KINDS[kind](300)
    at_home = together._at_home(groups)
    move = {name: getattr(groups[0], name) for name in ("query_RD", "head_R", "position_R", "sink_S")}

    def without_numbers(rows):
        moved = {name: getattr(rows, name) for name in move}
        key_ND, value_NV = (torch.empty_like(of, device="meta") for of in (rows.key_ND, rows.value_NV))
        moved = {name: None if of is None else of.to("meta") for name, of in moved.items()}
        return replace(rows, **moved, key_ND=key_ND, value_NV=value_NV)

    shapes = []

    def copied(tables):
        shapes.extend((values.device.type, values.shape[:2]) for table in tables for values in table.values())
        return [{name: torch.ones(values.shape) for name, values in table.items()} for table in tables]

    monkeypatch.setattr(together, "_at_home", lambda _: at_home)
    monkeypatch.setattr(together, "_copied", copied)
    monkeypatch.setattr(together, "whole", torch.stack)
    monkeypatch.setattr("experiments.batched.heads.whole", torch.stack)
    together.measure_together([without_numbers(rows) for rows in groups], windows_of(), WITHIN)
    assert set(shapes) == {("meta", (len(groups), len(groups[0])))}


class Names(TorchDispatchMode):
    """Keeps the names of operations on floats."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            self.names.add(func.overloadpacket.__name__.rstrip("_"))
        return result


@pytest.mark.parametrize("kind", ["causal", "masked", "sinks"])
def test_floats_are_added_up_in_a_fixed_order(kind):
    """No operation whose order of additions torch documents as left open on CUDA."""
    with Names() as seen:
        together.measure_together(KINDS[kind](300), windows_of(), WITHIN)
    assert {"bmm", "mm", "sum"} <= seen.names
    left_open = {"cumsum", "index_add", "scatter_add", "scatter_reduce", "index_put", "put", "bincount", "histc"}
    assert not seen.names & left_open


@pytest.mark.parametrize("settings", [(), ("source.variants=[plain,no_sink]", "source.heads=[0,1,3]")])
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_oss"])
def test_a_job_records_the_same_tables_on_both_paths(family, settings, tmp_path, monkeypatch):
    folder = small.save(family, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (tmp_path / "text.txt").write_text(small.text())
    about = [f"source.model={folder}", f"source.text={tmp_path / 'text.txt'}", "source.random_weights=3", *settings]
    asked = ["source.lengths=[24,48]", "source.rows=4", "source.samples=2", "tracking=disabled", *RULES]
    tables = {}
    for at_once in (False, True):
        outputs = tmp_path / str(at_once)
        monkeypatch.setattr(workers, "Workers", partial(workers.Workers, at_once=True) if at_once else workers.Workers)
        monkeypatch.setattr(
            "sys.argv", ["run.py", "source=checkpoint", *about, *asked, f"outputs={tmp_path / str(at_once)}"]
        )
        if at_once:
            monkeypatch.setattr("experiments.measures.measure.measure_rows", pytest.fail)
        assert main() == 0
        (run,) = (outputs / "runs").iterdir()
        tables[at_once] = [read(run / table.file, table) for table in (ROWS, WINDOWS)]
    for expected, found in zip(tables[False], tables[True], strict=True):
        pd.testing.assert_frame_equal(found, expected, rtol=2e-5, atol=1e-7)
