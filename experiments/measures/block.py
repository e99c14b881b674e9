"""Rows in blocks, each measured by the quickest path that can."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from experiments.measures.exact import COUNT_EPSILONS, K_MIN_ETAS, ExactRows
from experiments.measures.quick import QuickRows
from experiments.measures.scratch import scratch
from experiments.measures.sparse import measure
from experiments.measures.weighted import measure_weighted
from experiments.rows import Rows
from experiments.selectors import Ranking, Sampled, Selector
from experiments.windows import Windows


def measure_block(
    block: Rows, rankings: Sequence[Ranking | None], windows: Windows
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Measure all windows of a block of rows.

    Parameters
    ----------
    rankings
        The order in which each selector keeps keys; None for one that keeps the most probable.

    Returns
    -------
    tuple
        The statistics of the exact rows, each [R], and per selector the measures of the sparse rows, each [R, W] (and
        `output` [R]), with the keys kept as `k`.
    """
    exact: ExactRows | None = None
    quick: QuickRows | None = None
    logits_dtype = torch.promote_types(block.query_RD.dtype, torch.float32)
    if None in rankings and block.query_RD.device.type == "cpu" and logits_dtype == torch.float32:
        logits_RN = block.logits(out=scratch("logits", len(block), block.keys))
        etas, epsilons = (*K_MIN_ETAS, *windows.etas), (*COUNT_EPSILONS, *windows.epsilons)
        quick = QuickRows.from_logits(logits_RN, etas, epsilons)
        statistics, k_RW = quick.statistics(), windows.keys(quick)
        of_oracle = quick.measure(block.value_NV, k_RW)
    if quick is None or any(rankings):
        exact = ExactRows.from_logits(block.logits())
        statistics, k_RW = exact.statistics(), windows.keys(exact)
    found = []
    for ranking in rankings:
        if ranking is None and quick is not None:
            measures = of_oracle
        else:
            assert exact is not None
            measures = _measure_order(block, exact, exact.order_RN if ranking is None else ranking(block, exact), k_RW)
        found.append(measures | {"k": k_RW})
    return statistics, found


def _measure_order(block: Rows, exact: ExactRows, chosen: Tensor | Sampled, k_RW: Tensor) -> dict[str, Tensor]:
    if isinstance(chosen, Tensor):
        return measure(chosen, exact.probabilities(chosen), block.value_NV, k_RW)
    key_RN = torch.arange(block.keys, device=k_RW.device).expand(len(block), -1)
    probability_RN = exact.probabilities(key_RN)
    return measure_weighted(chosen.order_RN, probability_RN, block.value_NV, k_RW, chosen.weight)


def measure_rows(
    rows: Rows, selectors: Sequence[Selector], windows: Windows, block: int
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Measure all windows of one group of rows, at most `block` rows at a time.

    Returns
    -------
    tuple
        The statistics of the exact rows, each [R], and per selector the measures of the sparse rows, each [R, W] (and
        `output` [R]), with the keys kept as `k`.
    """
    rankings = [selector.ranking(rows) for selector in selectors]
    blocks = [measure_block(rows.block(i, i + block), rankings, windows) for i in range(0, len(rows), block)]
    of_selectors = zip(*(found for _, found in blocks), strict=True)
    return _join([statistics for statistics, _ in blocks]), [_join(list(parts)) for parts in of_selectors]


def _join(blocks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([block[name] for block in blocks]).cpu() for name in blocks[0]}
