"""From records to tables, figures and a report. Nothing here measures: every number is read from a record."""

from analysis.load import load

__all__ = ["load"]
