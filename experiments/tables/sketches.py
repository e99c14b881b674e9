"""sketches.parquet: how well a sketch estimates what an approximation would leave."""

from experiments.tables import Column, Table
from experiments.tables.place import HEAD, LAYER, LENGTH, SAMPLE, VARIANT

SKETCHES = Table(
    name="sketches",
    line="one size of one diagnostic, over the sampled rows of a head and length",
    owner="sketches",
    keys=(
        LAYER,
        HEAD,
        SAMPLE,
        VARIANT,
        LENGTH,
        Column(
            "of",
            "str",
            "`row`: what the k largest keys leave of a row; `matrix`: what rank k leaves of all rows; `column`: what "
            "the k largest rows leave of a column of the output",
        ),
        Column("k", "int32", "keys, rank or rows that are taken away"),
        Column(
            "width", "int32", "buckets of a hash row, or rows of the Gaussian sketch; 0 for a column, which has none"
        ),
    ),
    values=(
        Column("rows", "int32", "rows of the head"),
        Column("left", "float64", "L2 norm that is left over that of the whole, mean over rows or columns"),
        Column("ratio", "float64", "estimate over truth, median over rows; null for a column"),
        Column("ratio_low", "float64", "its 10% point over rows; null for a column or a matrix"),
        Column("ratio_high", "float64", "its 90% point over rows; null for a column or a matrix"),
    ),
)
