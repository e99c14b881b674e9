"""How laws, windows and methods are written and drawn in every figure."""

from analysis.figures.page.style import count_text

LAWS = {
    "constant": "$a$",
    "log": r"$\ln n$",
    "power": "$n^C$",
    "linear": "$n$",
    "affine": "$a+bn$",
    "power_log": r"$n^C\ln n$",
}
FORMULAS = {
    "constant": "$a$",
    "log": r"$a + b\,\ln n$",
    "power": r"$a\,n^C$",
    "linear": r"$b\,n$",
    "affine": r"$a + b\,n$",
    "power_log": r"$a\,n^C\,\ln n$",
}
# Kinds of methods, and the methods of each in the order of their markers.
KINDS = {
    "oracle": ("oracle",),
    "fixed pattern": ("sliding", "sinks", "strided", "summary_columns", "big_bird"),
    "cache by earlier rows": ("vertical_slash", "h2o", "snap_kv", "snap_kv_prompt", "screening", "expected_attention"),
    "index by the query": (
        *("quest", "sort_lsh", "magic_pig", "quantised_keys", "sparq", "double_sparsity", "pca_keys"),
        *("block_oracle", "block_mean"),
    ),
    "keys alone": ("uniform_columns", "lev_attention", "keydiff", "knorm"),
    "approximation": (
        *("mean_value", "coreset", "moment_tail", "polynomial", "conv_basis", "logit_sketch", "shared", "low_rank"),
    ),
    "exact keys and a sample": ("verified",),
    "control": ("random", "sharpened"),
}


def kind_of(method: str) -> str:
    """Return the kind of a method of conf/selector.

    Raises
    ------
    KeyError : if it has none; name it in `KINDS`.
    """
    for kind, methods in KINDS.items():
        if method in methods:
            return kind
    raise KeyError(f"the method {method} has no kind: name it in KINDS of {__name__}")


def window_text(rule: str, parameter: float, scale: float) -> str:
    """Write the number of keys of a window as a formula of n: 64, 4 ln n, n^0.7, 0.1 n."""
    factor = "" if scale == 1 else f"{scale:g} "
    if rule == "power":
        return rf"{factor}$n^{{{parameter:g}}}$"
    if rule == "log":
        return rf"{factor}$\ln n$" if parameter == 1 else rf"{factor}$(\ln n)^{{{parameter:g}}}$"
    if rule == "linear":
        return rf"{parameter:g} $n$"
    return count_text(parameter)
