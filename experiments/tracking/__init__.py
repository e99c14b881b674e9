"""Mirrors of the records for people to watch. A tracker never decides whether a record is kept."""
