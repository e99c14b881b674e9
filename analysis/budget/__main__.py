"""`python -m analysis.budget`: how many keys each head of a model is to be given, as a file."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis import save
from analysis.budget import budget
from analysis.budget.next_command import next_command
from analysis.budget.place import place_of
from analysis.budget.shown import keys_table, promise_table
from experiments.errors import UserError
from experiments.terminal import terminal

ROW, KV_HEAD = "row", "kv_head"  # what a budget serves, besides a number of rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a budget file; returns the exit status, 1 after an error that the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m analysis.budget", description=__doc__)
    parser.add_argument("--model", required=True, metavar="NAME", help="a model measured before, or part of its name")
    parser.add_argument(
        "--tolerance", default="dropped_mass=0.05", help="one of the recorded tolerances, as NAME=VALUE"
    )
    parser.add_argument(
        "--serves",
        default=ROW,
        metavar="WHAT",
        help=f"{ROW}: one row of one head; {KV_HEAD}: one row of all heads that share a KV head; a number: so many "
        "consecutive rows of these",
    )
    parser.add_argument("--coverage", type=float, default=0.9, help="share of a head's rows that are to stay within it")
    parser.add_argument("--cost", type=float, metavar="KEYS", help="scale all windows to this mean over 1..N keys")
    parser.add_argument("--lengths", type=int, nargs="+", default=[], help="context lengths to say k for")
    parser.add_argument("--extrapolate", action="store_true", help="hold beyond what the held-out length supports")
    parser.add_argument("--name", help="of the file, by default the model's")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where runs/ lies")
    requested = parser.parse_args(arguments)
    try:
        content = budget(
            requested.outputs,
            requested.model,
            _tolerance(requested.tolerance),
            requested.coverage,
            requested.cost,
            requested.lengths,
            requested.extrapolate,
            _run(requested.serves),
        )
        path = place_of(requested.outputs / "budgets", requested.name, content)
        save.write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; choose another --outputs or --name", file=sys.stderr)
        return 1
    console = terminal()
    console.print(promise_table(content))
    if requested.lengths:
        console.print(keys_table(content, sorted(set(requested.lengths))))
    console.print(f"wrote {path}; the model within it:")
    console.print(next_command(requested.outputs, content, path))
    return 0


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
