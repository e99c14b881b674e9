"""The whole grid of a checkpoint against its plain forward pass: time in one process, memory in two."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch

from benchmarks.pairs import time_pairs
from experiments.launch import configure
from experiments.machine import Machine
from experiments.models.load import load_model
from experiments.models.probe import forward
from experiments.records.folder import Record
from experiments.records.provenance import peak_rss_mb

LENGTHS = [256, 512, 1024, 2048, 4096, 8192]
PAIRS = 5


class Sides:
    """The two sides: a plain forward pass, and one with all 270 heads measured at all lengths and recorded."""

    def __init__(self, device: str = "cpu", *, triton: bool = False) -> None:
        self.job = configure("source=smollm2", f"source.lengths={LENGTHS}", "source.rows=32", "source.samples=1")
        self.machine = Machine.from_settings(device, self.job.memory_gb, None, triton=triton)
        assert len(self.job.windows.at(max(LENGTHS))) >= 64
        source = self.job.source
        self.token_N = source.documents(self.job.seed)[0]
        self.model = load_model(source.located, torch.float32, self.machine.device)

    def plain(self) -> None:
        """Run the model as it is."""
        forward(self.model, self.token_N)

    def probed(self) -> None:
        """Run the job; the model is in memory already, as it is on the plain side."""
        job = self.job
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch("experiments.models.load.load_model", return_value=self.model),
        ):
            record = Record(Path(folder), job.runner.tables)
            job.runner.run(job.source, job.selector, job.windows, self.machine, job.seed, record, lambda: None)
            record.close("", dict)


def run() -> dict[str, float]:
    """Return `probe_time_ratio` and `probe_memory_ratio`."""
    sides = Sides()
    pairs = time_pairs(sides.probed, sides.plain, PAIRS)
    print(f"  SmolLM2, {LENGTHS[-1]} tokens, probed / plain: {pairs.describe()}")
    peaks = {}
    for side in ("probed", "plain"):
        command = [sys.executable, "-m", "benchmarks.probe", side]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[side] = json.loads(done.stdout.splitlines()[-1])["peak_mb"]
    print(f"  peak memory: probed {peaks['probed']:.0f} MB, plain {peaks['plain']:.0f} MB")
    return pairs.results("probe_time_ratio") | {"probe_memory_ratio": peaks["probed"] / peaks["plain"]}


if __name__ == "__main__":
    getattr(Sides(), sys.argv[1])()
    print(json.dumps({"peak_mb": peak_rss_mb()}))
