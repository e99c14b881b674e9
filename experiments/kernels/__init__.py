"""Compiled paths for float32 on a CPU. Each gives the numbers of plain torch in `experiments.reference`.

`experiments.measures.compute` alone decides which path a tensor takes.
"""

VERSION = 1  # raise it when a kernel gives other numbers: every record is then measured anew
