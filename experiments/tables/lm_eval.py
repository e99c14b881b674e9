"""lm_eval.parquet: what lm-evaluation-harness makes of the answers to its tasks."""

from experiments.tables import Column, Table
from experiments.tables.place import PHASE, SELECTOR, WINDOW

LM_EVAL = Table(
    name="lm_eval",
    line="one metric of one task or group of tasks",
    owner="lm_eval",
    keys=(
        Column("task", "str", "name of the task or group in lm-evaluation-harness"),
        Column("metric", "str", "name of the metric there, with its filter: `acc,none`"),
        PHASE,
        Column("length", "int32", "most tokens of a context with its answer; longer contexts are cut on their left"),
        SELECTOR,
        *WINDOW,
    ),
    values=(
        Column("value", "float64", "the metric, as lm-evaluation-harness defines it"),
        Column("stderr", "float64", "its standard error over documents; NaN where lm-evaluation-harness has none"),
        Column("documents", "int64", "documents that were asked"),
        Column("requests", "int64", "contexts with a text to score, and texts to write"),
        Column("cut", "int64", "requests whose context was cut on its left"),
        Column("keys", "float64", "keys kept by the row that answers first, mean over layers, heads, requests", "keys"),
    ),
)
