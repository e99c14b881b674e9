"""Is a layer's attention that of a layer below?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics import methods
from analysis.studies import NothingMeasured

SHARED = "shared"


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Compare the rows of layers below with a layer's own, over all heads and layer by layer."""
    windows = evidence.windows
    if len(windows):
        shared = windows["selector"].astype(str).str.startswith(SHARED)
        windows = windows[windows["label"].isin(windows.loc[shared, "label"].unique())]
    if windows.empty:
        raise NothingMeasured("no row of a layer below: python run.py experiment=shared")
    longest = windows[windows["length"] == windows.groupby("label", observed=True)["length"].transform("max")]
    named = longest.astype({"label": str, "selector": str})
    layers = named.groupby(["label", "selector", "length", "layer"], as_index=False)[
        ["tv", "output_error_renormalised"]
    ].median()
    return {
        "shared": methods.compare(windows, how),
        "shared_layers": layers.rename(columns={"output_error_renormalised": "output_error"}),
        "shared_sources": sources(windows),
    }
