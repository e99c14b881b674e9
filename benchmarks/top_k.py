"""A forward pass in which every layer attends to its oracle top k(n), against the plain one."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.pairs import ratio_of, time_pairs
from experiments.launch import configure
from experiments.machine import Machine
from experiments.measures.compute import Compute
from experiments.models.attend import attend_by
from experiments.models.load import load_model
from experiments.models.probe import forward
from experiments.selectors.oracle import Oracle
from experiments.windows import RowFacts

LENGTH, PAIRS = 4096, 5
EXPONENTS = (0.5, 0.9)  # a narrow and a wide window: the one adds up kept values, the other multiplies densely


def run() -> dict[str, float]:
    """Return `topk_forward_ratio`, the worse of the two windows."""
    job = configure("source=smollm2", f"source.lengths=[{LENGTH}]", "source.samples=1")
    machine = Machine.from_settings("cpu", job.memory_gb, None)
    token_N = job.source.documents(job.seed)[0]
    model = load_model(job.source.located, torch.float32, machine.device)
    timed, compute = [], Compute()
    for exponent in EXPONENTS:

        def keys_kept(rows: RowFacts, *_: object, exponent: float = exponent) -> Tensor:
            return (rows.n_R.double() ** exponent).ceil().long().minimum(rows.n_R)

        def sparse(keys_kept: object = keys_kept) -> None:
            with attend_by(model, Oracle(), keys_kept, compute):  # type: ignore[arg-type]
                forward(model, token_N)

        pairs = time_pairs(sparse, lambda: forward(model, token_N), PAIRS)
        print(f"  SmolLM2, {LENGTH} tokens, k = n^{exponent}, top-k / plain: {pairs.describe()}")
        timed.append(pairs)
    return max(timed, key=ratio_of).results("topk_forward_ratio")
