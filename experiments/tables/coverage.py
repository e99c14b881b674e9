"""coverage.parquet: how often a sample keeps the promise that is made of it."""

from experiments.tables import Column, Table
from experiments.tables.place import HEAD, LAYER, LENGTH, SAMPLE, SELECTOR, VARIANT

COVERAGE = Table(
    name="coverage",
    line="one method of the exact keys and one share of the base sample, means over the sampled rows of a head and "
    "length",
    owner="coverage",
    keys=(
        LAYER,
        HEAD,
        SAMPLE,
        VARIANT,
        LENGTH,
        SELECTOR,
        Column("base", "float64", "share of the other keys that the base sample has, at least 2 keys"),
    ),
    values=(
        Column("rows", "int32", "rows averaged"),
        Column("epsilon", "float64", "relative error of the denominator that is promised"),
        Column("delta", "float64", "share of rows that may break the promise"),
        Column("covered", "float64", "share of rows whose estimated denominator is within epsilon of the exact one"),
        Column("sampled", "float64", "mean share of the other keys that was sampled for it"),
        Column("keys", "float64", "mean number of keys read: the exact ones and the sample", "keys"),
    ),
)
