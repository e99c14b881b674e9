"""Rows in blocks: what each method answers, measured within all windows.

Shape letters: R rows, N keys, W windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from experiments.answers import Answer, Estimate, Subset, TopK
from experiments.measures.compute import Compute
from experiments.measures.estimate import measure_estimate, measure_weighted
from experiments.measures.own import own_needs
from experiments.reference.exact import ExactRows
from experiments.reference.subset import measure_subset
from experiments.rows import Rows
from experiments.selectors import Answering
from experiments.windows import Sizes


def measure_rows(
    rows: Rows, methods: Sequence[Answering], sizes: Sizes, block: int, compute: Compute
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Measure all windows of one group of rows, at most `block` rows at a time.

    Parameters
    ----------
    methods
        What answers for each method, prepared from the rows' cache.
    sizes
        What the windows keep, as far as it is known before the rows are.

    Returns
    -------
    tuple
        The statistics of the exact rows, each [R], and per method the measures of its rows, each [R, W] (and `output`
        [R]), with the keys kept as `k`.
    """
    blocks = [
        measure_block(rows.block(i, i + block), methods, sizes.rows(i, i + block), compute)
        for i in range(0, len(rows), block)
    ]
    of_methods = zip(*(measured for _, measured in blocks), strict=True)
    return _join([statistics for statistics, _ in blocks]), [_join(list(parts)) for parts in of_methods]


def measure_block(
    rows: Rows, methods: Sequence[Answering], sizes: Sizes, compute: Compute
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Measure all windows of a block of rows; see `measure_rows`."""
    questions = rows.questions()
    answers = [method(questions) for method in methods]
    if sizes.alike and all(isinstance(answer, TopK) for answer in answers):
        statistics, k_RW, measures = compute.measure_top_k(compute.logits(rows), rows.value_NV, sizes, rows.sink_R)
        return statistics, [measures | {"k": k_RW} for _ in answers]
    exact = ExactRows.from_logits(rows.logits(), rows.sink_R)
    k_RW = sizes.of(exact)
    measured = []
    for number, answer in enumerate(answers):
        kept_RW = sizes.of_method(k_RW, number, partial(own_needs, answer, exact, rows.sink_R, compute))
        measured.append(_measure(answer, exact, rows.value_NV, kept_RW) | {"k": kept_RW})
    return exact.statistics(), measured


def _measure(answer: Answer, exact: ExactRows, value_NV: Tensor, k_RW: Tensor) -> dict[str, Tensor]:
    if isinstance(answer, TopK):
        return exact.measure_top_k(value_NV, k_RW)
    if isinstance(answer, Estimate):
        return measure_estimate(lambda k_R: answer.row(k_R, exact.logsumexp_R), exact.in_key_order(), value_NV, k_RW)
    assert isinstance(answer, Subset)
    order_RN = answer.order()
    if answer.weight is None:
        return measure_subset(order_RN, exact.probabilities(order_RN), value_NV, k_RW, exact.learned_sink_R)
    probability_RN = exact.in_key_order()
    return measure_weighted(order_RN, answer.weight, probability_RN, value_NV, k_RW, exact.learned_sink_R)


def _join(blocks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([block[name] for block in blocks]).cpu() for name in blocks[0]}
