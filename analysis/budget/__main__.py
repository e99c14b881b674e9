"""`python -m analysis.budget`: how many keys each head of a model is to be given, as a file."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis import save
from analysis.budget import budget
from analysis.budget.by_gains import shared_budget
from analysis.budget.by_needs import NEEDS
from analysis.budget.cache import BYTES, cache_lines, write_csv
from analysis.budget.next_command import next_command
from analysis.budget.place import place_of
from analysis.budget.shown import cache_table, keys_table, promise_table, shared_table
from analysis.statistics.gains import OBJECTIVES, SHARED, UNITS
from experiments.command.terminal import terminal
from experiments.errors import UserError

MOST_BLOCK = 65_536  # keys
ROW, KV_HEAD = "row", "kv_head"  # what a budget serves, besides a number of rows
TOLERANCE, COVERAGE, SELECTOR = "dropped_mass=0.05", 0.9, "snap_kv_prompt"  # where none is given
OF_NEEDS = ("tolerance", "serves", "coverage", "prompts", "lengths", "extrapolate")  # options of one way alone
OF_SHARED = ("selector", "per", "least")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a budget file; returns the exit status, 1 after an error that the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m analysis.budget", description=__doc__)
    parser.add_argument("--model", required=True, metavar="NAME", help="a model measured before, or part of its name")
    parser.add_argument("--tolerance", help=f"one of the recorded tolerances, as NAME=VALUE ({TOLERANCE})")
    parser.add_argument(
        "--serves",
        metavar="WHAT",
        help=f"{ROW}: one row of one head; {KV_HEAD}: one row of all heads that share a KV head; a number: so many "
        f"consecutive rows of these ({ROW})",
    )
    parser.add_argument(
        "--coverage", type=float, help=f"share of a head's rows that are to stay within it ({COVERAGE})"
    )
    parser.add_argument("--cost", type=float, metavar="KEYS", help="scale all windows to this mean over 1..N keys")
    parser.add_argument(
        "--by",
        choices=(NEEDS, *SHARED),
        default=NEEDS,
        help=f"{NEEDS}: what each head needs at the tolerance; the others share out --cost keys at each length that "
        "runner=gains measured: where they gain most, alike, falling with depth, or as 90%% of the mass asks",
    )
    parser.add_argument("--selector", metavar="NAME", help=f"method whose gains count ({SELECTOR})")
    parser.add_argument("--per", choices=UNITS, help="whose gains count, where both were measured")
    parser.add_argument("--least", choices=OBJECTIVES, help=f"what gains are of ({OBJECTIVES[0]})")
    parser.add_argument(
        "--prompts", type=float, metavar="SHARE", help="scale all windows until they serve this share of new prompts"
    )
    parser.add_argument(
        "--block", type=int, default=16, metavar="KEYS", help="of the cache, to which keys are rounded up"
    )
    parser.add_argument("--dtype", choices=tuple(BYTES), default="bfloat16", help="of the cache")
    parser.add_argument("--csv", action="store_true", help="also write keys and bytes of each KV head as a table")
    parser.add_argument("--lengths", type=int, nargs="+", default=[], help="context lengths to say k for")
    parser.add_argument("--extrapolate", action="store_true", help="hold beyond what the held-out length supports")
    parser.add_argument("--name", help="of the file, by default the model's, and --by where keys are shared out")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where runs/ lies")
    requested = parser.parse_args(arguments)
    try:
        content = _content(requested)
        path = place_of(requested.outputs / "budgets", requested.name, content)
        if "head_dim" in content:
            lines = cache_lines(content, requested.block, requested.dtype)
            content |= {"cache": {"block": requested.block, "dtype": requested.dtype, "parts": lines}}
            if requested.csv:
                write_csv(lines, path.with_suffix(".csv"))
        elif requested.csv:
            raise UserError(
                f"--csv: what a cache of {content['label']} holds is not known: its model is not here, or its layers "
                "or its keys and values differ in width"
            )
        save.write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; choose another --outputs or --name", file=sys.stderr)
        return 1
    console = terminal()
    console.print(promise_table(content) if requested.by == NEEDS else shared_table(content))
    if "cache" in content:
        console.print(cache_table(content))
    if requested.lengths:
        console.print(keys_table(content, sorted(set(requested.lengths))))
    console.print(f"wrote {path}; the model within it:")
    console.print(next_command(requested.outputs, content, path))
    return 0


def _content(requested: argparse.Namespace) -> dict[str, Any]:
    if not 1 <= requested.block <= MOST_BLOCK:
        raise UserError(f"--block {str(requested.block)[:30]}: give a number of keys from 1 to {MOST_BLOCK}")
    _check_read(requested)
    if requested.by == NEEDS:
        return budget(
            requested.outputs,
            requested.model,
            _tolerance(TOLERANCE if requested.tolerance is None else requested.tolerance),
            COVERAGE if requested.coverage is None else requested.coverage,
            requested.cost,
            requested.lengths,
            requested.extrapolate,
            _run(ROW if requested.serves is None else requested.serves),
            requested.prompts,
        )
    return shared_budget(
        requested.outputs,
        requested.model,
        requested.cost,
        requested.by,
        requested.selector or SELECTOR,
        requested.least or OBJECTIVES[0],
        requested.per,
    )


def _check_read(requested: argparse.Namespace) -> None:
    """Raise UserError if an option was given that the chosen way does not read."""
    needs = requested.by == NEEDS
    unread = [name for name in (OF_SHARED if needs else OF_NEEDS) if getattr(requested, name) not in (None, [], False)]
    if not unread:
        return
    others = f"--by {', '.join(SHARED)}: a budget by needs is of the oracle's keys"
    ways = others if needs else f"--by {NEEDS}: gains hold where they were measured, of the method that they are of"
    raise UserError(f"{' and '.join(f'--{name}' for name in unread)} go with {ways}")


def _tolerance(text: str) -> float:
    name, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if name != "dropped_mass" or not 0 < value < 1:
        raise UserError(f"--tolerance {text}: give dropped_mass=VALUE, such as dropped_mass=0.05")
    return value


def _run(serves: str) -> int | None:
    """Return how many consecutive rows, of all heads that share a KV head, a budget is to serve; None for one row."""
    if serves == ROW:
        return None
    if serves == KV_HEAD:
        return 1
    if not serves.isascii() or not serves.isdigit() or not 0 < int(serves[:9]) < 10**8:
        raise UserError(f"--serves {serves[:30]}: give {ROW}, {KV_HEAD} or a number of consecutive rows")
    return int(serves)


if __name__ == "__main__":
    sys.exit(main())
