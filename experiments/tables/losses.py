"""losses.parquet: the loss of every token, densely and within windows."""

from experiments.tables import Column, Table
from experiments.tables.place import LENGTH, PHASE, SAMPLE, SELECTOR, WINDOW
from experiments.tables.quality import AGREEMENT, KL

LOSSES = Table(
    name="losses",
    line="one predicted token",
    owner="language",
    keys=(
        SAMPLE,
        PHASE,
        LENGTH,
        SELECTOR,
        *WINDOW,
        Column("position", "int32", "place of the predicting token, from 0"),
    ),
    values=(
        Column("loss", "float32", "-ln p of the next token", "nats"),
        Column("keys", "float32", "keys kept by its rows, mean over layers and heads", "keys"),
        AGREEMENT,
        KL,
    ),
)
