"""tasks.parquet: answers to the questions of tasks."""

from experiments.tables import Column, Table
from experiments.tables.place import LENGTH, PHASE, SAMPLE, SELECTOR, WINDOW
from experiments.tables.quality import AGREEMENT, KL

TASKS = Table(
    name="tasks",
    line="one question of one context",
    owner="tasks",
    keys=(
        Column("task", "str", "name of the task"),
        SAMPLE,
        PHASE,
        LENGTH,
        SELECTOR,
        *WINDOW,
        Column("question", "int32", "number of the question after its context, from 0"),
    ),
    values=(
        Column("keys", "float64", "keys kept by a row, mean over layers and heads", "keys"),
        Column("tokens", "int64", "tokens of the answer"),
        Column("log_prob", "float64", "ln p of the whole answer; of several right ones the most probable", "nats"),
        Column("exact", "bool", "true if each token of a right answer is the most probable one"),
        AGREEMENT,
        KL,
        Column(
            "recalled", "float64", "share of an answer's parts that are exact; of several right answers the largest"
        ),
    ),
)
