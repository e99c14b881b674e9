"""How does attention fall with distance, and is it one power law?

Shape letters: S samples drawn, C clusters, H heads, B ranges of distances.
"""

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.records.load import fullest_design
from analysis.settings import Settings
from analysis.statistics.distance import Curves, curves_of, decay, resampled, with_interval
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average over heads and samples, and fit the decay of the mean, of each layer and of each head."""
    lines = evidence.tables["distance"]
    if lines.empty:
        raise NothingMeasured("no attention by distance: python run.py experiment=distance")
    lines = fullest_design(lines)
    points, laws, heads = [], [], []
    every = curves_of(lines)
    longest = {curves.label: curves.length for curves in every}
    for curves in every:
        place = {"label": curves.label, "length": curves.length}
        value_SHB = resampled(curves, how)
        points += [place | point for point in _points(curves, value_SHB, curves.length == longest[curves.label], how)]
        laws.append(place | _law(curves, value_SHB, config, how))
        heads += [place | head for head in _heads(curves, value_SHB, config, how)]
    return {
        "distance": pd.DataFrame(points),
        "distance_laws": pd.DataFrame(laws),
        "distance_heads": pd.DataFrame(heads),
        "distance_sources": sources(lines),
    }


def _points(curves: Curves, value_SHB: np.ndarray, by_layer: bool, how: Settings) -> list[dict[str, object]]:
    """Return the mean at each range, over the heads that see all of them, and over each layer's if asked for."""
    layer_H, clusters = curves.place_H2[:, 0], len(curves.value_CHB)
    found: list[dict[str, object]] = []
    for layer in (None, *(np.unique(layer_H).tolist() if by_layer else ())):
        mean_SB = value_SHB[:, curves.whole_H if layer is None else layer_H == layer].mean(1)
        for (distance, last), middle, value_S in zip(curves.range_B2, curves.middle_B, mean_SB.T, strict=True):
            if np.isnan(value_S[0]):  # what a sliding window hides
                continue
            about = {"layer": layer, "distance": int(distance), "last": int(last), "middle": float(middle)}
            found.append(about | with_interval("probability", value_S, clusters, how, "positive"))
    return found


def _law(curves: Curves, value_SHB: np.ndarray, config: DictConfig, how: Settings) -> dict[str, object]:
    """Return the decay of the mean over the heads that see every distance, of the median head, and the mean at some."""
    clusters, inside = len(curves.value_CHB), curves.within(config.fitted)
    mean_SB, middle_B = value_SHB[:, curves.whole_H].mean(1), curves.middle_B
    of_heads_SH = decay(middle_B[inside], value_SHB[..., inside])
    there = ~np.isnan(of_heads_SH[0])
    result: dict[str, object] = {
        "clusters": clusters,
        "heads": int(curves.whole_H.sum()),
        "heads_fitted": int(there.sum()),
    }
    from_to = (middle_B[inside].min(), middle_B[inside].max()) if inside.any() else (np.nan, np.nan)
    result |= dict(zip(("fitted_from", "fitted_to"), map(float, from_to), strict=True))
    result |= with_interval("exponent", decay(middle_B[inside], mean_SB[:, inside]), clusters, how, "real")
    median_S = np.median(of_heads_SH[:, there], 1) if there.any() else np.full(len(of_heads_SH), np.nan)
    result |= with_interval("exponent_median", median_S, clusters, how, "real")
    spread = np.quantile(of_heads_SH[0, there], [0.05, 0.25, 0.75, 0.95]) if there.any() else [np.nan] * 4
    result |= dict(zip(("exponent_05", "exponent_25", "exponent_75", "exponent_95"), map(float, spread), strict=True))
    for distance in config.at:
        index = curves.holding(distance)
        value_S = mean_SB[:, index[0]] if len(index) else np.full(len(mean_SB), np.nan)
        result |= with_interval(f"at_{distance}", value_S, clusters, how, "positive")
    return result


def _heads(curves: Curves, value_SHB: np.ndarray, config: DictConfig, how: Settings) -> list[dict[str, object]]:
    """Return the decay of each head, and how far its curve is from the power law."""
    clusters, inside = len(curves.value_CHB), curves.within(config.fitted)
    exponent_SH = decay(curves.middle_B[inside], value_SHB[..., inside])
    residual_H = np.full(len(curves.place_H2), np.nan)
    if inside.any():
        x_B = np.log(curves.middle_B[inside])
        with np.errstate(divide="ignore"):
            log_HB = np.log(value_SHB[0][:, inside])
        off_HB = log_HB - log_HB.mean(1, keepdims=True) + exponent_SH[0][:, None] * (x_B - x_B.mean())
        residual_H = np.sqrt(np.square(off_HB).mean(1))
    found: list[dict[str, object]] = []
    for (layer, head), exponent_S, residual in zip(curves.place_H2, exponent_SH.T, residual_H, strict=True):
        about: dict[str, object] = {"layer": int(layer), "head": int(head), "residual": float(residual)}
        found.append(about | with_interval("exponent", exponent_S, clusters, how, "real"))
    return found
