"""What a cache holds within a budget: keys and bytes of each layer, KV head and length, in whole blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import save
from experiments.windows.head_laws import keys_at

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1}


def cache_lines(content: Mapping[str, Any], block: int, dtype: str) -> list[dict[str, int]]:
    """Return layer, KV head, length, keys and bytes of each part of the cache at each length of the file.

    A KV head holds what the most demanding of its query heads is given, rounded up to blocks of `block` keys. A key
    takes 2 x head_dim x bytes of the dtype, with its value.
    """
    grouping = content["heads_per_kv_head"]
    lengths = [point["length"] for point in content["heads"][0]["keys"] if not point["extrapolation"]]
    most: dict[tuple[int, int, int], int] = {}
    for line in content["heads"]:
        kv_head = line["head"] // grouping[line["layer"]]
        for length, k in zip(lengths, keys_at(line, np.array(lengths, float)).tolist(), strict=True):
            place = (line["layer"], kv_head, length)
            most[place] = max(most.get(place, 0), math.ceil(max(k, 1) * (1 - 1e-9) / block) * block)
    per_key = 2 * content["head_dim"] * BYTES[dtype]
    return [
        {"layer": layer, "kv_head": kv_head, "length": length, "keys": keys, "bytes": keys * per_key}
        for (layer, kv_head, length), keys in sorted(most.items())
    ]


def write_csv(lines: list[dict[str, int]], path: Path) -> None:
    """Write the parts of a cache as a table, a line each."""
    save.write_text(path, pd.DataFrame(lines).to_csv(index=False, lineterminator="\n"))
