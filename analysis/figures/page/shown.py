"""What of a table a figure shows: its yaml decides, and no verdict depends on it."""

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from analysis.figures.page import style

NEAR = 2.0  # times a budget, either way, that a window drawn at it may be
# What a yaml may have to make a figure lower: `column` has others of these for the column of a journal.
FEWER = ("shows", "gaussians", "models", "upper")


def of_page(config: DictConfig) -> DictConfig:
    """Return a figure's yaml for the page it is drawn on: in a journal's column, `column` replaces what it names."""
    if style.PAGE > style.COLUMN or "column" not in config:
        return config
    return OmegaConf.create({**config, **config.column})


def sources_shown(sources: pd.DataFrame, config: DictConfig) -> pd.DataFrame:
    """Choose the sources of a figure, order kept.

    Parameters
    ----------
    sources : one line per label, in the order of reading.
    config : the figure's yaml: `shows` maps columns to the values allowed, null for a missing one; `gaussians` is the
        most Gaussian settings shown, spread evenly over those that are left; `models` the most models, the first ones.
    """
    for column, allowed in config.get("shows", {}).items():
        values = sources[column]
        sources = sources[values.isin(list(allowed)) | (values.isna() & (None in list(allowed)))]
    gaussian = sources["kind"] == "gaussian"
    if "gaussians" in config:
        kept = style.spread_over(sources.loc[gaussian, "label"].tolist(), config.gaussians)
        sources = sources[~gaussian | sources["label"].isin(kept)]
    if "models" in config:
        models = sources.loc[sources["kind"] == "real", "label"].tolist()
        sources = sources[~sources["label"].isin(models[config.models :])]
    return sources


def nearest_windows(windows: pd.DataFrame, size: str, budget: float) -> pd.DataFrame:
    """Pick of each family the window whose mean size is nearest to a budget in keys: rule, parameter, scale.

    A family has none if that window is not even half as large, or more than twice.
    """
    window = ["family", "rule", "parameter", "scale"]
    sizes = windows.groupby(window, sort=False)[size].mean().reset_index()
    nearest = sizes.iloc[(sizes[size] - budget).abs().argsort(kind="stable")].drop_duplicates("family")
    return nearest.loc[nearest[size].between(budget / NEAR, budget * NEAR), window]
