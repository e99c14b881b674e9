"""Threads: what the user asked for, else what affinity and the container allow."""

import os
import re

import psutil
import pytest
import torch

from experiments import machine
from experiments.errors import UserError
from experiments.launch import configure
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


def test_auto_is_four_fifths_of_what_is_free(tmp_path, monkeypatch):
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    limit.write_text("3000000000\n")
    used.write_text("1000000000\n")
    monkeypatch.setattr(machine, "MEMORY_LIMIT", limit)
    monkeypatch.setattr(machine, "MEMORY_USED", used)
    free = psutil.virtual_memory().available
    allowed = machine.Machine.from_settings("cpu", "auto", 1).memory_bytes
    assert allowed == int(0.8 * min(2_000_000_000, machine.free_bytes(torch.device("cpu"))))
    limit.write_text("max\n")
    assert machine.free_bytes(torch.device("cpu")) == pytest.approx(free, rel=0.5)
    assert machine.Machine.from_settings("cpu", 2.5, 1).memory_bytes == 2_500_000_000


@pytest.mark.parametrize("value", ["much", "4GB", "true", "[4]"])
def test_memory_is_a_number_or_auto(value):
    with pytest.raises(UserError, match=r"memory_gb=.*give a number of GB, or auto"):
        configure("source=gaussian", f"memory_gb={value}")
    assert configure("source=gaussian", "memory_gb=auto").memory_gb == "auto"


@pytest.mark.parametrize("keys", [10_000, 123_457, 8_000_000])
def test_the_memory_that_a_refusal_asks_for_is_enough(keys):
    for resident in (0, 22_359_999_999, 1_234_567_890):
        with pytest.raises(UserError, match="give memory_gb=") as refused:
            rows_per_block(1, keys, 100, 64, 1000, resident)
        asked = float(re.search(r"give memory_gb=([\d.]+)", str(refused.value))[1])
        assert rows_per_block(1, keys, 100, 64, int(asked * 1e9), resident) == 1
