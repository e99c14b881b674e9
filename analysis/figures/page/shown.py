"""What of a table a figure shows: its yaml decides, and no verdict depends on it."""

import pandas as pd
from omegaconf import DictConfig

from analysis.figures.page.style import spread_over


def sources_shown(sources: pd.DataFrame, config: DictConfig) -> pd.DataFrame:
    """Choose the sources of a figure, order kept.

    Parameters
    ----------
    sources : one line per label, in the order of reading.
    config : the figure's yaml: `shows` maps columns to the values allowed, null for a missing one; `gaussians` is the
        most Gaussian settings shown, spread evenly over those that are left.
    """
    for column, allowed in config.get("shows", {}).items():
        values = sources[column]
        sources = sources[values.isin(list(allowed)) | (values.isna() & (None in list(allowed)))]
    if "gaussians" not in config:
        return sources
    gaussian = sources["kind"] == "gaussian"
    kept = spread_over(sources.loc[gaussian, "label"].tolist(), config.gaussians)
    return sources[~gaussian | sources["label"].isin(kept)]


def nearest_windows(windows: pd.DataFrame, size: str, budget: float) -> pd.DataFrame:
    """Pick of each family the window whose mean size is nearest to a budget in keys: rule, parameter, scale."""
    window = ["family", "rule", "parameter", "scale"]
    sizes = windows.groupby(window, sort=False)[size].mean().reset_index()
    return sizes.iloc[(sizes[size] - budget).abs().argsort(kind="stable")].drop_duplicates("family")[window]
