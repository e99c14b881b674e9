"""Everything that is measured about a row, for all windows at once: pure functions of the exact row and the answer.

`measure.py` measures what methods answer, and `output.py` is what they put out in a model. `compute.py` chooses between
`experiments.reference` and `experiments.kernels`, which give the same numbers. Off the CPU `together.py` measures all
heads of a layer at once, by `experiments.batched`.
"""

VERSION = 1  # raise it when a measure gives other numbers: every record is then measured anew
