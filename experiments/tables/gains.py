"""gains.parquet: what is lost where one layer, or one KV head, alone keeps few keys."""

from experiments.tables import Column, Table
from experiments.tables.place import LAYER, LENGTH, PHASE, SAMPLE, SELECTOR, WINDOW
from experiments.tables.quality import AGREEMENT, KL

EVERY_KV_HEAD = -1

GAINS = Table(
    name="gains",
    line="one layer, or one KV head of it, that alone keeps few keys, while the rest of the model attends densely: "
    "means over the tokens decoded",
    owner="gains",
    keys=(
        SAMPLE,
        PHASE,
        LENGTH,
        SELECTOR,
        *WINDOW,
        LAYER,
        Column("kv_head", "int32", f"index of the KV head within its layer; {EVERY_KV_HEAD} for all of them"),
    ),
    values=(
        Column("keys", "float32", "keys kept by a row of it, mean over its query heads", "keys"),
        Column("n", "float32", "keys that such a row sees", "keys"),
        Column("tokens", "int32", "predicted tokens averaged"),
        Column("loss", "float64", "mean -ln p of the next token", "nats"),
        Column("dense_loss", "float64", "the same of dense attention", "nats"),
        AGREEMENT,
        KL,
        Column("heads", "int32", "query heads of the layer"),
        Column("kv_heads", "int32", "KV heads of the layer"),
        Column("key_dim", "int32", "dimension of a key, and of a value; 0 where layers, or keys and values, differ"),
    ),
)
