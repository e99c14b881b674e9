"""The benchmarks run, at sizes that say nothing about speed."""

import importlib
from importlib.util import find_spec

import pytest
import torch

import benchmarks.__main__ as bench
from benchmarks import hub, start, windows
from benchmarks.pairs import Pairs, time_pairs
from experiments.windows import Windows
from experiments.windows.rules.fixed import Fixed


class Clock:
    """A clock under which timed calls take the seconds that are laid out for them, one after the other."""

    def __init__(self, seconds):
        self.now = 0.0
        self.seconds = iter(seconds)
        self.calls = []

    def function(self, name):
        def run():
            self.calls.append(name)
            if self.calls.count(name) > 1:  # the first is the warm-up
                self.now += next(self.seconds)

        return run

    def pairs(self, rounds):
        return time_pairs(self.function("a"), self.function("b"), rounds)


@pytest.fixture
def clock(monkeypatch):
    def lay_out(*seconds):
        clock = Clock(seconds)
        monkeypatch.setattr("benchmarks.pairs.time.perf_counter", lambda: clock.now)
        return clock

    return lay_out


def test_ratios_are_medians_round_by_round():
    pairs = Pairs(first=[2.0, 9.0, 4.0], second=[1.0, 3.0, 4.0], again=[1.0, 3.0, 4.0])
    assert pairs.ratios == [2.0, 3.0, 1.0]
    assert pairs.ratio == 2.0


def test_the_control_is_the_second_side_against_itself_in_three_of_four_rounds():
    pairs = Pairs(first=[1.0] * 4, second=[1.0] * 4, again=[1.02, 0.95, 1.0, 9.0])
    assert pairs.control == pytest.approx(0.05)
    assert not pairs.noisy
    pairs = Pairs(first=[1.0] * 4, second=[1.0] * 4, again=[1.02, 0.8, 1.0, 9.0])
    assert pairs.results("x_ratio") == {"x_ratio": 1.0, "x_ratio_control": pytest.approx(0.2), "x_ratio_noisy": 1.0}
    assert "noisy" in pairs.describe()


def test_both_sides_and_the_control_run_in_turn_after_a_warm_up(clock):
    machine = clock(*[4.0, 2.0, 2.0] * 2)
    pairs = machine.pairs(2)
    assert machine.calls == ["a", "b", *"abbabb"]
    assert (pairs.ratio, pairs.control, pairs.noisy) == (2.0, 0.0, False)


def test_a_busy_machine_is_tried_again_until_it_is_quiet(clock):
    machine = clock(4.0, 2.0, 3.0, 4.0, 2.0, 2.1)
    assert machine.pairs(1).control == pytest.approx(0.05)


def test_a_machine_that_is_always_busy_gives_its_quietest_try_marked(clock):
    machine = clock(4.0, 2.0, 3.0, 5.0, 2.0, 2.4, 6.0, 2.0, 4.0)
    pairs = machine.pairs(1)
    assert (pairs.ratio, pairs.noisy) == (2.5, True)
    assert machine.calls == ["a", "b", *"abb" * 3]


def test_the_window_benchmark_runs(monkeypatch):
    monkeypatch.setattr(windows, "SHAPES", ((4, 2048, 16),))
    monkeypatch.setattr(windows, "PAIRS", 1)
    measured = windows.run()
    ratios = {name for name in measured if name.endswith("_ratio")}
    assert ratios == {"windows_sdpa_ratio", "windows_loop_ratio"} <= set(bench.BARS)
    assert set(measured) == {name + part for name in ratios for part in ("", "_control", "_noisy")}


@pytest.mark.parametrize("name", [name for name in bench.NAMES if find_spec(f"benchmarks.{name}")])
def test_every_benchmark_can_be_imported(name):
    assert callable(importlib.import_module(f"benchmarks.{name}").run)


def test_bars_of_a_larger_is_better_number_rise():
    for name, (bar, aim) in bench.BARS.items():
        assert bar <= aim if name in bench.LARGER_IS_BETTER else bar >= aim, name


def test_the_start_benchmark_runs(monkeypatch):
    monkeypatch.setattr(start, "REPEATS", 1)
    measured = start.run()
    assert set(measured) == {"help_cpu_s", "refusal_cpu_s", "status_cpu_s"}
    assert all(seconds > 0 for seconds in measured.values())


def test_a_peer_that_is_not_installed_is_skipped_by_its_name(monkeypatch, capsys):
    monkeypatch.setattr(hub, "PACKAGE", "no_such_package")
    assert hub.run() == {}
    assert "no_such_package: not installed, skipped" in capsys.readouterr().out


def test_our_side_of_the_peer_has_the_error_of_the_most_probable_keys(monkeypatch):
    for name, number in {"KEYS": 128, "ROWS": 8, "K": 16, "REPEATS": 1}.items():
        monkeypatch.setattr(hub, name, number)
    measured = hub.ours(Windows([Fixed([16])], [Fixed([16]).coordinates(128)]))
    query_HRD, key_GND, value_GND = hub.inputs()
    outputs = []
    for head, query_RD in enumerate(query_HRD):
        logits_RN = query_RD @ key_GND[head // 4].T * hub.SCALE
        least_R1 = logits_RN.sort(descending=True).values[:, 15:16]
        kept_RN = logits_RN.masked_fill(logits_RN < least_R1, -torch.inf)
        outputs.append(torch.softmax(kept_RN, -1) @ value_GND[head // 4])
    assert measured["error"] == pytest.approx(hub.error_of(torch.stack(outputs)), rel=1e-5)
    assert 0 < measured["error"] < 1


def test_the_table_tells_met_from_missed_and_noisy_from_quiet():
    from rich.console import Console

    console = Console(width=100)
    measured = {"windows_sdpa_ratio": 9.0, "windows_sdpa_ratio_control": 0.03, "windows_sdpa_ratio_noisy": 0.0}
    measured |= {"windows_loop_ratio": 120.0, "windows_loop_ratio_control": 0.4, "windows_loop_ratio_noisy": 1.0}
    with console.capture() as capture:
        console.print(bench._table(measured | {"scale_exponent": 1.01, "other_s": 3.0}))
    lines = {line.split()[1]: line for line in capture.get().splitlines() if "_" in line}
    assert list(lines) == ["windows_sdpa_ratio", "windows_loop_ratio", "scale_exponent", "other_s"]
    assert "MISSED" in lines["windows_sdpa_ratio"]
    assert "3.0%" in lines["windows_sdpa_ratio"]
    assert "noisy" not in lines["windows_sdpa_ratio"]
    assert "aim met, noisy" in lines["windows_loop_ratio"]
    assert " met" in lines["scale_exponent"]
    assert "aim" not in lines["scale_exponent"]


def test_an_unknown_name_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["benchmarks", "nothing", "--outputs", str(tmp_path)])
    with pytest.raises(SystemExit):
        bench.main()
    assert "nothing" in capsys.readouterr().err
