"""Pieces spread over a text."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.errors import UserError


def spread(filler: list[int], pieces: Sequence[list[int]], depths: Sequence[float], room: int) -> list[int]:
    """Return `room` tokens: the start of a text with each piece at its share of it.

    Parameters
    ----------
    filler
        Tokens of the text.
    pieces
        Tokens that are put between them; of equal depths the first comes first.
    depths
        0 for the start of the text, 1 for its end.

    Raises
    ------
    UserError
        If the pieces leave no room for the text.
    """
    hay = room - sum(map(len, pieces))
    if hay < 1:
        raise UserError(
            f"source.lengths is too short: beside question and answer {max(room, 0)} tokens are left, and what is put "
            f"into the text has {room - hay}; give longer lengths, or ask for less"
        )
    context, used = [], 0
    for depth, piece in sorted(zip(depths, pieces, strict=True), key=lambda pair: pair[0]):
        context += filler[used : round(depth * hay)] + piece
        used = round(depth * hay)
    return context + filler[used:hay]
