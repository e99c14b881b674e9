"""Rows in blocks, each measured by the quickest path that can."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.measures.exact import COUNT_EPSILONS, K_MIN_ETAS, ExactRows
from experiments.measures.quick import QuickRows
from experiments.measures.scratch import scratch
from experiments.measures.sparse import measure
from experiments.rows import Rows
from experiments.selectors import Ranking, Selector
from experiments.windows import Windows


def measure_block(
    block: Rows, ranking: Ranking | None, windows: Windows
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Measure all windows of a block of rows.

    Parameters
    ----------
    ranking
        The order in which the selector keeps keys; None where it keeps the most probable.

    Returns
    -------
    tuple
        The statistics of the exact rows, each [R], and the measures of the sparse rows, each [R, W] (and `output`
        [R]), with the keys kept as `k`.
    """
    if ranking is None and block.query_RD.device.type == "cpu" and block.query_RD.dtype == torch.float32:
        logits_RN = block.logits(out=scratch("logits", len(block), block.keys))
        etas, epsilons = (*K_MIN_ETAS, *windows.etas), (*COUNT_EPSILONS, *windows.epsilons)
        quick = QuickRows.from_logits(logits_RN, etas, epsilons)
        statistics = quick.statistics()
        k_RW = windows.keys(quick)
        return statistics, quick.measure(block.value_NV, k_RW) | {"k": k_RW}
    exact = ExactRows.from_logits(block.logits())
    k_RW = windows.keys(exact)
    order_RN = exact.order_RN if ranking is None else ranking(block, exact)
    return exact.statistics(), measure(order_RN, exact.probabilities(order_RN), block.value_NV, k_RW) | {"k": k_RW}


def measure_rows(
    rows: Rows, selector: Selector, windows: Windows, block: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Measure all windows of one group of rows, at most `block` rows at a time.

    Returns
    -------
    tuple
        The statistics of the exact rows, each [R], and the measures of the sparse rows, each [R, W] (and `output`
        [R]), with the keys kept as `k`.
    """
    ranking = selector.ranking(rows)
    blocks = [measure_block(rows.block(i, i + block), ranking, windows) for i in range(0, len(rows), block)]
    return _join([statistics for statistics, _ in blocks]), _join([measures for _, measures in blocks])


def _join(blocks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([block[name] for block in blocks]).cpu() for name in blocks[0]}
