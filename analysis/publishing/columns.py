"""`python -m analysis.publishing.columns`: writes docs/tables.md, the columns of the tables that people read most.

A test compares the page with what is declared here, and what is declared with the tables that the analysis writes.
"""

from analysis import save, settings
from analysis.publishing.published import ROOT

PAGE = ROOT / "docs" / "tables.md"
HEADER = """# Columns of the tables

`python -m analysis` writes `outputs/tables/NAME.csv`, at full precision, and `NAME.tex` for print. This page is made
of the declarations in `analysis/publishing/columns.py` by `python -m analysis.publishing.columns`; a test compares them
with the tables. Columns of the records are in [columns.md](columns.md).

`NAME_low` and `NAME_high` are the ends of the 95% interval of `NAME`. An empty cell is a number that there is not:
`reason` says why, where a table has it. Tables named `STUDY_sources` say what stands behind those of the study.
"""
SHARED = {
    "label": "the source: a model, with its text where that is not the usual one, or a setting of Gaussian rows",
    "kind": "`real` for a model, `gaussian`, or `triples`",
    "variant": "`plain`; `no_sink`: key 0 is hidden; `truncated_context`: the model reads the last n tokens alone",
    "layer": "index of the layer; 0 for Gaussian rows",
    "head": "index of the query head; 0 for Gaussian rows",
    "heads": "number of heads behind the line",
    "clusters": "number of text samples or draws, which a bootstrap resamples as independent",
    "eta": "dropped mass allowed, which defines the keys needed: k_min is the least k that drops at most eta",
    "length": "nominal context length, tokens",
    "n": "mean number of keys that the rows see",
    "k": "keys",
    "measure": "which error, a column of windows.parquet",
    "law": "`constant` a, `log` a + b ln n, `power` a n^C, `linear` b n, `affine` a + b n, or `power_log` a n^C ln n",
    "lengths": "number of lengths fitted",
    "censored": "number of lengths left out, as too many rows need one key or all",
    "a": "parameter of the law",
    "b": "parameter of the law",
    "C": "exponent of the law k = a n^C, and of a n^C ln n",
    "rms_ln_k": "root mean square of the residuals in ln k",
    "aicc": "corrected Akaike criterion (AICc) of the fit; less is better, within one curve",
    "delta": "AICc less that of the best law of the curve",
    "lead": "AICc of the second-best law less that of the best: how clearly the winner wins",
    "winner": "whether this law has the least AICc; empty where not every law could be ranked",
    "reason": "why there is no fit, or no rank",
    "k_longest": "keys needed at the longest length",
    "n_longest": "mean number of keys that rows see at the longest length",
    "mean": "`mean window`, the arithmetic mean over heads, or `typical head`, the geometric one",
    "rule": "rule of the window, a column of windows.parquet",
    "parameter": "parameter of the rule: k of `fixed` and `grid`, C of `power`, the power of ln n of `log`",
    "scale": "factor of the rule",
    "centre": "the median over heads; where there is one head, the mean over samples",
    "low": "the lower quartile over heads, or the lower end of the interval of the mean; `spread` says which",
    "high": "the upper quartile over heads, or the upper end of the interval of the mean; `spread` says which",
    "spread": "what `low` and `high` are",
    "role": "`main`, or `comparison` for a control beside it",
    "s": "sigma / sqrt(ln n)",
    "sigma": "standard deviation of a row's logits",
    "rows": "rows measured",
    "samples": "text samples, or draws",
    "seeds": "seeds",
    "runs": "runs: folders below outputs/runs",
}
FIT = ("law", "lengths", "censored", *(x + end for x in "abC" for end in ("", "_low", "_high")))
FIT += ("rms_ln_k", "aicc", "delta", "lead", "winner", "reason", "k_longest", "n_longest", "clusters")
SPREAD = ("length", "heads", "k", "clusters", "centre", "low", "high", "spread", "measure")
# Of each table its columns in order, and what a column means there if that is not what it means in the others.
TABLES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "claims": (
        (
            *("claim", "reading", "question", "norm", "source", "verdict", "effect", "effect_low", "effect_high"),
            *("quantity", "evidence", "lines", "supporting", "opposing", "supports", "opposes", "enough", "since"),
            *("numbers_known", "table"),
        ),
        {
            "claim": "number of the claim",
            "reading": "which fair reading of the claim",
            "question": "what is asked, in that reading",
            "norm": "error, or norm, that is judged",
            "source": "the label that is judged",
            "verdict": "`confirmed`, `qualified`, `contradicted` or `undecided`",
            "effect": "median over the lines of evidence, in the unit of `quantity`; its bounds are their range, or "
            "the interval of a single line",
            "quantity": "what `effect` is",
            "evidence": "the evidence in words",
            "lines": "lines of the table that bear on it",
            "supporting": "lines that support it",
            "opposing": "lines that oppose it",
            "supports": "the condition on a line that supports",
            "opposes": "the condition on a line that opposes",
            "enough": "share of the lines that decides",
            "since": "when the rule was written",
            "numbers_known": "whether the numbers were known by then",
            "table": "the table judged",
        },
    ),
    "fits": (("label", "kind", "variant", "layer", "head", "eta", *FIT), {}),
    "fits_pooled": (
        ("label", "kind", "variant", "heads", "left_out", "eta", *FIT),
        {
            "heads": "heads pooled into the typical head",
            "left_out": "heads that see no more keys at longer contexts, and are not pooled",
        },
    ),
    "heads": (
        (
            *("label", "variant", "layer", "head", "eta", "C", "C_predicted", "sigma", "sigma_slope", "s", "n_middle"),
            *("k_longest", "n_longest", "law", "lead"),
        ),
        {
            "C": "exponent of k = a n^C, fitted to the head",
            "C_predicted": "the exponent that the head's logit deviation predicts [G6]",
            "sigma": "deviation of the head's logits at `n_middle`",
            "sigma_slope": "d sigma / d ln n",
            "n_middle": "geometric mean of the n fitted",
            "law": "the law with the least AICc; empty where laws could not be ranked",
        },
    ),
    "keys": (
        ("label", "kind", "eta", "mean", "length", "n", "censored", "k", "k_low", "k_high"),
        {"censored": "whether the length is left out of the fits", "k": "keys needed, by `mean`"},
    ),
    "keys_laws": (
        ("label", "kind", "variant", "eta", "mean", "scope", "heads", "share", *FIT),
        {
            "scope": "which heads: `all heads`, `layer L`, or `without layer L`",
            "share": "part of these heads in the keys that all need at the longest length",
        },
    ),
    "keys_foreseen": (
        ("label", "kind", "eta", "mean", "law", "n", "k", "inside", "k_low", "k_high"),
        {
            "law": "as elsewhere; `root`, the square root of n, or `entropy`, e^H of the mean entropy's growth",
            "k": "keys needed by the law, within 1 and n but for `root` and `entropy`",
            "inside": "whether n was measured, or is extrapolated",
        },
    ),
    "windows": (("label", "length", "parameter", *SPREAD[1:]), {"k": "mean number of keys kept"}),
    "regimes": (("label", "rule", "parameter", "scale", *SPREAD), {"k": "mean number of keys kept"}),
    "keys_sources": (("label", "kind", "role", "s", "sigma", "rows", "samples", "heads", "seeds", "runs"), {}),
}


