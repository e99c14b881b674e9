"""distance.parquet: how much attention a key gets by how far before the query it stands."""

from experiments.tables import Column, Table
from experiments.tables.place import HEAD, LAYER, LENGTH, SAMPLE, VARIANT

DISTANCE = Table(
    name="distance",
    line="one range of distances of a head and length: means over its distances of means over the sampled rows that "
    "see a key so far before their query",
    owner="distance",
    keys=(
        LAYER,
        HEAD,
        SAMPLE,
        VARIANT,
        LENGTH,
        Column("distance", "int32", "least distance of the range: position of the query less that of the key", "keys"),
    ),
    values=(
        Column("last", "int32", "greatest distance of the range", "keys"),
        Column("rows", "int32", "rows sampled"),
        Column("pairs", "int64", "pairs of a row and a key so far before it"),
        Column("probability", "float64", "mean probability of such a key"),
    ),
)
