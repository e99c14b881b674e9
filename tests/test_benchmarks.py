"""The benchmarks run, at sizes that say nothing about speed."""

import pytest

import benchmarks.__main__ as bench
from benchmarks import windows
from benchmarks.pairs import Pairs, time_pairs


def test_ratios_are_medians_pair_by_pair():
    pairs = Pairs(first=[2.0, 9.0, 4.0], second=[1.0, 3.0, 4.0])
    assert pairs.ratios == [2.0, 3.0, 1.0]
    assert pairs.ratio == 2.0


def test_both_sides_run_in_turn_after_a_warm_up():
    calls = []
    time_pairs(lambda: calls.append("a"), lambda: calls.append("b"), 2)
    assert calls == ["a", "b"] * 3


def test_the_window_benchmark_runs(monkeypatch):
    monkeypatch.setattr(windows, "SHAPES", ((4, 2048, 16),))
    monkeypatch.setattr(windows, "PAIRS", 1)
    assert set(windows.run()) <= set(bench.BARS)


def test_the_table_tells_met_from_missed():
    from rich.console import Console

    console = Console(width=100)
    with console.capture() as capture:
        console.print(bench._table({"windows_sdpa_ratio": 9.0, "windows_loop_ratio": 60.0, "scale_exponent": 1.03}))
    lines = {line.split()[1]: line for line in capture.get().splitlines() if "_" in line}
    assert "MISSED" in lines["windows_sdpa_ratio"]
    assert "aim met" in lines["windows_loop_ratio"]
    assert " met" in lines["scale_exponent"]
    assert "aim" not in lines["scale_exponent"]


def test_an_unknown_name_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["benchmarks", "nothing", "--outputs", str(tmp_path)])
    with pytest.raises(SystemExit):
        bench.main()
    assert "nothing" in capsys.readouterr().err
