"""unions.parquet: keys that consecutive rows need together, which a cache must hold."""

from experiments.tables import Column, Table
from experiments.tables.place import LAYER, LENGTH, SAMPLE

EVERY_HEAD = -1  # in the column `head`: all query heads that share the KV head

UNIONS = Table(
    name="unions",
    line="one run of consecutive rows up to the last position of a length, of one query head or of all that share a KV "
    "head, and one tolerance",
    owner="approximation",
    keys=(
        LAYER,
        Column("kv_head", "int32", "index of the KV head"),
        Column("head", "int32", f"index of the query head; {EVERY_HEAD}: all that share the KV head"),
        SAMPLE,
        LENGTH,
        Column("rows", "int32", "consecutive rows of each query head: the run"),
        Column("eta", "float64", "dropped mass that each row may have"),
    ),
    values=(
        Column("n", "int32", "keys that the last row sees", "keys"),
        Column("k", "float64", "mean over the rows of the smallest k with dropped mass <= eta", "keys"),
        Column("union", "int32", "keys that are among these k of at least one row: enough for all rows", "keys"),
        Column(
            "fixed",
            "int32",
            "size of one set of keys, chosen greedily, within which every row drops at most eta: an upper bound on the "
            "least such set",
            "keys",
        ),
    ),
)
