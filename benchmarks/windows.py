"""All windows of a block of rows, against one dense SDPA of the same rows and against one attention per window."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.pairs import ratio_of, time_pairs
from experiments.launch import configure
from experiments.measures.compute import Compute
from experiments.measures.measure import measure_block
from experiments.rows import Rows
from experiments.selectors import Answering
from experiments.selectors.oracle import Oracle
from experiments.windows import Windows

SHAPES = ((512, 8192, 64), (128, 32768, 64))  # rows, keys, head dimension
PAIRS = 15
LOGIT_DEVIATION = 2.0


def rows_of(count: int, keys: int, head_dim: int) -> Rows:
    """Return Gaussian rows with logits of deviation 2."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Rows(
        layer=0,
        head_R=torch.zeros(count, dtype=torch.int64),
        sample=0,
        variant="plain",
        length=keys,
        position_R=torch.full((count,), keys - 1),
        query_RD=normal(count, head_dim),
        key_ND=normal(keys, head_dim),
        value_NV=normal(keys, head_dim),
        scale=LOGIT_DEVIATION * head_dim**-0.5,
    )


def top_k_loop(rows: Rows, ks: list[int]) -> None:
    """Do what a user without this project does: for each window a top-k, a masked softmax and an output error."""
    logits_RN = rows.logits()
    exact_RN = torch.softmax(logits_RN, -1)
    output_RV = exact_RN @ rows.value_NV
    for k in ks:
        kept = logits_RN.topk(k, dim=-1)
        sparse_RN = torch.full_like(logits_RN, -torch.inf).scatter_(1, kept.indices, kept.values)
        sparse_output_RV = torch.softmax(sparse_RN, -1) @ rows.value_NV
        (output_RV - sparse_output_RV).norm(dim=-1)
        exact_RN.gather(1, kept.indices).sum(-1)


def oracle(rows: Rows) -> list[Answering]:
    """Return the oracle, prepared."""
    return [Oracle().prepare(rows.cache())]


def run() -> dict[str, float]:
    """Return `windows_sdpa_ratio`, the worse of the shapes, and `windows_loop_ratio`, the worse likewise."""
    against_dense, against_loops, compute = [], [], Compute()
    for count, keys, head_dim in SHAPES:
        rows = rows_of(count, keys, head_dim)
        windows = configure().windows.at(keys)
        assert len(windows) >= 64

        def ours(rows: Rows = rows, windows: Windows = windows) -> None:
            measure_block(rows, oracle(rows), windows.sizes(rows.n_R, rows.position_R), compute)

        def dense(rows: Rows = rows) -> None:
            query, key, value = (x[None, None] for x in (rows.query_RD, rows.key_ND, rows.value_NV))
            scaled_dot_product_attention(query, key, value, scale=rows.scale)

        against_sdpa = time_pairs(ours, dense, PAIRS)
        print(f"  {count} x {keys} x {head_dim}, {len(windows)} windows, ours / SDPA: {against_sdpa.describe()}")
        against_dense.append(against_sdpa)
        first = windows.sizes(rows.n_R[:1], rows.position_R[:1])
        k_W = measure_block(rows.block(0, 1), oracle(rows), first, compute)[1][0]["k"].flatten()
        ks = sorted({round(float(k)) for k in k_W})
        ks = (ks * -(-64 // len(ks)))[:64]  # as many top-k attentions as a user with 64 windows would run
        against_loop = time_pairs(lambda rows=rows, ks=ks: top_k_loop(rows, ks), ours, 5)  # type: ignore[misc]
        print(f"  {count} x {keys} x {head_dim}, {len(ks)} windows, loop / ours: {against_loop.describe()}")
        against_loops.append(against_loop)
    worst, least = max(against_dense, key=ratio_of), min(against_loops, key=ratio_of)
    return worst.results("windows_sdpa_ratio") | least.results("windows_loop_ratio")
