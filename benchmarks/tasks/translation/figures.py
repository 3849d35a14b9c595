"""The figures of a stream: BLEU along it, words that training never had, tokens given the reference's before them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.data.bleu import bleu
from raremem.benchmarks.tasks.translation.engine import Sentence, Spoken
from raremem.benchmarks.tasks.translation.material import Prepared
from raremem.benchmarks.tasks.translation.source import Words
from raremem.benchmarks.tasks.translation.words import TIMES, by_lag, by_times, follow, learned

PIECES = 10
"""Of the curve of BLEU along a stream."""


def measure(
    prepared: Prepared, stream: list[Sentence], references: list[str], spoken: Spoken, repeated: NDArray[np.bool_]
) -> dict[str, Any]:
    """All figures of what one system made of a stream.

    Args:
        prepared: the text.
        stream: its sentences.
        references: their translations.
        spoken: what the system made of them.
        repeated: [sentences] whether each is a near-duplicate of an earlier one.
    """
    translations = prepared.decoded(spoken.said)
    free = follow(prepared.seen, references, translations)
    told = [right_words(prepared, sentence.target, right) for sentence, right in zip(stream, spoken.right, strict=True)]
    given = follow(prepared.seen, references, told)
    quarter = 3 * len(references) // 4
    return {
        "bleu": bleu(translations, references),
        "last quarter": bleu(translations[quarter:], references[quarter:]),
        "bleu without near-duplicates": bleu(*without(translations, references, repeated)),
        "last quarter without near-duplicates": bleu(
            *without(translations[quarter:], references[quarter:], repeated[quarter:])
        ),
        "curve": [
            bleu([translations[row] for row in rows], [references[row] for row in rows])
            for rows in np.array_split(np.arange(len(references)), min(PIECES, len(references)))
        ],
        "tokens": 100 * float(np.mean([right for row in spoken.right for right in row])),
        "words": by_times(free),
        "words without near-duplicates": by_times(free, repeated),
        "words by lag": by_lag(free),
        "words given": by_times(given),
        "words given by lag": by_lag(given),
        "tokens given": tokens_by_times(prepared, stream, spoken.right),
        "learned": [list(word) for word in learned(free)],
    }


def without(translations: list[str], references: list[str], repeated: NDArray[np.bool_]) -> tuple[list[str], list[str]]:
    """The lines that are no near-duplicates; all of them if there is no other."""
    kept = np.flatnonzero(~repeated) if not repeated.all() else np.arange(len(repeated))
    return [translations[row] for row in kept], [references[row] for row in kept]


def right_words(prepared: Prepared, target: Words, right: list[bool]) -> str:
    """The words of a reference all of whose tokens are right, with a space where one is not."""
    runs: list[list[int]] = [[]]
    place = 0
    for word in target:
        if all(right[place : place + len(word)]):
            runs[-1] += word
        else:
            runs.append([])
        place += len(word)
    return " ".join(prepared.decoded(runs))


def tokens_by_times(prepared: Prepared, stream: list[Sentence], right: list[list[bool]]) -> list[dict[str, Any]]:
    """Tokens of words that training never had, right given those before, by how often the stream had shown the word."""
    shown, due, found = Counter[tuple[int, ...]](), np.zeros(len(TIMES), int), np.zeros(len(TIMES), int)
    for sentence, row in zip(stream, right, strict=True):
        place = 0
        for word in map(tuple, sentence.target):
            if not prepared.text.counts[word]:
                group = next(number for number, (_, high) in enumerate(TIMES) if high is None or shown[word] <= high)
                due[group] += len(word)
                found[group] += sum(row[place : place + len(word)])
            place += len(word)
        shown.update(map(tuple, sentence.target))
    return [{"words": int(d), "percent": 100 * float(f / d) if d else None} for f, d in zip(found, due, strict=True)]
