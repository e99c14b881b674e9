"""The oracle's top k keys by sparse-attention-hub (xAlg-ai), window by window, beside our measures of the same rows.

It is not on the package index: `git clone` it and `pip install` it where it is to be compared, else it is skipped.
Seconds and peak memory are of a process each. Its errors are taken of its outputs in float64; the float32 norm that it
logs itself is off by 5e-5.

Shape letters: H query heads, G KV heads, R rows, N keys, D head dimension.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from experiments.launch import configure
from experiments.measures.compute import Compute
from experiments.measures.measure import measure_rows
from experiments.records.provenance import peak_rss_mb
from experiments.rows import Rows
from experiments.selectors.oracle import Oracle
from experiments.windows import Windows
from experiments.windows.rules.fixed import Fixed

PACKAGE = "sparse_attention_hub"
KEYS, ROWS, HEADS, KV_HEADS, HEAD_DIM = 4096, 512, 8, 2, 64
K = 256  # the window whose errors are compared
FOUR = (64, 128, K, 512)
LOGIT_DEVIATION = 2.0
REPEATS = 3
SCALE = LOGIT_DEVIATION * HEAD_DIM**-0.5


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Return Gaussian queries [H, R, D], keys [G, N, D] and values [G, N, D], the same in every process."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((HEADS, ROWS, HEAD_DIM), (KV_HEADS, KEYS, HEAD_DIM), (KV_HEADS, KEYS, HEAD_DIM))
    query_HRD, key_GND, value_GND = (torch.randn(shape, generator=generator) for shape in shapes)
    return query_HRD, key_GND, value_GND


def theirs(ks: tuple[int, ...]) -> dict[str, float]:
    """Attend to the top k keys of every row, one window after the other, and return the error of k = K."""
    from sparse_attention_hub.sparse_attention.research_attention import ResearchAttention, ResearchAttentionConfig
    from sparse_attention_hub.sparse_attention.research_attention.maskers.fixed import OracleTopKConfig

    query_HRD, key_GND, value_GND = inputs()
    module = torch.nn.Module().eval()

    def attend(k: int) -> Tensor:
        config = ResearchAttentionConfig(masker_configs=[OracleTopKConfig(heavy_size=k)])
        output_1RHD, _ = ResearchAttention.create_from_config(config).custom_attention(
            module=module,
            queries=query_HRD[None],
            keys=key_GND[None],
            values=value_GND[None],
            attention_mask=None,
            scaling=SCALE,
            dropout=0.0,
            sparse_meta_data={},
            layer_idx=0,
        )
        return output_1RHD[0].transpose(0, 1)

    seconds = timed(lambda: [attend(k) for k in ks])
    peak_mb = peak_rss_mb()  # before the exact outputs are made
    return {"seconds": seconds, "peak_mb": peak_mb, "error": error_of(attend(K))}


def error_of(output_HRD: Tensor) -> float:
    """Return the root mean square of the error over that of the exact output, in float64."""
    query_HRD, key_GND, value_GND = (x.double() for x in inputs())
    shared = HEADS // KV_HEADS
    key_HND, value_HND = (x.repeat_interleave(shared, dim=0) for x in (key_GND, value_GND))
    exact_HRD = torch.softmax(query_HRD @ key_HND.mT * SCALE, -1) @ value_HND
    return float((output_HRD.double() - exact_HRD).norm() / exact_HRD.norm())


def ours(windows: Windows) -> dict[str, float]:
    """Measure all windows of the same rows, and return the error of k = K if it is alone."""
    query_HRD, key_GND, value_GND = inputs()
    compute = Compute()

    def rows(kv_head: int) -> Rows:
        heads = torch.arange(HEADS).view(KV_HEADS, -1)[kv_head]
        return Rows(
            layer=0,
            head_R=heads.repeat_interleave(ROWS),
            sample=0,
            variant="plain",
            length=KEYS,
            position_R=torch.full((len(heads) * ROWS,), KEYS - 1),
            query_RD=query_HRD[heads].flatten(0, 1),
            key_ND=key_GND[kv_head],
            value_NV=value_GND[kv_head],
            scale=SCALE,
        )

    def measure() -> list[dict[str, Tensor]]:
        groups = map(rows, range(KV_HEADS))
        sized = ((group, windows.sizes(group.n_R, group.position_R)) for group in groups)
        return [
            measure_rows(group, [Oracle().prepare(group.cache())], sizes, len(group), compute)[1][0]
            for group, sizes in sized
        ]

    seconds = timed(measure)
    result = {"seconds": seconds, "peak_mb": peak_rss_mb(), "windows": float(len(windows))}
    if len(windows) == 1:
        measured = measure()
        squares = sum(float(group["output_renormalised"].double().sum()) for group in measured)
        norms = sum(float(group["output"].double().sum()) for group in measured)
        result["error"] = (squares / norms) ** 0.5
    return result


def timed(attend: Callable[[], object]) -> float:
    """Return the median seconds after one warm-up."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        attend()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


SIDES: dict[str, Callable[[], dict[str, float]]] = {
    "theirs_one": lambda: theirs((K,)),
    "theirs_four": lambda: theirs(FOUR),
    "ours_one": lambda: ours(Windows([Fixed([K])], [Fixed([K]).coordinates(KEYS)])),
    "ours_all": lambda: ours(configure().windows.at(KEYS)),
}


def run() -> dict[str, float]:
    """Return seconds, peak memory and errors of both; nothing where the package cannot be had."""
    if find_spec(PACKAGE) is None:
        print(f"  {PACKAGE}: not installed, skipped")
        return {}
    result: dict[str, float] = {}
    for side in SIDES:
        done = subprocess.run([sys.executable, "-m", "benchmarks.hub", side], capture_output=True, text=True)
        if done.returncode:
            print(f"  {PACKAGE}: {side} failed, skipped: {done.stderr.strip().splitlines()[-1:]}")
            return {}
        facts = json.loads(done.stdout.splitlines()[-1])
        print(f"  {PACKAGE}, {side}: {facts['seconds']:.2f} s, peak {facts['peak_mb']:.0f} MB")
        result |= {f"hub_{side}_{name}": value for name, value in facts.items()}
    result["hub_error_difference"] = abs(result["hub_theirs_one_error"] / result["hub_ours_one_error"] - 1)
    print(f"  {PACKAGE}: output errors differ by {result['hub_error_difference']:.1e} of themselves")
    return result


if __name__ == "__main__":
    print(json.dumps(SIDES[sys.argv[1]]()))
