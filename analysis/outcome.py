"""The outcome of a study or of a figure."""

from dataclasses import dataclass

from omegaconf import DictConfig

from analysis.stamp import Stamp


@dataclass(frozen=True)
class Outcome:
    """The outcome of one result: `made`, `fresh`, `skipped` for want of records, or `failed`.

    One that was not requested is `not requested` too, `stale` if it is of other records, settings or code than the
    present ones, or `damaged` if its files are not those that were written.
    """

    name: str
    status: str
    reason: str
    config: DictConfig
    stamp: Stamp | None

    @property
    def current(self) -> bool:
        """Tell whether the files on disk are of the present records, settings and code."""
        return self.stamp is not None and self.status in ("made", "fresh", "not requested")
