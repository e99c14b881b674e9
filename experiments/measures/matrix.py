"""Whole attention matrices of chosen heads, full where they are small and block-pooled where they are not.

Shape letters: R queries, N keys, K pooled keys.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from experiments.cache import softmax
from experiments.rows import Rows


def attention_matrix(rows: Rows, largest: int, block: int) -> tuple[Tensor, int, int]:
    """Return the attention matrix of `rows` in float16 and the pool sizes along queries and keys.

    A cell of a pooled matrix is the mean over its queries of the probability summed over its keys, so that every
    pooled row still sums to 1, less the mass of a learned sink. A side of at most `largest` tokens is not pooled.
    Queries are worked off `block` at a time.
    """
    query_pool = -(-len(rows) // largest)
    key_pool = -(-rows.num_keys // largest)
    step = max(1, block // query_pool) * query_pool
    cells = []
    for start in range(0, len(rows), step):
        asked = rows.block(start, min(start + step, len(rows)))
        probability_RN = softmax(asked.logits(), asked.sink_R)
        keys_RK = pad(probability_RN, (0, -rows.num_keys % key_pool)).unflatten(1, (-1, key_pool)).sum(-1)
        cells += [chunk.mean(0) for chunk in keys_RK.split(query_pool)]
    return torch.stack(cells).to(torch.float16).cpu(), query_pool, key_pool
