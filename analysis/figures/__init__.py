"""One script per figure, and a yaml of the same name in conf/figure/. Figures draw tables: they fit nothing.

A script defines `draw(tables, config) -> Figure`, of the tables that its yaml `reads`, and raises `NothingToDraw` where
they hold nothing of what the yaml shows. What several figures share is in `analysis.figures.page`.
"""


class NothingToDraw(Exception):
    """The tables hold nothing of what the figure shows; the message says in one line what is missing."""
