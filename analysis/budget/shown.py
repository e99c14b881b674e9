"""What a budget says at the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text


def promise_table(content: dict[str, Any]) -> Table:
    """Return what the budget keeps at each length on text that was not used."""
    tolerance, held = content["tolerance"], content["held_out"]
    whose = "a head's rows"
    if content["serves"]["heads"] != "one":
        run = content["serves"]["rows"]
        whose = f"the texts, in {f'{run} rows' if run > 1 else 'a row'} of all heads that share a KV head"
    promised = f"dropped mass <= {tolerance['dropped_mass']:g} for {tolerance['coverage']:.0%} of {whose}"
    if content["cost"] is not None:
        promised = (
            f"{promised}, scaled by {content['factor']:.3g}\nto {content['cost']:g} keys on average over contexts of 1 "
            f"to {held['length']}: no longer a promise; what is left of it"
        )
    if (prompts := content["prompts"]) is not None:
        promised = (
            f"{promised},\nscaled by {prompts['factor']:.3g}: so that {prompts['share']:.0%} of new prompts keep it "
            f"over all heads, by {prompts['samples']} samples"
        )
    title = (
        f"{content['label']}: {promised}\non text that was not used, {len(content['fitted']['samples'])} samples and "
        f"lengths up to {content['fitted']['lengths'][-1]} fitted;\n"
        f"{held['foretold']:.0%} of the heads foretold at {held['length']}; "
        "heads within: those that keep it by themselves"
    )
    if capped := [head["sees"] for head in content["heads"] if "sees" in head]:
        title += f"\n{len(capped)} of {len(content['heads'])} heads see at most {max(capped)} keys at any length"
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for name in ("context", "keys per row", "rows within", "heads within"):
        table.add_column(name, justify="right")
    for line in content["promise"]:
        short = content["cost"] is None and line["rows"] < tolerance["coverage"]
        cells = f"{line['length']}", f"{line['mean_keys']:.0f}", f"{line['rows']:.1%}", f"{line['heads']:.0%}"
        table.add_row(*cells, *["short of the promise"] * short)
    return table


def keys_table(content: dict[str, Any], lengths: Sequence[int]) -> Table:
    """Return the keys of a head at each length that was asked for."""
    title = "keys of a head, with the prediction interval of the median head"
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for name in ("context", "10% of heads", "median", "low", "high", "90%", "mean"):
        table.add_column(name, justify="right")
    for length in lengths:
        points = [point for head in content["heads"] for point in head["keys"] if point["length"] == length]
        k = np.array([[point[name] for name in ("k", "low", "high")] for point in points])
        few, many = np.quantile(k[:, 0], [0.1, 0.9])
        cells = (few, *np.median(k, axis=0), many, k[:, 0].mean())
        far = ["extrapolated"] * points[0]["extrapolation"]
        table.add_row(f"{length}", *(f"{value:.0f}" for value in cells), *far)
    return table


def shared_table(content: dict[str, Any]) -> Table:
    """Return what is foretold of keys that were shared out, beside as many for each head."""
    title = (
        f"{content['label']}, {content['selector']}: {content['cost']:g} keys of a head on average, shared out by "
        f"{content['by']};\nsum of what each layer or KV head loses alone ({content['least']}, nats), each of "
        f"{len(content['fitted']['samples'])} samples judged by the others"
    )
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for name in ("context", "fewest", "most", "lost", "uniform", "difference", "+-"):
        table.add_column(name, justify="right")
    for line in content["promise"]:
        k = [point["k"] for head in content["heads"] for point in head["keys"] if point["length"] == line["length"]]
        lost = (f"{line[name]:.4f}" for name in ("lost", "uniform", "difference", "standard_error"))
        table.add_row(f"{line['length']}", f"{min(k):.0f}", f"{max(k):.0f}", *lost)
    return table


def cache_table(content: dict[str, Any]) -> Table:
    """Return the keys and bytes that the cache holds at each length, over all layers and KV heads."""
    cache = content["cache"]
    title = f"cache of one sequence, {cache['dtype']}, blocks of {cache['block']} keys"
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for name in ("context", "keys of a KV head", "MB", "of all keys"):
        table.add_column(name, justify="right")
    for length in sorted({part["length"] for part in cache["parts"]}):
        parts = [part for part in cache["parts"] if part["length"] == length]
        keys = np.array([part["keys"] for part in parts])
        size = sum(part["bytes"] for part in parts) / 1e6
        table.add_row(f"{length}", f"{keys.mean():.0f}", f"{size:.2f}", f"{keys.mean() / length:.1%}")
    return table
