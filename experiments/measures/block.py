"""One block of rows, measured by the quickest path that can."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.measures.exact import COUNT_EPSILONS, K_MIN_ETAS, ExactRows
from experiments.measures.quick import QuickRows
from experiments.measures.sparse import measure
from experiments.rows import Rows
from experiments.selectors import Ranking
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
    logits_RN = block.logits()
    if ranking is None and logits_RN.device.type == "cpu" and logits_RN.dtype == torch.float32:
        quick = QuickRows.from_logits(logits_RN)
        quick.look_up({*K_MIN_ETAS, *windows.etas}, {*COUNT_EPSILONS, *windows.epsilons})
        statistics = quick.statistics()
        k_RW = windows.keys(quick)
        return statistics, quick.measure(block.value_NV, k_RW) | {"k": k_RW}
    exact = ExactRows.from_logits(logits_RN)
    k_RW = windows.keys(exact)
    order_RN = exact.order_RN if ranking is None else ranking(block, exact)
    return exact.statistics(), measure(order_RN, exact.probabilities(order_RN), block.value_NV, k_RW) | {"k": k_RW}
