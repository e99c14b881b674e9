"""What a job does with its source, selector and windows. One file per runner; the class is its own Hydra schema.

A runner has `name: str` and `run(source, selector, windows, machine, seed, record, advance)`: it measures everything
that the source pushes, appends to the record, and calls `advance` after each group of rows.
"""
