"""windows.parquet: what each method loses within each window."""

from experiments.tables import Column, Table
from experiments.tables.place import HEAD, LAYER, LENGTH, SAMPLE, SELECTOR, VARIANT, WINDOW

# Means over rows; the output errors are ratios of RMS.
MEANS = (
    Column("dropped_mass", "float32", "mass tau of the keys that are not kept; null for an estimate"),
    Column("tv", "float32", "total variation of the renormalised row [T1]", same_as="dropped_mass"),
    Column("kl", "float32", "KL(renormalised row, exact row) [T2]; null where an estimate is negative", "nats"),
    Column("linf_truncated", "float32", "largest error of an entry, truncated row [T3]"),
    Column("linf_renormalised", "float32", "largest error of an entry, renormalised row [T3]"),
    Column("l2_truncated", "float32", "L2 error, truncated row [T5]"),
    Column("l2_renormalised", "float32", "L2 error, renormalised row [T5]"),
    Column(
        "negative_mass",
        "float32",
        "sum of the negative part of the renormalised row; 0 for a choice of keys",
        older=0.0,
    ),
    Column(
        "normaliser_error",
        "float32",
        "|ln sum w| of an estimate w relative to the exact normaliser; -ln(1 - tau) for a choice of keys",
        "nats",
        older=float("nan"),
        same_as="kl",
    ),
    Column("failed", "float32", "share of rows whose estimate sums to at most 0.01", older=0.0),
)

WINDOWS = Table(
    name="windows",
    line="one window of one method, means over the sampled rows of a head and length",
    owner="approximation",
    keys=(LAYER, HEAD, SAMPLE, VARIANT, LENGTH, SELECTOR, *WINDOW),
    values=(
        Column("rows", "int32", "rows averaged"),
        Column("k", "float64", "mean number of keys kept, or budget of a method that keeps none", "keys"),
        Column("keys_read", "float32", "what a row reads at best; a key without its value counts one half", "keys"),
        Column(
            "flops",
            "float32",
            "multiply-adds of a row; preparation that serves all later rows is divided by n",
            older=float("nan"),
        ),
        *MEANS,
        Column("output_error_truncated", "float32", "RMS error of the output over its RMS, truncated row [T6]"),
        Column("output_error_renormalised", "float32", "the same, renormalised row [T6]"),
    ),
)
