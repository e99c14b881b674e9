"""rows.parquet: exact attention rows, whatever the window."""

from experiments.tables import Column, Table
from experiments.tables.place import HEAD, LAYER, LENGTH, SAMPLE, VARIANT

ETAS = (0.5, 0.2, 0.1, 0.05, 0.01)
EPSILONS = (0.1, 0.01, 0.001)


def k_min(eta: float) -> str:
    """Return the name of the column of the smallest window that drops at most a mass of `eta`."""
    return f"k_min_{eta:g}"


ROWS = Table(
    name="rows",
    line="one sampled row of exact attention, independent of any window",
    owner="approximation",
    keys=(
        LAYER,
        HEAD,
        SAMPLE,
        VARIANT,
        LENGTH,
        Column("position", "int32", "place of the query in its sequence, from 0"),
    ),
    values=(
        Column("n", "int32", "keys that the row sees", "keys"),
        Column("logit_mean", "float32", "mean of the scaled, masked logits", "nats"),
        Column("logit_std", "float32", "their population deviation", "nats"),
        Column("logit_max", "float32", "largest logit", "nats"),
        Column("logsumexp", "float32", "ln sum exp(logit), a learned sink's included", "nats"),
        Column("entropy", "float32", "-sum p ln p, a learned sink's entry included", "nats"),
        Column(
            "log_p_variance",
            "float32",
            "variance of ln p under p, for [G8]; null with a learned sink",
            "nats^2",
            older=float("nan"),
        ),
        Column(
            "root_sum",
            "float32",
            "sum of sqrt(p), for [G8]: e^H of order 1/2 is its square; null likewise",
            older=float("nan"),
        ),
        Column("participation", "float32", "1 / sum p^2, the effective number of entries", "keys"),
        Column("p_max", "float32", "largest probability of a key"),
        Column("sink_mass", "float32", "probability of key 0"),
        Column("learned_sink_mass", "float32", "probability of a learned sink, which is no key; 0 for none", older=0.0),
        *(Column(k_min(eta), "int32", f"smallest k with dropped mass <= {eta:g}", "keys") for eta in ETAS),
        *(Column(f"count_{eps:g}", "int32", f"entries with p > {eps:g}", "keys") for eps in EPSILONS),
        Column("output_norm", "float32", "Euclidean norm of the exact output"),
    ),
)
