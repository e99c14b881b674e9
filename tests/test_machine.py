"""Threads: what the user asked for, else what affinity and the container allow."""

import os
import re

import pytest
import torch

from experiments import machine
from experiments.errors import UserError
from experiments.measures.memory import rows_per_block


@pytest.mark.parametrize(("threads", "environment"), [(10**6, None), (None, "1000000")])
def test_more_threads_than_can_be_started_are_refused(threads, environment, monkeypatch):
    if environment:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    with pytest.raises(UserError, match="=1000000: this machine has"):
        machine.Machine.from_settings("cpu", 4.0, threads)


@pytest.mark.parametrize(("written", "threads"), [("100000 100000", 1), ("150000 100000", 1), ("50000 100000", 1)])
def test_a_quota_of_the_container_limits_the_threads(written, threads, tmp_path, monkeypatch):
    quota = tmp_path / "cpu.max"
    quota.write_text(written)
    monkeypatch.setattr(machine, "CPU_QUOTA", quota)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert machine._allowed_threads() == threads


@pytest.mark.parametrize("written", ["max 100000", "", "nonsense"])
def test_without_a_quota_the_cores_count(written, tmp_path, monkeypatch):
    quota = tmp_path / "cpu.max"
    quota.write_text(written)
    monkeypatch.setattr(machine, "CPU_QUOTA", quota)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert machine._allowed_threads() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine._allowed_threads() == 3


@pytest.mark.parametrize("keys", [10_000, 123_457, 8_000_000])
def test_the_memory_that_a_refusal_asks_for_is_enough(keys):
    for resident in (0, 22_359_999_999, 1_234_567_890):
        with pytest.raises(UserError, match="give memory_gb=") as refused:
            rows_per_block(1, keys, 100, 64, 1000, resident)
        asked = float(re.search(r"give memory_gb=([\d.]+)", str(refused.value))[1])
        assert rows_per_block(1, keys, 100, 64, int(asked * 1e9), resident) == 1


def test_memory_may_be_what_the_device_has(monkeypatch, tmp_path):
    free = 10_000_000_000
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": free}))
    monkeypatch.setattr(machine, "MEMORY", tmp_path)
    assert machine.Machine.from_settings("cpu", "auto", 1).memory_bytes == pytest.approx(0.9 * free)
    (tmp_path / "memory.current").write_text("1000000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.Machine.from_settings("cpu", "auto", 1).memory_bytes == pytest.approx(0.9 * free)
    (tmp_path / "memory.max").write_text("3000000000\n")
    assert machine.Machine.from_settings("cpu", "auto", 1).memory_bytes == pytest.approx(0.9 * 2e9)


@pytest.mark.parametrize("given", ["all", "4GB", "", "nan", float("nan"), 0, -1, 1e7])
def test_memory_that_is_neither_a_number_nor_auto_is_refused(given):
    with pytest.raises(UserError, match=r"^memory_gb=.*: give a number > 0"):
        machine.Machine.from_settings("cpu", given, 1)


def test_a_machine_of_twice_the_speed_takes_half_the_time(monkeypatch):
    a_core = machine.Machine.from_settings("cpu", 1, 1)
    for times in (1, 2):
        monkeypatch.setattr(machine, "_rate", lambda device, dtype, times=times: times * machine.REFERENCE_RATE)
        assert a_core.seconds(10.0, "float32") == pytest.approx(10 / times)
        assert machine.Machine.from_settings("cpu", 1, 2).seconds(10.0, "bfloat16") == pytest.approx(5 / times)
        torch.set_num_threads(1)


def test_the_speed_is_that_of_a_product(monkeypatch):
    """A clock that counts products: so many operations for each tick."""
    ticks = iter(range(100))
    monkeypatch.setattr(machine.time, "process_time", lambda: float(next(ticks)))
    machine._rate.cache_clear()
    assert machine._rate(torch.device("cpu"), torch.float32) == 2 * machine.ROWS * machine.WIDTH**2
    machine._rate.cache_clear()
