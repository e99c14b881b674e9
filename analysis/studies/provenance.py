"""What a study's tables are made of, and whether those on disk are of it."""

from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from analysis import settings, stamp
from analysis.records.evidence import Records, bearing
from analysis.stamp import Stamp

REPORT_ONLY = ("headline_eta",)  # keys of conf/analysis.yaml that no study reads


def owners(tables: Iterable[str]) -> list[str]:
    """Return the studies that make some tables, sorted.

    Raises
    ------
    KeyError : if no study makes one of them.
    """
    home = {table: name for name in settings.studies() for table in settings.study(name).tables}
    return sorted({home[table] for table in tables})


def stamp_of(name: str, config: DictConfig, records: Records) -> Stamp:
    """Stamp a study: its import closure, its configuration, and the runs on which it may rest."""
    shared = {key: value for key, value in settings.analysis().items() if key not in REPORT_ONLY}
    merged = OmegaConf.merge(OmegaConf.create(shared), config)
    assert isinstance(merged, DictConfig)
    runs = bearing(config, records)
    return stamp.make(
        "python -m analysis",
        merged,
        f"analysis.studies.{name}",
        {run.id: run.digest for run in runs},
        {run.id: run.label for run in runs},
    )


def stamp_path(name: str, outputs: Path) -> Path:
    """Return where a study's stamp lies."""
    return outputs / "tables" / f"{name}.json"


def files(config: DictConfig, outputs: Path) -> list[Path]:
    """List the tables of a study on disk."""
    return [outputs / "tables" / f"{table}.csv" for table in config.tables]
