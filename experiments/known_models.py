"""Models by the names that people know, where their files are called otherwise."""

from __future__ import annotations

NAMES = {"SmolLM2-135M-Instruct.Q4_1": "SmolLM2-135M"}  # by the name of the file, without its ending


def known_as(label: str) -> str:
    """Return a label with its model's name as people know it; what follows a comma is the text's.

    >>> known_as("SmolLM2-135M-Instruct.Q4_1, King James Bible")
    'SmolLM2-135M, King James Bible'
    """
    model, comma, text = label.partition(", ")
    return f"{NAMES.get(model, model)}{comma}{text}"
