"""Reads the analysis's own configuration: conf/analysis.yaml and one yaml per figure."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from analysis.fit import Settings

CONF = Path(__file__).resolve().parents[1] / "conf"


def analysis() -> DictConfig:
    """Return conf/analysis.yaml."""
    return _read(CONF / "analysis.yaml")


def claims() -> DictConfig:
    """Return conf/claims.yaml."""
    return _read(CONF / "claims.yaml")


def figure(name: str) -> DictConfig:
    """Return conf/figure/NAME.yaml."""
    return _read(CONF / "figure" / f"{name}.yaml")


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
    )


def _read(path: Path) -> DictConfig:
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    return config
