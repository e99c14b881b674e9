"""Speed and memory as ratios, measured side by side in one run: `make bench`, or `python -m benchmarks NAME ...`.

Every benchmark is a module with `run() -> dict[str, float]`; names ending in `_ratio` are medians over interleaved
pairs, so that a machine that slows down slows both sides. docs/performance.md explains what the numbers mean.
"""

import os

import experiments  # noqa: F401  before torch: its threads sleep while they wait

os.environ.setdefault("HF_HUB_OFFLINE", "1")
