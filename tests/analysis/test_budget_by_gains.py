"""Budgets that share keys out, their files, exports and refusals; and the promise for new prompts."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.budget.__main__ import main
from analysis.budget.by_gains import shared_budget
from analysis.budget.cache import cache_lines
from analysis.statistics.gains import KL, SHARED, Measured
from examples.blocks import blocks_to_evict
from examples.kvpress.ratios import head_ratios, layer_ratios
from experiments.errors import UserError
from experiments.launch import configure
from experiments.windows import Windows
from experiments.windows.head_laws import check_grouping, head_laws, laws_hash, read_budget
from tests.analysis.synthetic import gains, write_run, write_task
from tests.analysis.test_budget import model_rows, runs_of

NAMES = ("tiny", "tiny-gains", "tiny-uniform")
SCHEMA = Path(__file__).parents[2] / "docs" / "budgets.schema.json"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gains")
    write_task(folder, "gains", "gains", {"gains": gains()}, label="tiny")
    write_run(folder, "rows", "tiny", model_rows(), source="smollm2", model="tiny")
    return folder


def keys_of(content, length):
    return np.array([next(p["k"] for p in line["keys"] if p["length"] == length) for line in content["heads"]])


@pytest.mark.parametrize("by", SHARED)
@pytest.mark.parametrize("cost", [40, 100.5])
def test_every_way_spends_the_same(measured, by, cost):
    content = shared_budget(measured, "tiny", cost, by)
    for length in (256, 512):
        assert keys_of(content, length).mean() == pytest.approx(cost)
    assert len(content["heads"]) == 8
    assert content["heads_per_kv_head"] == [2, 2]


def test_keys_go_where_they_gain_and_that_is_foretold_on_samples_left_out(measured):
    content = shared_budget(measured, "tiny", 60)
    assert (keys_of(content, 512)[:4] > keys_of(content, 512)[4:]).all()
    for line in content["promise"]:
        assert line["lost"] < line["uniform"]
        assert line["difference"] == pytest.approx(line["lost"] - line["uniform"])
        assert 0 <= line["standard_error"] < -line["difference"]
    other = shared_budget(measured, "tiny", 60, selector="oracle")
    assert other["promise"][0]["lost"] < content["promise"][0]["lost"]
    same = shared_budget(measured, "tiny", 60, "uniform")
    assert same["promise"][0]["difference"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "gains"], "give --cost"),
        *(
            (["--by", "gains", "--cost", cost], "give a mean number of keys from")
            for cost in ("5", "0", "1e9", "nan", "-1")
        ),
        (["--by", "gains", "--cost", "60", "--selector", "quest"], "gains were measured of oracle, snap_kv_prompt"),
        *(
            (["--by", way, "--cost", "60", *option], f"{option[0]} go with --by needs")
            for way, option in (
                ("gains", ["--prompts", "0.9"]),
                ("gains", ["--lengths", "300"]),
                ("uniform", ["--serves", "32"]),
                ("pyramid", ["--coverage", "0.9"]),
                ("zigzag", ["--tolerance", "dropped_mass=0.05"]),
                ("gains", ["--extrapolate"]),
            )
        ),
        (["--selector", "oracle", "--least", "loss"], "--selector and --least go with --by gains, uniform"),
        (["--per", "layer"], "--per go with --by gains"),
        (["--by", "gains", "--cost", "60", "--block", "0"], "--block 0"),
        (["--prompts", "0.9"], "takes 9 samples that were not fitted, but 4 are held out; measure 18"),
        (["--prompts", "1"], "give a share between 0 and 1"),
        (["--prompts", "0.5", "--cost", "40"], "give one"),
        (["--csv"], "its model is not here"),
    ],
)
def test_what_cannot_be_answered_is_one_line(measured, capsys, arguments, message):
    assert main(["--model", "tiny", "--outputs", str(measured), "--name", "none", *arguments]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (measured / "budgets" / "none.json").exists()


def test_a_method_has_its_own_fullest_design(tmp_path, capsys):
    write_task(tmp_path, "both", "gains", {"gains": gains(lengths=(256,))}, label="tiny")
    fuller = gains(lengths=(256, 512))
    write_task(
        tmp_path, "oracle", "gains", {"gains": fuller[fuller["selector"] == "oracle"]}, label="tiny", decode_tokens=16
    )
    assert shared_budget(tmp_path, "tiny", 60)["fitted"]["lengths"] == [256]
    assert shared_budget(tmp_path, "tiny", 60, selector="oracle")["fitted"]["lengths"] == [256, 512]
    command = ["--model", "tiny", "--outputs", str(tmp_path), "--by", "gains", "--cost", "60", "--per", "kv_head"]
    assert main(command) == 1
    assert "experiment=gains runner.per=kv_head" in capsys.readouterr().err


def test_without_gains_no_keys_are_shared_out(tmp_path, capsys):
    write_run(tmp_path, "rows", "tiny", model_rows(), source="smollm2", model="tiny")
    assert main(["--model", "tiny", "--outputs", str(tmp_path), "--by", "gains", "--cost", "60"]) == 1
    assert "experiment=gains" in capsys.readouterr().err


def test_keys_shared_out_are_a_file_of_their_own(measured, capsys):
    place = ["--model", "tiny", "--outputs", str(measured)]
    for how in ([], ["--by", "gains", "--cost", "60"], ["--by", "uniform", "--cost", "60"]):
        assert main([*place, *how]) == 0
    files = {name: json.loads((measured / "budgets" / f"{name}.json").read_text())["by"] for name in NAMES}
    assert files == dict(zip(NAMES, ("needs", "gains", "uniform"), strict=True))


def test_written_files_follow_the_schema_and_are_read_by_the_windows(measured, capsys):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: pip install jsonschema")
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    place = ["--model", "tiny", "--outputs", str(measured)]
    for name, how in {
        "needs": [],
        "prompts": ["--prompts", "0.8"],
        "scaled": ["--cost", "40"],
        "gains": ["--by", "gains", "--cost", "60", "--csv", "--least", "loss"],
        "zigzag": ["--by", "zigzag", "--cost", "60"],
    }.items():
        assert main([*place, "--name", name, *how]) == 0
        path = measured / "budgets" / f"{name}.json"
        content = json.loads(path.read_text())
        jsonschema.validate(content, schema)
        assert read_budget(str(path)) == content
        command = capsys.readouterr().out.split("python run.py ")[1]
        assert "runner.phase=decode" in command
        assert ("selector=" in command) == ("--by" in how)
        assert configure(*shlex.split(command)).windows.file == str(path)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content | {"heads": []}, schema)


def test_keys_between_the_lengths_are_linear_and_keep_the_total(measured):
    content = shared_budget(measured, "tiny", 60)
    n = np.array([256.0, 300.0, 400.0, 512.0])
    laws = head_laws(content, [1.0, 0.5])
    assert laws.coordinates(512) == [(60.0, 1.0), (60.0, 0.5)]
    np.testing.assert_allclose(laws.mean_sizes(n).mean(0), 60)
    low, high = keys_of(content, 256), keys_of(content, 512)
    np.testing.assert_allclose(laws.mean_sizes(n)[:, 1], low + (high - low) * 44 / 256)
    sizes = laws.of_head(1, 3).sizes(torch.tensor([300, 40]), torch.tensor([60.0]), torch.tensor([1.0, 0.5]))
    np.testing.assert_allclose(sizes[0], laws.mean_sizes(n)[7, 1] * np.array([1, 0.5]))


def test_a_layer_that_sees_a_part_of_the_context_keeps_what_the_file_has_for_the_whole(measured):
    content = shared_budget(measured, "tiny", 60)
    for line in content["heads"]:
        if line["layer"] == 1:
            line |= {"sees": 200, "keys": [{"length": 256, "k": 50.0}, {"length": 512, "k": 90.0}]}
    rule = head_laws(content, [1.0])
    windows = Windows([rule], [rule.coordinates(512)])
    seen_R, position_R = torch.tensor([200, 200, 200, 100]), torch.tensor([255, 383, 511, 99])
    kept = windows.of_heads(1, [0], seen_R, position_R).given_RW[:, 0].tolist()
    assert kept == [50, 70, 90, 50]
    np.testing.assert_allclose(rule.mean_sizes(np.array([256.0, 384.0, 512.0]))[4], [50, 70, 90])
    lines = cache_lines(content | {"head_dim": 8}, 1, "float32")
    parts = {(part["layer"], part["length"]): part["keys"] for part in lines}
    assert (parts[1, 256], parts[1, 512]) == (50, 90)


def test_windows_of_several_rules_are_one_curve_by_their_keys(tmp_path):
    """Rules come one after the other, and their numbers of keys do not rise over all of them."""
    lines = gains(selectors=("oracle",))
    fixed = lines[lines["parameter"].isin([0.05, 0.25])].assign(rule="fixed", parameter=lambda table: table["keys"])
    mixed = pd.concat([lines[lines["parameter"].isin([0.1, 0.5])], fixed])
    one, other = (Measured.of(table[table["length"] == 512], KL) for table in (lines, mixed))
    for keys in (40.0, 60.0, 100.0, 200.0):
        for sample in range(one.samples):
            assert other.lost_at(np.full(2, keys), sample) == pytest.approx(one.lost_at(np.full(2, keys), sample))
    twice = pd.concat([lines, lines.assign(rule="fixed", kl=lines["kl"] + 0.1)])
    at = Measured.of(twice[twice["length"] == 512], KL).lost_at(np.full(2, 0.1 * 512), 0)
    assert at == pytest.approx(one.lost_at(np.full(2, 0.1 * 512), 0) + 2 * 0.05)  # two layers, half of .1 each


def test_a_cost_at_the_bound_is_answered_where_windows_keep_other_keys_in_each_sample(tmp_path):
    lines = gains(lengths=(512,))
    lines = lines.assign(keys=lines["keys"] * (1 + 0.1 * lines["sample"]))
    write_task(tmp_path, "gains", "gains", {"gains": lines}, label="tiny")
    with pytest.raises(UserError, match="from ") as refused:
        shared_budget(tmp_path, "tiny", 1.0)
    least, most = map(int, re.search(r"from (\d+) to (\d+)", str(refused.value)).groups())
    for cost in (least, most):
        assert shared_budget(tmp_path, "tiny", cost)["cost"] == cost


def test_gains_of_some_layers_make_no_budget(tmp_path):
    write_task(tmp_path, "gains", "gains", {"gains": gains(layers=(1, 2))}, label="tiny", layers=[1, 2])
    with pytest.raises(UserError, match="gains of layers 1, 2 alone were measured"):
        shared_budget(tmp_path, "tiny", 60)


def test_a_shape_by_rows_is_refused_where_no_rows_were_measured(tmp_path, capsys):
    write_task(tmp_path, "gains", "gains", {"gains": gains(lengths=(65536,))}, label="tiny")
    place = ["--model", "tiny", "--outputs", str(tmp_path), "--by", "zigzag", "--cost", "4000"]
    assert main(place) == 1
    assert "experiment=heads" in capsys.readouterr().err
    write_run(tmp_path, "rows", "tiny", model_rows(), source="smollm2", model="tiny")
    assert main(place) == 1
    assert "gains are of 65536 tokens, rows of" in capsys.readouterr().err


def test_a_file_of_format_1_keeps_its_run_id():
    line = {"layer": 0, "head": 0, "alpha": 2.0, "C": 0.5, "keys": [{"length": 8, "k": 5.0}]}
    content = {"model": "m", "tolerance": {"dropped_mass": 0.05}, "cost": None, "pooled": line, "heads": [line]}
    assert laws_hash(content) == laws_hash(content | {"format": 1, "heads": [line | {"keys": []}]})
    assert laws_hash(content)[:12] == "e931de481232"
    capped = content | {"heads": [line | {"sees": 16}]}  # a law: the keys beside it are said, and decide nothing
    assert laws_hash(capped) == laws_hash(content | {"heads": [{**line, "sees": 16, "keys": []}]})
    without = {name: value for name, value in line.items() if name != "keys"}
    assert laws_hash(capped) == laws_hash(content | {"heads": [without | {"sees": 16}]})


def test_the_cache_holds_whole_blocks_of_the_most_demanding_head(measured, tmp_path):
    assert (
        main(["--model", "tiny", "--outputs", str(measured), "--by", "gains", "--cost", "60", "--csv", "--name", "c"])
        == 0
    )
    content = read_budget(str(measured / "budgets" / "c.json"))
    parts = content["cache"]["parts"]
    table = pd.read_csv(measured / "budgets" / "c.csv")
    assert table.to_dict("records") == parts
    assert len(parts) == 2 * 2 * 2  # layers, KV heads, lengths
    for part in parts:
        line = next(x for x in content["heads"] if (x["layer"], x["head"]) == (part["layer"], 2 * part["kv_head"]))
        k = next(point["k"] for point in line["keys"] if point["length"] == part["length"])
        assert part["keys"] % 16 == 0
        assert k <= part["keys"] < k + 16
        assert part["bytes"] == part["keys"] * 2 * 8 * 2
    content["heads"][0] |= {"alpha": 100.0, "C": 1.0, "sees": 128}  # a sliding layer's head that keeps all it sees
    assert cache_lines(content, 1, "float32")[0] == {
        "layer": 0,
        "kv_head": 0,
        "length": 256,
        "keys": 128,
        "bytes": 128 * 64,
    }


def test_a_serving_engine_evicts_the_blocks_beyond_the_budget(measured):
    content = shared_budget(measured, "tiny", 60)
    content |= {"cache": {"block": 16, "dtype": "bfloat16", "parts": cache_lines(content, 16, "bfloat16")}}
    held = {
        part["length"]: part["keys"] // 16
        for part in content["cache"]["parts"]
        if part["layer"] == part["kv_head"] == 1
    }
    score_B = np.random.default_rng(0).permutation(40).astype(float)
    for length, at in ((100, 256), (256, 256), (300, 512), (9999, 512)):
        gone = blocks_to_evict(content, 1, 1, score_B, length)
        assert len(gone) == 40 - held[at]
        assert score_B[gone].max() < np.delete(score_B, gone).min()
    assert len(blocks_to_evict(content, 1, 1, score_B[:1], 100)) == 0


def gains_of_kv_heads(**options):
    """Return gains of KV heads, of which the first of a layer loses a fifth of what the second does."""
    return pd.concat(
        gains(**options).assign(kv_head=kv_head, kl=lambda lines, share=share: share * lines["kl"])
        for kv_head, share in ((0, 0.2), (1, 1.0))
    )


def test_gains_of_kv_heads_become_a_ratio_for_each(tmp_path):
    write_task(tmp_path, "gains", "gains", {"gains": gains_of_kv_heads()}, label="tiny")
    command = ["--model", "tiny", "--outputs", str(tmp_path), "--by", "gains", "--cost", "60", "--name", "kv_heads"]
    assert main(command) == 0
    content = read_budget(str(tmp_path / "budgets" / "kv_heads.json"))
    keys = keys_of(content, 512).reshape(2, 2, 2)  # layers, KV heads, query heads of a KV head
    assert (keys[:, 0] < keys[:, 1]).all()
    assert (keys[..., 0] == keys[..., 1]).all()
    np.testing.assert_allclose(head_ratios(content, 512), 1 - keys[..., 0] / 512)
    assert np.mean(head_ratios(content, 512)) == pytest.approx(1 - 60 / 512)
    np.testing.assert_allclose(layer_ratios(content, 512), np.mean(head_ratios(content, 512), 1))


@pytest.mark.parametrize("lengths", [(256, 512), (512,)])
def test_gains_of_layers_and_of_kv_heads_are_not_mixed(tmp_path, measured, lengths):
    write_task(tmp_path, "layers", "gains", {"gains": gains()}, label="tiny")
    write_task(tmp_path, "heads", "gains", {"gains": gains_of_kv_heads(lengths=lengths)}, label="tiny")
    with pytest.raises(UserError, match=r"gains of layers and of KV heads were measured: give --per layer or kv_head"):
        shared_budget(tmp_path, "tiny", 60)
    assert shared_budget(tmp_path, "tiny", 60, per="layer")["heads"] == shared_budget(measured, "tiny", 60)["heads"]
    heads = shared_budget(tmp_path, "tiny", 60, per="kv_head")
    assert heads["fitted"]["lengths"] == list(lengths)
    assert head_ratios(heads, 512)[0][0] > head_ratios(heads, 512)[0][1]
    with pytest.raises(UserError, match=r"experiment=gains runner.per=kv_head"):
        shared_budget(measured, "tiny", 60, per="kv_head")


def test_of_two_designs_the_fuller_counts(tmp_path, measured):
    write_task(tmp_path, "both", "gains", {"gains": gains()}, label="tiny")
    write_task(tmp_path, "one", "gains", {"gains": gains(lengths=(1024,))}, label="tiny")
    assert shared_budget(tmp_path, "tiny", 60)["heads"] == shared_budget(measured, "tiny", 60)["heads"]


def test_another_grouping_of_heads_is_refused(measured):
    content = shared_budget(measured, "tiny", 60)
    check_grouping(content, "windows.file=b.json", [2, 2])
    check_grouping({}, "windows.file=b.json", [1])  # of format 1
    with pytest.raises(UserError, match="made for 2 query heads per KV head in layer 1, but the model has 4"):
        check_grouping(content, "windows.file=b.json", [2, 4])
    with pytest.raises(UserError, match="made for 2 layers, but the model has 3"):
        check_grouping(content, "windows.file=b.json", [2, 2, 2])


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [{"length": 8, "k": 0}],
        [{"length": 8, "k": 9}],
        [{"length": 8, "k": 2}, {"length": 8, "k": 2}],
        [{"k": 2}],
        5,
    ],
)
def test_keys_that_no_head_can_have_are_refused(measured, tmp_path, keys):
    content = shared_budget(measured, "tiny", 60)
    content["heads"][1]["keys"] = keys
    path = tmp_path / "b.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="no budget file") as error:
        read_budget(str(path))
    assert "\n" not in str(error.value)


def test_a_promise_for_prompts_serves_them(tmp_path):
    """Of four samples held out, the factor is the largest that one of them takes for 80% of new ones."""
    from analysis.budget import budget

    write_run(
        tmp_path, "run", "tiny", model_rows(noise=0.2), source="checkpoint", model="m", unions=runs_of(model_rows())
    )
    plain = budget(tmp_path, "tiny", 0.05, 0.9, None, [], False)
    content = budget(tmp_path, "tiny", 0.05, 0.9, None, [], False, prompts=0.8)
    told = content["prompts"]
    assert (told["share"], told["samples"]) == (0.8, 4)
    assert content["factor"] == told["factor"]
    for line, before in zip(content["heads"], plain["heads"], strict=True):
        assert line["alpha"] == pytest.approx(before["alpha"] * told["factor"])
    rows = model_rows(noise=0.2)
    laws = {(line["layer"], line["head"]): line for line in content["heads"]}
    given = [
        laws[place]["alpha"] * n ** laws[place]["C"]
        for *place, n in rows[["layer", "head", "n"]].to_numpy(int).tolist()
        for place in [tuple(place)]
    ]
    served = (rows["k_min_0.05"] <= np.ceil(given)).groupby(rows["sample"]).mean()
    assert (served[:4] >= 0.9).all()
    assert served[:4].min() < 0.93
