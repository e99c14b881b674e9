"""Lists of words that no text has: drawn from syllables, so that none is more familiar to a model than another."""

from __future__ import annotations

from experiments.errors import UserError
from experiments.lazy import np
from experiments.tasks import Encode

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
SYLLABLES = 3
MOST_WORDS = (len(CONSONANTS) * len(VOWELS)) ** SYLLABLES
TRIED = 50  # words by which the tokens of one are estimated


def draw_words(count: int, rng: np.random.Generator) -> list[str]:
    """Return so many different words."""
    syllables = [consonant + vowel for consonant in CONSONANTS for vowel in VOWELS]
    numbers = rng.choice(MOST_WORDS, count, replace=False)
    base = len(syllables)
    return [syllables[n // base**2] + syllables[n // base % base] + syllables[n % base] for n in numbers.tolist()]


def entries_in(room: int, encode: Encode, rng: np.random.Generator) -> int:
    """Return about how many entries of a numbered list have room."""
    tokens = sum(len(encode(entry(99, word))) for word in draw_words(TRIED, rng))
    return int(room * TRIED / tokens)


def entry(number: int, word: str) -> str:
    """Return one line of a numbered list."""
    return f"\n{number}. {word}"


def listed(words: list[str], filler: list[int], room: int, encode: Encode) -> tuple[list[int], list[str]]:
    """Return `room` tokens, a text and behind it the list, and the words of the list: as many as have room.

    Raises
    ------
    UserError
        If not even one has.
    """
    tokens: list[int] = []
    used = 0
    for used, word in enumerate(words):
        line = encode(entry(used + 1, word))
        if len(tokens) + len(line) > room:
            break
        tokens += line
    else:
        used = len(words)
    if not used:
        raise UserError("source.lengths is too short for a list of words and a question: give longer lengths")
    return filler[: room - len(tokens)] + tokens, words[:used]
