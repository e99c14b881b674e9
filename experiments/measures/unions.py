"""How many keys consecutive rows need together: a row is read once, but a cache holds keys for all rows that follow.

Shape letters: R rows, N keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from experiments.kernels.fixed_set import fixed_set_size
from experiments.measures.compute import Compute
from experiments.reference.exact import ETA_SLACK, sink_weights
from experiments.rows import Rows
from experiments.tables.rows import ETAS
from experiments.tables.unions import EVERY_HEAD

Line = dict[str, float | int]


def measure_unions(rows: Rows, runs: Sequence[int], compute: Compute) -> list[Line]:
    """Return a line of unions.parquet, less its place, for each head and for all together, run and tolerance.

    Parameters
    ----------
    rows
        As many consecutive rows of each head as the longest run has; the last ones serve the shorter runs.
    runs
        Lengths of the runs besides 1.

    Raises
    ------
    UserError
        If a logit is NaN or infinite, or a row sees no key.
    """
    logits_RN = compute.logits(rows)
    facts = compute.facts(logits_RN, ETAS, sink_R=rows.sink_R)
    k_of = {eta: facts.k_min(eta) for eta in ETAS}
    needed_of = {eta: compute.top_k_mask(logits_RN, k_R) for eta, k_R in k_of.items()}
    highest_R1 = logits_RN.amax(-1, keepdim=True)
    weight_RN = (logits_RN - highest_R1).exp_().double()  # as k_min is decided: in float32
    total_R1 = weight_RN.sum(-1, keepdim=True)
    sink_R = np.zeros(len(rows))  # what a learned sink holds, which costs no key
    if rows.sink_R is not None:
        sink_R1 = sink_weights(rows.sink_R, highest_R1.squeeze(-1))[:, None]
        total_R1 = total_R1 + sink_R1
        sink_R = (sink_R1 / total_R1).squeeze(-1).cpu().numpy()
    p_NR = (weight_RN / total_R1).T.cpu().contiguous().numpy()
    n, longest, lines = int(facts.n_R.max()), len(rows) // len(rows.heads), []
    for head in (*rows.heads, EVERY_HEAD):
        for run in sorted({1, *runs}):
            last_R = torch.arange(len(rows), device=rows.head_R.device) % longest >= longest - run
            asked_R = last_R if head == EVERY_HEAD else last_R & (rows.head_R == head)
            asked = asked_R.cpu().numpy()
            of_rows_NR, held_R = p_NR[:, asked], sink_R[asked]
            for eta in ETAS:
                union = int(needed_of[eta][asked_R].any(0).sum())
                lacking_R = 1 - eta * (1 + ETA_SLACK) - held_R
                fixed = min(max(fixed_set_size(of_rows_NR, lacking_R), 1), union)  # a row keeps a key at least
                k = float(k_of[eta][asked_R].double().mean())
                lines.append({"head": head, "rows": run, "eta": eta, "n": n, "k": k, "union": union, "fixed": fixed})
    return lines
