"""What others offer, beside our measures of the same rows: transformers itself, `output_attentions=True`, and a hub."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from benchmarks import hub
from experiments.launch import configure
from experiments.machine import Machine
from experiments.models.load import load_model
from experiments.records.provenance import peak_rss_mb

LENGTH = 2304  # the largest multiple of 256 whose 1080 n^2 bytes of attentions fit in 8 GB with the model
ROWS = 32


def _theirs() -> None:
    import torch

    source = configure("source=smollm2", f"source.lengths=[{LENGTH}]", "source.samples=1").source
    model = load_model(source.located, torch.float32, torch.device("cpu"))
    model.set_attn_implementation("eager")
    token_N = source.documents(seed=0)[0]
    start = time.perf_counter()
    with torch.inference_mode():
        attentions = model(input_ids=token_N[None], output_attentions=True, use_cache=False).attentions
    for layer in attentions:
        layer[0, :, -ROWS:].topk(64, dim=-1)  # one window of the sampled rows
    _say(start)


def _ours() -> None:
    import tempfile
    from pathlib import Path

    from experiments.records.folder import Record

    job = configure("source=smollm2", f"source.lengths=[{LENGTH}]", f"source.rows={ROWS}", "source.samples=1")
    machine = Machine.from_settings("cpu", job.memory_gb, None)
    job.source.documents(job.seed)  # as on the other side, the text is tokenized before the clock starts
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        job.runner.run(
            job.source, job.selector, job.windows, machine, 0, Record(Path(folder), job.runner.tables), lambda: None
        )
    _say(start)


def _say(start: float) -> None:
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_mb": peak_rss_mb()}))


def run() -> dict[str, float]:
    """Return seconds and peak memory of both sides; ours has every window and measure, theirs one top-k or a few."""
    result: dict[str, float] = {}
    for side in ("theirs", "ours"):
        command = [sys.executable, "-m", "benchmarks.peers", side]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        facts = json.loads(done.stdout.splitlines()[-1])
        print(f"  {side}: {facts['seconds']:.1f} s, peak {facts['peak_mb']:.0f} MB")
        result |= {f"output_attentions_{side}_{name}": value for name, value in facts.items()}
    return result | hub.run()


if __name__ == "__main__":
    {"theirs": _theirs, "ours": _ours}[sys.argv[1]]()
