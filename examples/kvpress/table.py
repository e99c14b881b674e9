"""`python -m examples.kvpress.table`: the comparisons in measured/ as the table that README and docs quote.

It runs in the project's environment: kvpress is not needed.
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import save
from analysis.publishing import quotes
from analysis.statistics.intervals import with_interval

HERE = Path(__file__).parent
MEASURED = HERE / "measured"
CONFIDENCE = 0.95


def compared(folder: Path) -> pd.DataFrame:
    """Return a line per comparison and factor: what is added to the dense loss, in nats per token.

    `added` is by the ratios of the budget, `one_added` by one ratio of equal mean cost, `difference` is the former
    less the latter, prompt by prompt: means over prompts with Student's intervals. `less` counts the prompts on which
    the budget's ratios lose less.
    """
    lines: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        dense_S = np.array(record["dense"])
        about = {"name": path.stem, "label": record["budget"]["label"], "by": record["budget"]["by"]}
        about |= {name: record[name] for name in ("per", "length", "tokens", "skip")} | {"prompts": len(dense_S)}
        for factor, (own, one) in groupby(record["ways"], lambda way: way["factor"]):
            own_S, one_S = np.array(own["losses"]), np.array(one["losses"])
            line = about | {"factor": factor, "dense": float(dense_S.mean())}
            line |= {name: own[name] for name in ("keys", "fewest", "most")} | {"one_keys": one["keys"]}
            line |= with_interval("added", own_S - dense_S, CONFIDENCE)
            line |= with_interval("one_added", one_S - dense_S, CONFIDENCE)
            line |= with_interval("difference", own_S - one_S, CONFIDENCE)
            lines.append(line | {"less": int((own_S < one_S).sum())})
    return pd.DataFrame(lines)


if __name__ == "__main__":
    save.write_csv(compared(MEASURED), quotes.QUOTES, "kvpress")
