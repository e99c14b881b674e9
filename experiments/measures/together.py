"""All heads of a layer measured at once: what a GPU takes, and what is read of it is read once a layer.

Two copies come home: where the rows are, which sizes their windows, and then all that was measured.

Shape letters: G groups (KV heads), R rows of each, M = G R of them side by side, W windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from experiments.batched.heads import alike, logits_of, sinks_of, whole
from experiments.batched.ranked import ranked
from experiments.batched.top_k import measure_top_k
from experiments.measures.memory import BYTES_PER_KEY
from experiments.reference.subset import of_subset
from experiments.rows import Rows, check_rows
from experiments.selectors import Selector
from experiments.selectors.oracle import Oracle
from experiments.windows import PerLayer, Sizes, Windows

FINITE = "finite"  # 1 where a row has a softmax
Table = dict[str, Tensor]


@dataclass(frozen=True)
class Measured:
    """A group of rows that is measured.

    Attributes
    ----------
    rows
        With head and position of each row on the CPU.
    statistics, measures
        As `experiments.measures.measure.measure_rows` returns them, of the most probable keys.
    """

    rows: Rows
    statistics: Table
    measures: Table


def serves(methods: Sequence[Selector], windows: Windows) -> bool:
    """Say whether all heads can be measured at once: by the most probable keys, in windows of a row's own."""
    return all(isinstance(method, Oracle) for method in methods) and not windows.of_kind(PerLayer)


def measure_together(
    groups: Sequence[Rows],
    windows_of: Callable[[Rows], Windows],
    fitting: Callable[[int, int, int, int], int],
    *,
    triton: bool = False,
) -> list[Measured]:
    """Measure the rows of a layer, of any lengths and variants, that keep their most probable keys.

    Parameters
    ----------
    groups
        What a source pushes at once.
    windows_of
        Returns the windows of a group.
    fitting
        Maps rows, keys, windows and value dimension to the number of rows that memory holds.
    triton
        Sum over windows by a Triton kernel instead of plain torch.

    Raises
    ------
    UserError
        As the rows one by one would, if a logit is not finite or a row sees no key, before anything is returned.
    """
    places = alike(groups)
    at_home, seen = _at_home(groups)
    queued = []
    for stack in places:
        windows = windows_of(groups[stack[0]])
        homes = [(at_home[i], seen[i]) for i in stack]
        sizes = [windows.of_heads(rows.layer, rows.heads, n_R, rows.position_R) for rows, n_R in homes]
        queued.append(_measure([groups[i] for i in stack], sizes, fitting, triton))
    tables = _copied([table for pair in queued for table in pair])
    if not all([bool(statistics.pop(FINITE).all()) for statistics in tables[::2]]):
        for rows in groups:
            _refuse(rows, fitting(len(rows), rows.num_keys, len(windows_of(rows)), rows.value_NV.shape[1]))
    measured: dict[int, Measured] = {}
    for stack, statistics, measures in zip(places, tables[::2], tables[1::2], strict=True):
        output_GR = statistics.pop("output")
        for g, place in enumerate(stack):
            own = {name: values_GRW[g] for name, values_GRW in measures.items()}
            own = of_subset(own | {"tv": own["dropped_mass"]}) | {"output": output_GR[g]}
            measured[place] = Measured(at_home[place], {name: of_G[g] for name, of_G in statistics.items()}, own)
    return [measured[place] for place in range(len(groups))]


def _at_home(groups: Sequence[Rows]) -> tuple[list[Rows], list[Tensor]]:
    """Return the groups with head and position of each row on the CPU, and how many keys each row sees."""
    lengths = [len(rows) for rows in groups]
    each = ((rows.head_R, rows.position_R, rows.n_R) for rows in groups)
    facts = [torch.cat(parts) for parts in zip(*each, strict=True)]
    head, position, seen = (fact.split(lengths) for fact in torch.stack(facts).cpu())
    at_home = [replace(rows, head_R=h, position_R=p) for rows, h, p in zip(groups, head, position, strict=True)]
    return at_home, list(seen)


def _measure(
    groups: Sequence[Rows], sizes: Sequence[Sizes], fitting: Callable[[int, int, int, int], int], triton: bool
) -> tuple[Table, Table]:
    """Measure groups that are alike, as many heads and rows at once as memory holds.

    Returns
    -------
    tuple
        What is known of each row [G, R], and of each of its windows [G, R, W].
    """
    one, rows = groups[0], len(groups[0])
    given_GRW = torch.stack([of.given_RW for of in sizes])
    width = one.value_NV.shape[1]
    fit = fitting(len(groups) * rows, one.num_keys, given_GRW.shape[2], width)
    copies = math.ceil(4 * (one.key_ND.shape[1] + width) / BYTES_PER_KEY)  # a head's float32 keys and values, in rows
    heads, block = max(1, fit // (rows + copies)), min(rows, fit)
    given_GRW = given_GRW.to(one.key_ND.device, non_blocking=True)
    of_heads = []
    for first in range(0, len(groups), heads):
        part, parts = groups[first : first + heads], []
        for start in range(0, rows, block):
            given_MW = given_GRW[first : first + heads, start : start + block].flatten(0, 1)
            of_rows = [of.block(start, start + block) for of in part]
            of_block = _measure_block(of_rows, replace(sizes[0], given_RW=given_MW), triton)
            parts.append([_unflattened(table, len(part)) for table in of_block])
        of_heads.append([_joined(tables, 1) for tables in zip(*parts, strict=True)])
    statistics, measures = (_joined(tables, 0) for tables in zip(*of_heads, strict=True))
    return statistics, measures


def _measure_block(groups: Sequence[Rows], sizes: Sizes, triton: bool) -> tuple[Table, Table]:
    """Measure a block of rows [M] of groups that are alike."""
    logits_MN, bounded_M = logits_of(groups)
    exact, finite_M = ranked(logits_MN, sinks_of(groups))
    k_MW = sizes.of_method(sizes.of(exact), 0, lambda: exact)
    measures, output_M = measure_top_k(exact, whole([rows.value_NV for rows in groups]), k_MW, triton=triton)
    return exact.statistics() | {"output": output_M, FINITE: bounded_M & finite_M}, measures | {"k": k_MW}


def _unflattened(table: Table, groups: int) -> Table:
    return {name: values_MX.unflatten(0, (groups, -1)) for name, values_MX in table.items()}


def _joined(tables: Iterable[Table], dim: int) -> Table:
    of_all = list(tables)
    return {name: torch.cat([table[name] for table in of_all], dim=dim) for name in of_all[0]}


def _copied(tables: Sequence[Table]) -> list[Table]:
    """Return tables on the CPU, in one copy of float64, which holds counts exactly."""
    columns = [values for table in tables for values in table.values()]
    copies = torch.cat([values.flatten().double() for values in columns]).cpu().split([c.numel() for c in columns])
    of_all = (copy.view(like.shape).to(like.dtype) for copy, like in zip(copies, columns, strict=True))
    return [{name: next(of_all) for name in table} for table in tables]


def _refuse(rows: Rows, block: int) -> None:
    """Raise what rows that have no softmax raise one block after the other."""
    for start in range(0, len(rows), block):
        check_rows(rows.block(start, start + block).logits().amax(-1))
