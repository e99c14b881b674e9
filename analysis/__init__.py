"""From records to tables, figures and a report. Nothing here measures: every number is read from a record."""

from analysis import interrupt  # first: it takes Ctrl-C during the other imports
from analysis.load import load

__all__ = ["interrupt", "load"]
