"""Reads the analysis's own configuration: conf/analysis.yaml, conf/claims.yaml, a yaml per study and per figure."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

CONF = Path(__file__).resolve().parents[1] / "conf"


@dataclass(frozen=True)
class Settings:
    """How to fit; conf/analysis.yaml says why each value is what it is."""

    etas: tuple[float, ...]
    seed: int
    resamples: int
    confidence: float
    min_lengths: int
    at_one: float
    at_n: float
    clear_lead: float


def analysis() -> DictConfig:
    """Return conf/analysis.yaml."""
    return _read(CONF / "analysis.yaml")


def claims() -> DictConfig:
    """Return conf/claims.yaml."""
    return _read(CONF / "claims.yaml")


def study(name: str) -> DictConfig:
    """Return conf/study/NAME.yaml."""
    return _read(CONF / "study" / f"{name}.yaml")


def figure(name: str) -> DictConfig:
    """Return conf/figure/NAME.yaml."""
    return _read(CONF / "figure" / f"{name}.yaml")


def studies() -> list[str]:
    """Names of all studies, from conf/study, sorted."""
    return sorted(path.stem for path in (CONF / "study").glob("*.yaml"))


def figures() -> list[str]:
    """Names of all figures, from conf/figure, in the order of reading."""
    return sorted((path.stem for path in (CONF / "figure").glob("*.yaml")), key=lambda name: figure(name).order)


def fits(config: DictConfig) -> Settings:
    """Take from conf/analysis.yaml what the fits need."""
    return Settings(
        etas=tuple(config.etas),
        seed=config.seed,
        resamples=config.resamples,
        confidence=config.confidence,
        min_lengths=config.min_lengths,
        at_one=config.censored.at_one,
        at_n=config.censored.at_n,
        clear_lead=config.clear_lead,
    )


@cache
def _read(path: Path) -> DictConfig:
    """Read a file once; what it says may not be changed."""
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    OmegaConf.set_readonly(config, True)
    return config
