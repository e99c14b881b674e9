"""What `python -m analysis` costs: of one quick record, of 300 small runs, and of a model of 8B's 14 million windows.

The quick record is measured, unless `outputs/` has one. Of the 300 runs four are measured, at as many logit scales, and
copied under other seeds. The large record is made up: curves of a plausible shape, with noise, in the stored form.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiments.launch import configure
from experiments.records.folder import seal
from experiments.records.table_file import GrowingTable
from experiments.tables.rows import EPSILONS, ETAS, ROWS, k_min
from experiments.tables.windows import WINDOWS

QUICK = 4  # runs of the preset
SCALES, SEEDS = (0.3, 0.5, 0.8, 1.1), 75
SMALL = ("source.lengths=[64,128,256,512,1024]", "source.rows=8", "source.samples=4", "tracking=disabled")
LAYERS, HEADS = 32, 32
LENGTHS = [int(n) for n in np.geomspace(512, 24576, 12).round()]
LINES = 14_000_000
ROWS_EACH = 4  # of a head, length and sample

# in a process of its own, which says what it took: of another process the kernel tells too much
MEASURED = """
import json, sys, time
from analysis import interrupt
from analysis.__main__ import main
from experiments.records.provenance import peak_rss_mb
status = main(["--outputs", sys.argv[1]])
print(json.dumps({"status": status, "peak_mb": peak_rss_mb(), "cpu_s": time.process_time()}))
"""


def analyse(outputs: Path) -> dict[str, float]:
    """Analyse records; return `seconds`, `cpu_s` and `peak_mb`."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", MEASURED, str(outputs)], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert told.pop("status") == 0, done.stderr
    return told | {"seconds": seconds}


def quick_record(outputs: Path) -> None:
    """Put the runs of `experiment=quick` below `outputs`: those that are measured already, or new ones."""
    measured = []
    for manifest in sorted(Path("outputs", "runs").glob("*/manifest.json")):
        about = json.loads(manifest.read_text())
        if about["experiment"] == "quick" and about["status"] == "complete":
            measured.append(manifest.parent)
    if len(measured) == QUICK:
        for folder in measured:
            shutil.copytree(folder, outputs / "runs" / folder.name)
        return
    command = [sys.executable, "run.py", "experiment=quick", "tracking=disabled", f"outputs={outputs}"]
    subprocess.run(command, check=True, capture_output=True)


def small_runs(outputs: Path) -> None:
    """Measure a small run at every scale, and copy it under other seeds."""
    scales = ",".join(map(str, SCALES))
    command = [sys.executable, "run.py", "-m", f"source.s={scales}", *SMALL, f"outputs={outputs}"]
    subprocess.run(command, check=True, capture_output=True)
    for folder in sorted((outputs / "runs").iterdir()):
        for seed in range(1, SEEDS):
            copy = folder.with_name(f"{folder.name[:12]}{seed:04}")
            shutil.copytree(folder, copy)
            manifest = json.loads((copy / "manifest.json").read_text())
            manifest |= {"run_id": copy.name, "seed": seed}
            manifest["identity"]["seed"] = seed
            seal(copy, manifest)


