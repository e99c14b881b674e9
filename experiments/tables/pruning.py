"""pruning.parquet and pruning_losses.parquet: what pruned query and key weights lose."""

from experiments.tables import Column, Table
from experiments.tables.place import HEAD, LAYER, LENGTH, SAMPLE
from experiments.tables.quality import AGREEMENT, KL

CRITERIA = ("magnitude", "wanda", "gradient", "softmax_saliency", "head_saliency")
MAGNITUDE, WANDA, GRADIENT, SALIENCY, HEAD_SALIENCY = CRITERIA
DENSE = "dense"
SHARE = Column("share", "float64", "share of the entries of W_Q and of W_K that is to be kept")

PRUNING = Table(
    name="pruning",
    line="one head whose layer alone is pruned, at the input that the dense model gives it: means over all rows of a "
    "context that is not the one it was pruned on",
    owner="pruning",
    keys=(
        LAYER,
        HEAD,
        SAMPLE,
        LENGTH,
        Column("criterion", "str", "which weights are kept: those of the largest score by this name"),
        SHARE,
    ),
    values=(
        Column("rows", "int32", "rows averaged"),
        Column("tv", "float32", "total variation between the row of the pruned weights and the dense one"),
        Column(
            "output_error", "float32", "RMS over the rows of the output's error over RMS of the output; values dense"
        ),
        Column("kept_query", "float64", "share of the entries of the layer's W_Q that was kept"),
        Column("kept_key", "float64", "share of the entries of the layer's W_K that was kept"),
    ),
)
PRUNING_LOSSES = Table(
    name="pruning_losses",
    line="one context that the model reads with all measured layers pruned",
    owner="pruning",
    keys=(
        SAMPLE,
        LENGTH,
        Column("criterion", "str", "which weights are kept; `dense` for all"),
        SHARE,
    ),
    values=(
        Column("layers", "int32", "layers pruned, or measured beside in the dense reading"),
        Column("loss", "float64", "mean -ln p of the tokens but the first", "nats"),
        AGREEMENT,
        KL,
    ),
)
