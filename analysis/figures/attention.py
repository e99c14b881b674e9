"""Recorded attention matrices on a logarithmic scale."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.sources import tag


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw the matrices whose cells were kept side by side; see conf/figure/attention.yaml."""
    table, cells = tables["attention"], tables["attention_cells"]
    shown = table[table["cells"]]
    if shown.empty:
        raise NothingToDraw("no cells of recorded attention matrices")
    lines = -(-len(shown) // config.across)
    left, gap, right, edge = 0.48, 0.28, 0.1, 0.45
    _, side = style.side_by_side(config.across, left=left, gap=gap, right=right, edge=edge)
    figure, axes = style.panels(lines, config.across, side, left=left, gap=gap, right=right, edge=edge)
    norm = LogNorm(config.lowest, 1.0)
    # what is below the scale is dark, what the query cannot see is blank
    colours = mpl.colormaps["cividis"].with_extremes(bad="white")
    for panel in axes.flat[len(shown) :]:
        panel.remove()
    for i, (panel, (index, about)) in enumerate(zip(axes.flat, shown.iterrows(), strict=False)):
        own = cells[cells["matrix"] == index]
        extent = (0, about["keys"] * about["key_pool"], about["queries"] * about["query_pool"], 0)
        values = own.filter(like="key_").drop(columns="key_pool").to_numpy()
        values = values[:, : -(-extent[1] // own["key_pool"].iloc[0])]
        image = np.ma.masked_invalid(np.maximum(values, config.lowest / 2))
        tag(about["label"], panel)
        panel.imshow(image, cmap=colours, norm=norm, extent=extent, aspect="auto")
        panel.grid(False)
        for axis, end in ((panel.xaxis, extent[1]), (panel.yaxis, extent[2])):
            axis.set_major_locator(FixedLocator(np.linspace(0, end, 5).tolist()))
            axis.set_major_formatter(FuncFormatter(lambda value, _: style.count_text(value)))
        pools = (own["query_pool"].iloc[0], own["key_pool"].iloc[0])
        pooled = f"pooled {pools[0]} × {pools[1]}" if max(pools) > 1 else ""
        head = f"layer {about['layer']}, head {about['head']}" if about["kind"] == "real" else ""
        second = ", ".join(filter(None, (head, pooled))) or f"n = {style.count_text(about['length'])}"
        panel.set_title(f"{about['label']}\n{second}", fontsize=6, parse_math=False)
        unit = "token" if about["kind"] == "real" else "draw"
        panel.set_xlabel(f"key ({unit})")
        panel.set_ylabel(f"query ({unit})" if i % config.across == 0 else "")
    box = axes[0, min(len(shown), config.across) - 1].get_position()
    bar = figure.add_axes((box.x1 + 0.008, box.y0, 0.01, box.height))
    figure.colorbar(ScalarMappable(norm, "cividis"), cax=bar, extend="min", label="probability per cell")
    heads, samples, seeds = (
        len(shown[keys].drop_duplicates()) for keys in (["label", "layer", "head"], ["label", "sample"], ["seed"])
    )
    words = (style.plural(heads, "head"), style.plural(samples, "sample"), style.plural(seeds, "seed"))
    rows = int((shown["query_pool"] * shown["queries"]).sum())
    matrices = f"{len(shown)} of {table['recorded'].iloc[0]} recorded matrices"
    style.footer(figure, f"{matrices}: {rows:,} rows, {', '.join(words)}.")
    return figure