def large_record(outputs: Path, heads: int = HEADS, lines: int = LINES) -> int:
    """Make up one record of a model of 32 layers, and return how many windows it has.

    A head's dropped mass is 1 - (k / n)^a, with noise per sample, a of its own.
    """
    draw = np.random.default_rng(0)
    job = configure(f"source.lengths={LENGTHS}".replace(" ", ""))
    of_length = {n: {name: np.array(v) for name, v in job.windows.at(n).columns().items()} for n in LENGTHS}
    samples = -(-lines // (LAYERS * heads * sum(len(each["rule"]) for each in of_length.values())))
    folder = outputs / "runs" / "0123456789abcdef"
    folder.mkdir(parents=True)
    rows, windows = GrowingTable(folder / ROWS.file, ROWS), GrowingTable(folder / WINDOWS.file, WINDOWS)
    own = draw.uniform(0.05, 0.4, (LAYERS, heads))
    for sample in range(samples):
        for layer, head in np.ndindex(LAYERS, heads):
            for n in LENGTHS:
                place = {"layer": layer, "head": head, "sample": sample, "variant": "plain", "length": n}
                exponent = own[layer, head] * np.exp(0.1 * draw.normal())
                rows.append(_rows(place, n, exponent, draw))
                windows.append(_windows(place, n, exponent, of_length[n]))
    rows.close()
    windows.close()
    _about(folder, samples)
    return windows.lines


def _repeated(place: dict[str, Any], count: int) -> dict[str, np.ndarray]:
    return {name: np.repeat(value, count) for name, value in place.items()}


def _rows(place: dict[str, Any], n: int, exponent: float, draw: np.random.Generator) -> dict[str, np.ndarray]:
    spread = np.exp(0.1 * draw.normal(size=ROWS_EACH))
    values = {name: spread for name, column in ROWS.columns.items() if column.type == "float32"}
    for eta in ETAS:
        values[k_min(eta)] = np.clip(n * (1 - eta) ** (spread / exponent), 1, n).astype(np.int64)
    values |= {f"count_{epsilon:g}": np.arange(ROWS_EACH) for epsilon in EPSILONS}
    values |= {"position": n - 1 - np.arange(ROWS_EACH), "n": np.repeat(n, ROWS_EACH)}
    return _repeated(place, ROWS_EACH) | values


def _windows(place: dict[str, Any], n: int, exponent: float, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rule, parameter, scale = columns["rule"], columns["parameter"], columns["scale"]
    keys = {
        "power": lambda: scale * n**parameter,
        "log": lambda: scale * np.log(n) ** parameter,
        "linear": lambda: parameter * n,
        "top_p": lambda: n * (1 - parameter) ** (1 / exponent),
        "threshold": lambda: n**0.8 * parameter**-0.1,
    }
    with np.errstate(over="ignore", invalid="ignore"):  # of parameters that other rules have
        k = np.select([rule == name for name in keys], [of_rule() for of_rule in keys.values()], parameter)
    k = np.clip(k, 1, n)
    dropped = 1 - (k / n) ** exponent
    kl = -exponent * np.log(k / n)
    values = dict.fromkeys((name for name, column in WINDOWS.columns.items() if column.type == "float32"), dropped)
    values |= {"kl": kl, "normaliser_error": kl, "negative_mass": np.zeros(len(k)), "failed": np.zeros(len(k))}
    values |= {"k": k, "keys_read": k, "rows": np.repeat(ROWS_EACH, len(k)), "selector": np.repeat("oracle", len(k))}
    return _repeated(place, len(k)) | values | columns


def _about(folder: Path, samples: int) -> None:
    source = {"name": "checkpoint", "model": "made/up-8B", "lengths": LENGTHS, "samples": samples, "text": None}
    config = {"experiment": "checkpoint", "seed": 0, "source": source, "runner": {"name": "approximation"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"selector": {"name": "oracle"}, "windows": {}}))
    manifest = {"run_id": folder.name, "schema": 2, "status": "complete", "label": "made-up-8B", "seed": 0}
    manifest |= {"hashes": {"model": "a" * 64, "text": "b" * 64}, "versions": {}, "git_revision": None}
    seal(folder, manifest | {"seconds": 0.0, "peak_rss_mb": 0.0, "command": "none", "created": "2025-01-01T00:00:00"})


def run() -> dict[str, float]:
    """Return `analysis_quick_s`, `analysis_quick_mb`, `analysis_300_s`, `analysis_300_mb` and `analysis_14m_mb`."""
    results: dict[str, float] = {}
    for name, prepare in (("quick", quick_record), ("300", small_runs), ("14m", large_record)):
        with tempfile.TemporaryDirectory() as outputs:
            prepare(Path(outputs))
            told = analyse(Path(outputs))
        print(f"  {name}: {told['seconds']:.1f} s, {told['cpu_s']:.1f} s of CPU, peak {told['peak_mb']:.0f} MB")
        results |= {f"analysis_{name}_s": told["seconds"], f"analysis_{name}_mb": told["peak_mb"]}
    return results
