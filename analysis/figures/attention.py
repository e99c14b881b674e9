"""Recorded attention matrices on a logarithmic scale."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.ticker import FixedLocator, FuncFormatter
from omegaconf import DictConfig

from analysis import style
from analysis.figures import Drawing, Evidence, NothingToDraw
from analysis.matrices import Matrix


def draw(evidence: Evidence, config: DictConfig) -> Drawing:
    """Draw recorded matrices side by side; see conf/figure/attention.yaml."""
    if not evidence.matrices:
        raise NothingToDraw("no run recorded attention matrices")
    shown = style.spread_over(_one_per_head(evidence.matrices), config.panels)
    lines = -(-len(shown) // config.across)
    left, gap, right, edge = 0.48, 0.28, 0.1, 0.45
    side = (style.PAGE - left - edge - gap * (config.across - 1)) / config.across - right
    figure, axes = style.panels(lines, config.across, side, left=left, gap=gap, right=right, edge=edge)
    norm = LogNorm(config.lowest, 1.0)
    # what is below the scale is dark, what the query cannot see is blank
    colours = mpl.colormaps["cividis"].with_extremes(bad="white")
    numbers = []
    for i, panel in enumerate(axes.flat):
        if i >= len(shown):
            panel.remove()
            continue
        matrix = shown[i]
        cells = matrix.read()
        rows, columns = cells.shape
        extent = (0, columns * matrix.key_pool, rows * matrix.query_pool, 0)
        panel.imshow(_visible(matrix, cells, config.lowest), cmap=colours, norm=norm, extent=extent, aspect="auto")
        panel.grid(False)
        for axis, end in ((panel.xaxis, extent[1]), (panel.yaxis, extent[2])):
            axis.set_major_locator(FixedLocator(np.linspace(0, end, 5).tolist()))
            axis.set_major_formatter(FuncFormatter(lambda value, _: style.count_text(value)))
        pooled = max(matrix.query_pool, matrix.key_pool) > 1
        pools = f"pooled {matrix.query_pool} × {matrix.key_pool}" if pooled else ""
        place = f"layer {matrix.layer}, head {matrix.head}" if matrix.kind == "real" else ""
        second = ", ".join(filter(None, (place, pools))) or f"n = {style.count_text(matrix.length)}"
        panel.set_title(f"{matrix.label}\n{second}", fontsize=6, parse_math=False)

        unit = "token" if matrix.kind == "real" else "draw"
        panel.set_xlabel(f"key ({unit})")
        panel.set_ylabel(f"query ({unit})" if i % config.across == 0 else "")
        numbers.append(_summary(matrix, cells))
    box = axes[0, min(len(shown), config.across) - 1].get_position()
    bar = figure.add_axes((box.x1 + 0.008, box.y0, 0.01, box.height))
    figure.colorbar(ScalarMappable(norm, "cividis"), cax=bar, extend="min", label="probability per cell")
    table = pd.DataFrame(numbers)
    heads, samples, seeds = (
        len({tuple(getattr(m, key) for key in keys) for m in shown})
        for keys in (("label", "layer", "head"), ("label", "sample"), ("seed",))
    )
    words = (style.plural(heads, "head"), style.plural(samples, "sample"), style.plural(seeds, "seed"))
    rows = int((table["query_pool"] * table["queries"]).sum())
    matrices = f"{len(shown)} of {len(evidence.matrices)} recorded matrices"
    style.footer(figure, f"{matrices}: {rows:,} rows, {', '.join(words)}.")
    return Drawing(figure, table)


def _one_per_head(matrices: list[Matrix]) -> list[Matrix]:
    """Pick of each head the matrix that is pooled least, and of those the longest: it shows most."""
    best: dict[tuple[str, int, int], Matrix] = {}
    for matrix in sorted(matrices, key=lambda m: (m.key_pool * m.query_pool, -m.length, m.sample)):
        best.setdefault((matrix.label, matrix.layer, matrix.head), matrix)
    return [matrix for matrix in matrices if matrix in best.values()]


def _visible(matrix: Matrix, cells: np.ndarray, lowest: float) -> np.ma.MaskedArray:
    """Mask what lies in the query's future, which a recorded 0 alone does not tell from a very small p."""
    ends, starts = (np.arange(size) for size in cells.shape)
    future = (starts * matrix.key_pool)[None, :] >= ((ends + 1) * matrix.query_pool)[:, None]
    future &= (cells == 0) & (matrix.kind == "real")
    return np.ma.masked_where(future, np.maximum(cells, lowest / 2))


def _summary(matrix: Matrix, cells: np.ndarray) -> dict[str, object]:
    """Say of one matrix what the eye takes from it: mass on the first keys, and near the diagonal."""
    return {
        "label": matrix.label,
        "layer": matrix.layer,
        "head": matrix.head,
        "sample": matrix.sample,
        "length": matrix.length,
        "query_pool": matrix.query_pool,
        "key_pool": matrix.key_pool,
        "queries": cells.shape[0],
        "first_cell_mass": float(cells[:, 0].mean()),
        "diagonal_mass": float(np.diagonal(cells).mean()) if cells.shape[0] == cells.shape[1] else np.nan,
        "row_sum": float(cells.sum(1).mean()),
    }
