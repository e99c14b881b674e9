"""How many rows fit in memory at once."""

from __future__ import annotations

import math

from experiments.errors import UserError

# Bytes that one key of one row takes at the peak of a pass, estimated: the logits, their order, probabilities and sums
# in float64, and what sort and the segment sums copy.
BYTES_PER_KEY = 120
# Of one window of one row: a float64 output per window three times over, and the measures.
BYTES_PER_OUTPUT = 32


def rows_per_block(rows: int, keys: int, windows: int, head_dim: int, memory_bytes: int, resident_bytes: int) -> int:
    """Return the number of rows to measure at once, at most `rows`.

    Parameters
    ----------
    memory_bytes
        What the job may use in all.
    resident_bytes
        What the source holds all the while.

    Raises
    ------
    UserError
        If not even one row fits; the message has the numbers.
    """
    per_row = keys * BYTES_PER_KEY + windows * (head_dim * BYTES_PER_OUTPUT + 200)
    fitting = (memory_bytes - resident_bytes) // per_row
    if fitting < 1:
        needed = (resident_bytes + per_row) / 1e9
        raise UserError(
            f"memory_gb={memory_bytes / 1e9:g} is too little for a row of {keys} keys: the source holds "
            f"{resident_bytes / 1e9:.2f} GB and one row takes {per_row / 1e9:.3f} GB; "
            f"give memory_gb={(math.floor(10 * needed) + 1) / 10:.1f} or shorter lengths"
        )
    return min(rows, fitting)