def meaning(table: str, column: str) -> str | None:
    """Return what a column of a table means; None for the ends of an interval, which the page explains once."""
    own = TABLES[table][1]
    for name in (column, column.removesuffix("_low").removesuffix("_high")):
        if name in own or name in SHARED:
            return None if name != column else own.get(name, SHARED.get(name))
    raise KeyError(f"the column {column} of the table {table} has no meaning: write it")


def page() -> str:
    """Return the page: the tables with their columns, then the others by name."""
    parts = [HEADER]
    for name, (columns, _) in TABLES.items():
        lines = [f"| `{column}` | {text} |" for column in columns if (text := meaning(name, column)) is not None]
        parts.append("\n".join([f"## `{name}.csv`", "", "| column | meaning |", "|---|---|", *lines, ""]))
    others = [name for name in _every_table() if name not in TABLES]
    listed = ", ".join(f"`{name}`" for name in others)
    parts.append(
        f"## Others\n\n{listed}. The docstrings of `analysis/studies` and of the functions of `analysis/statistics` "
        "that make them say what their columns are.\n"
    )
    return "\n".join(parts)


def _every_table() -> list[str]:
    """Return the names of all tables of all studies."""
    return [table for name in settings.studies() for table in settings.study(name).tables]


if __name__ == "__main__":
    save.write_text(PAGE, page())
