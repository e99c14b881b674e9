"""attention.safetensors: whole attention matrices, pooled where they are large."""

from experiments.tables import Column, Table
from experiments.tables.place import HEAD, LAYER, LENGTH, SAMPLE

ATTENTION = Table(
    name="attention",
    line="one matrix [queries, keys] of probabilities, float16; a cell is a mean over queries and a sum over keys",
    owner="approximation",
    keys=(LAYER, HEAD, SAMPLE, LENGTH),
    values=(
        Column("query_pool", "int32", "queries of a cell"),
        Column("key_pool", "int32", "keys of a cell"),
        Column("kind", "str", "`full`, or `pooled` where a cell holds more than one query or key"),
    ),
    suffix="safetensors",
)
