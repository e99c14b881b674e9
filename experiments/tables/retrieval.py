"""retrieval.parquet: answers to questions about the context."""

from experiments.tables import Column, Table
from experiments.tables.place import LENGTH, PHASE, SAMPLE, SELECTOR, WINDOW
from experiments.tables.quality import AGREEMENT, KL

RETRIEVAL = Table(
    name="retrieval",
    line="one answer; the rule `sharpened` is dense attention with logits times `parameter`",
    owner="retrieval",
    keys=(
        SAMPLE,
        PHASE,
        LENGTH,
        SELECTOR,
        *WINDOW,
        Column("depth", "float64", "where the number stands in the context, 0 its start, 1 its end"),
    ),
    values=(
        Column("keys", "float64", "keys kept by a row, mean over layers and heads", "keys"),
        Column("tokens", "int64", "tokens of the answer"),
        Column("log_prob", "float64", "ln p of the whole answer", "nats"),
        Column("exact", "bool", "true if each token of the answer is the most probable one"),
        AGREEMENT,
        KL,
    ),
)
