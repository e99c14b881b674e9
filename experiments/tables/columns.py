"""columns.parquet: how much of the rows' mass one set of columns holds, the same for all rows."""

from experiments.tables import Column, Table
from experiments.tables.place import HEAD, LAYER, LENGTH, SAMPLE, VARIANT

COLUMNS = Table(
    name="columns",
    line="one number of columns and one way to choose them, of a head and length: means over the later half of the "
    "sampled rows",
    owner="columns",
    keys=(
        LAYER,
        HEAD,
        SAMPLE,
        VARIANT,
        LENGTH,
        Column(
            "chosen",
            "str",
            "by whose mean probabilities: `same_rows`, the rows that are scored; `earlier_rows`, the earlier half of "
            "the sampled rows; `other_text`, the rows scored of the sample before, column by column; `each_row`, each "
            "row's own most probable keys, which no one set for all exceeds",
        ),
        Column("k", "int32", "number of columns", "keys"),
    ),
    values=(
        Column("rows", "int32", "rows scored"),
        Column("recall", "float64", "mean share of a row's probability on the columns"),
    ),
)
