"""The fit tables, made anew only when their records, settings or code have changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from analysis import fit, save, settings, stamp
from analysis.load import Run
from experiments.errors import UserError

NAMES = ("fits", "fits_pooled", "laws")


@dataclass(frozen=True)
class Fits:
    """Fits per head, pooled over heads, and the share of heads per law; `fresh` if found on disk."""

    heads: pd.DataFrame
    pooled: pd.DataFrame
    laws: pd.DataFrame
    fresh: bool


def fits(rows: pd.DataFrame, runs: Sequence[Run], folder: Path, config: DictConfig, force: bool) -> Fits:
    """Return the fit tables, from `folder` if they are fresh, else made and written there.

    They are read back from the csv in either case, so that what is drawn never depends on which it was.
    """
    used = set(rows["run"].unique())
    made = stamp.make("python -m analysis --force", [config], [], [run for run in runs if run.id in used])
    path, results = folder / "fits.json", [folder / f"{name}.csv" for name in NAMES]
    found = stamp.read(path)
    fresh = bool(not force and found and made.matches(found) and found.whole(results))
    if not fresh:
        how = settings.fits(config)
        by_head = fit.fit_heads(rows, how)
        tables = (by_head, fit.fit_pooled(rows, how), fit.share_of_laws(by_head, config.clear_lead))
        for name, table in zip(NAMES, tables, strict=True):
            save.write_csv(table, folder, name)
        made.write(path, results)
    heads, pooled, laws = (save.read_csv(folder, name) for name in NAMES)
    if not all("label" in table for table in (heads, pooled, laws)):
        raise UserError(f"{folder}: a fit table is damaged; run python -m analysis --force to make it anew")
    return Fits(heads, pooled, laws, fresh)
