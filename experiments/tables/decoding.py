"""decoding.parquet: seconds and bytes of decode steps."""

from experiments.tables import Column, Table
from experiments.tables.place import LENGTH, PHASE, SAMPLE, SELECTOR, WINDOW

DECODING = Table(
    name="decoding",
    line="one decode step, all layers' attention; seconds are medians over `repeats`",
    owner="decoding",
    timed=True,
    keys=(SAMPLE, PHASE, LENGTH, SELECTOR, *WINDOW),
    values=(
        Column("repeats", "int64", "timed steps, after one that is not"),
        Column("k", "float64", "keys kept, mean over layers and heads", "keys"),
        Column("bytes_dense", "int64", "keys and values that dense attention reads", "bytes"),
        Column("bytes_selected", "int64", "what finding the keys reads at best", "bytes"),
        Column("bytes_attended", "int64", "keys and values of those kept", "bytes"),
        Column("dense_seconds", "float64", "dense attention", "s"),
        Column("select_seconds", "float64", "finding the keys", "s"),
        Column("attend_seconds", "float64", "attention to the keys that are kept", "s"),
        Column("step_seconds", "float64", "the whole decode step, dense and sparse attention in it", "s"),
        Column(
            "index_seconds",
            "float64",
            "preparing the method for the whole cache, once; with choosing the keys, if it does not look at the query",
            "s",
        ),
    ),
)
