"""A budget by what heads need: each head's law, so that a share of its rows drop no more than a tolerance.

The laws are fitted to the second half of the text samples, at all lengths but the longest, with a margin for text that
was not seen. The first half, at every length, says whether the promise holds: that a share `coverage` of a head's rows
drops no more than the tolerance.

A budget serves a row: what must be read for one query of one head. A cache holds keys for all query heads that share a
KV head, and one that evicts keys holds them for the rows that follow: `run` fits the laws to the keys that these need
together, of records with source.runs, and gives each head what its KV head needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis import settings
from analysis.budget.laws import Design, fit_laws, fit_typical, line_of, quantile, with_margin
from analysis.budget.model_shape import shape_of
from analysis.budget.needs import needs_of, needs_together, rows_of
from analysis.budget.promise import keys_at, promise, promise_of_prompts
from analysis.records.load import complete_runs, load_rows, load_task
from analysis.statistics.equal_cost import scale_for
from analysis.statistics.growth import alike
from experiments.errors import UserError
from experiments.tables.unions import UNIONS
from experiments.windows.head_laws import FORMAT

NEEDS = "needs"
FURTHEST = 2**30  # keys; the longest context that a law is asked about
FAR = 10  # times the fitted lengths: what the law says there is told in every file, as an extrapolation
HOLDS = 0.8  # share of heads whose measurement at the longest length must lie within its prediction interval


def budget(
    outputs: Path,
    model: str,
    eta: float,
    coverage: float,
    cost: float | None,
    lengths: Sequence[int],
    extrapolate: bool,
    run: int | None = None,
    prompts: float | None = None,
) -> dict[str, Any]:
    """Fit every head's law and return the content of a budget file.

    Parameters
    ----------
    outputs : the directory that holds `runs/`.
    model : the label of a measured model, or a part of one.
    eta : dropped mass allowed; one of those recorded.
    coverage : share of a head's rows that are to stay within it.
    cost : mean number of keys, over heads and contexts of 1 to N keys, that all windows are scaled to; None for none.
    lengths : context lengths to give k for, besides those measured.
    extrapolate : write a budget that holds at all lengths asked for, supported or not.
    run : consecutive rows, of all heads that share a KV head, that the keys are to serve; None for one row of a head.
    prompts : share of new prompts that are to be served, by a factor on all windows; None for no promise.

    Raises
    ------
    UserError : if a number is out of range, the model or tolerance was not measured, there is too little to fit and
        test, or a length asked for is beyond what the held-out length supports.
    """
    if not 0 < coverage < 1:
        raise UserError(f"--coverage {coverage}: give a share between 0 and 1")
    if bad := [length for length in lengths if not 1 <= length <= FURTHEST]:
        raise UserError(f"--lengths {str(bad[0])[:30]}: give numbers of keys from 1 to {FURTHEST:,}")
    how = settings.fits(settings.analysis())
    runs = complete_runs(outputs)
    if run is None:
        rows = rows_of(load_rows(runs), model)
        needs = needs_of(rows, eta)
    else:
        rows = rows_of(load_task(runs, UNIONS.name), model, "source.runs=[...]")
        needs = needs_together(rows, eta, run)
    used = [record for record in runs if record.id in set(rows["run"].astype(str))]
    half = len(needs.samples) // 2
    if half < 2 or len(needs.lengths) < 4:
        raise UserError(
            f"{rows['label'].iloc[0]}: {len(needs.samples)} samples at {len(needs.lengths)} lengths; a budget is "
            "fitted on half of at least 4 samples and tested on the others, at 4 lengths or more: measure more of them"
        )
    test, fit = slice(0, half), slice(half, None)
    design = Design.of(needs, how.min_lengths)
    laws = with_margin(
        fit_laws(needs.k[:, :-1, fit], design, coverage, how.resamples, how.seed),
        needs,
        fit,
        design,
        coverage,
        how.seed,
    )
    typical = alike(needs.seen[:, :-1])
    shared = fit_typical(needs, typical, fit, design, coverage, how.resamples, how.seed)

    longest, fitted = needs.lengths[-1], needs.lengths[-2]
    needed = np.log(quantile(needs.k[:, -1, test], coverage)) + laws.margin
    _, low, high = laws.interval(needs.n[:, -1].mean(-1), how.confidence)
    tested = design.grows & (needs.seen[:, -1] > needs.seen[:, :-1].max(-1))
    right = (needed >= low) & (needed <= high)
    foretold = float(right[tested if tested.any() else slice(None)].mean())
    reach = longest**2 // fitted if foretold >= HOLDS else longest
    beyond = [length for length in lengths if length > reach]
    if beyond and not extrapolate:
        raise UserError(
            f"--lengths {max(beyond)}: the laws fitted up to {fitted} keys were tested at {longest}, where they "
            f"foretold {foretold:.0%} of the heads, which supports up to {reach}; measure longer contexts, or add "
            "--extrapolate"
        )
    factor = 1.0
    if cost is not None:
        n = np.minimum(np.arange(1, longest + 1, dtype=float), needs.sees[:, None])
        shape = np.exp(laws.level[:, None] + laws.slope[:, None] * np.log(n))
        if not 1 < cost < n.mean():
            raise UserError(f"--cost {cost:g}: give a mean number of keys between 1 and {n.mean():.0f}")
        factor = scale_for(shape.ravel(), n.ravel(), np.full(n.size, 1 / n.size), cost)
    of_prompts = None
    if prompts is not None:
        if cost is not None:
            raise UserError("--cost and --prompts both scale the budget: give one")
        of_prompts = promise_of_prompts(needs, test, laws, coverage, prompts)
        factor = of_prompts["factor"]
    keys = keys_at(laws, needs.sees, factor, sorted({*needs.lengths, FAR * fitted, *lengths}), reach, how.confidence)
    heads = [
        {"layer": layer, "head": head, **line_of(laws, h, needs.sees[h], factor, how.confidence), "keys": keys[h]}
        for h, (layer, head) in enumerate(needs.head_keys)
    ]
    return {
        "format": FORMAT,
        "by": NEEDS,
        "label": str(rows["label"].iloc[0]),
        "model": str(rows["model_hash"].iloc[0]),
        "text": str(rows["text_hash"].iloc[0]),
        "runs": {run.id: run.digest for run in used},
        "tolerance": {"dropped_mass": eta, "coverage": coverage},
        "serves": {"rows": run or 1, "heads": "one" if run is None else "all of a KV head"},
        "cost": cost,
        "factor": factor,
        "law": "k = alpha n^C",
        "confidence": how.confidence,
        "fitted": {"samples": needs.samples[fit], "lengths": needs.lengths[:-1]},
        "held_out": {"samples": needs.samples[test], "length": longest, "foretold": foretold},
        "supported_length": max([reach, *lengths]) if extrapolate else reach,
        "extrapolated": bool(beyond),
        "prompts": of_prompts,
        "promise": promise(needs, test, laws, factor, coverage),
        "pooled": line_of(shared, 0, needs.sees[typical].max(), factor, how.confidence),
        "heads": heads,
        **shape_of(used[0]),
    }
