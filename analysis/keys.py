"""`python -m analysis.keys`: how many keys a model, or one of its heads, needs at a length; see `analysis.k_min`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis import questions
from analysis.statistics import means
from experiments.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the keys needed, a line per context length; returns the exit status, 1 after an error one can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.keys",
        description="Mean number of keys that a row needs, by the law that fits best, with its 95% interval. Many "
        "rows need more: python -m analysis.budget says what 90% of a head's rows need.",
    )
    parser.add_argument("--model", required=True, metavar="NAME", help="a label, or a part that no other label has")
    parser.add_argument("--n", type=float, nargs="+", required=True, metavar="KEYS", help="context lengths")
    parser.add_argument("--layer", type=int, help="of one head, with --head; all heads if not given")
    parser.add_argument("--head", type=int, help="of one head, with --layer")
    parser.add_argument("--eta", type=float, default=0.1, help="dropped mass allowed (default: 0.1)")
    parser.add_argument("--mean", choices=(means.MEAN, means.TYPICAL), default=means.MEAN, help="over all heads")
    parser.add_argument("--law", help="by its name, such as power; by default the one with least AICc")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where runs/ lies")
    asked = parser.parse_args(arguments)
    try:
        keys = questions.k_min(
            asked.model, asked.n, asked.eta, asked.outputs, asked.mean, asked.law, None, asked.layer, asked.head
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    whose = f"layer {asked.layer}, head {asked.head}" if asked.layer is not None else asked.mean
    print(f"{asked.model}, {whose}: mean keys of a row for a dropped mass <= {asked.eta:g}")
    for line in keys.itertuples():
        by = f"by the law {line.law}{', extrapolated' if line.extrapolated else ''}"
        print(f"n = {line.n:,.0f}: {line.k:,.1f} keys [{line.k_low:,.1f}, {line.k_high:,.1f}] {by}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
