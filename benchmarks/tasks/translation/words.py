"""Words that training never had: whether a translation says them, by how often and how long ago the stream had shown them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.data.corpus import words
from raremem.benchmarks.task import Table

Numbers = NDArray[np.int64]
Groups = tuple[tuple[int, int | None], ...]

TIMES: Groups = ((0, 0), (1, 1), (2, 2), (3, 5), (6, 20), (21, None))
"""First and last of how often a word had been shown."""
TIMES_NAMES = ["never", "once", "twice", "3-5 times", "6-20 times", "over 20 times"]
LAGS: Groups = ((1, 10), (11, 100), (101, 1_000), (1_001, 10_000))
"""First and last of how many sentences ago it was shown."""
LAGS_NAMES = [f"{low:,} to {high:,}" for low, high in LAGS]


@dataclass(frozen=True)
class NewWords:
    """Each new word of each sentence of a stream: a row, in the order of the sentences. Arrays are [rows].

    Attributes:
        words: the word.
        sentence: the number of the sentence whose reference has it.
        due: how often it stands there.
        said: how many of these the translation has.
        shown: how often it stood in the references of earlier sentences.
        ago: how many sentences ago the last of those was, 1 for the sentence before; 0 if there was none.
    """

    words: list[str]
    sentence: Numbers
    due: Numbers
    said: Numbers
    shown: Numbers
    ago: Numbers


class Learned(NamedTuple):
    """A word, the number of the sentence that first showed it, and of the first that it was said in after that."""

    word: str
    shown_in: int
    said_in: int


def follow(seen: Counter[str], references: Sequence[str], translations: Sequence[str]) -> NewWords:
    """Follow the words that training never had through a stream.

    A word is said if its sentence's translation has it, as often as it is there: as `corpus.word_recall` counts. For what is
    right given the reference's tokens before, a "translation" is the words of the reference that are right in all their tokens,
    with spaces between them.

    Args:
        seen: how often each word stands in the training text (`corpus.word_counts`).
        references: of the stream's sentences, in order.
        translations: of the same sentences.

    Raises:
        ValueError: there are not as many of both.
    """
    rows: list[tuple[str, int, int, int, int, int]] = []
    shown, last = Counter[str](), dict[str, int]()
    for sentence, (reference, translation) in enumerate(zip(references, translations, strict=True)):
        given = Counter(words(translation))
        asked = {word: due for word, due in Counter(words(reference)).items() if not seen[word]}
        for word, due in asked.items():
            ago = sentence - last[word] if word in last else 0
            rows.append((word, sentence, due, min(due, given[word]), shown[word], ago))
        shown.update(asked)
        last.update(dict.fromkeys(asked, sentence))
    numbers = np.array([row[1:] for row in rows], np.int64).reshape(len(rows), 5)
    return NewWords([word for word, *_ in rows], *numbers.T)


def by_times(found: NewWords, left_out: NDArray[np.bool_] | None = None) -> list[dict[str, Any]]:
    """By how often they had been shown (`TIMES`): how many words were due, and the % of them that were said.

    Args:
        found: the words.
        left_out: [sentences] bool, such as `near_duplicates` of the references: sentences whose words do not count here. They
            have shown their words all the same.
    """
    return _grouped(found, found.shown, TIMES, _counting(found, left_out))


def by_lag(found: NewWords, left_out: NDArray[np.bool_] | None = None) -> list[dict[str, Any]]:
    """The same of words shown once, by how many sentences ago (`LAGS`)."""
    return _grouped(found, found.ago, LAGS, _counting(found, left_out) & (found.shown == 1))


def shown_once(seen: Counter[str], references: Sequence[str]) -> list[int]:
    """The sentences in which a new word is due that was shown once before."""
    found = follow(seen, references, [""] * len(references))
    return sorted(set(found.sentence[found.shown == 1].tolist()))


def learned(found: NewWords) -> list[Learned]:
    """The words that were said after they had been shown, and never before, in the order in which they were said."""
    firsts: dict[str, int] = {}
    said: dict[str, Learned | None] = {}
    for row, word in enumerate(found.words):
        sentence = int(found.sentence[row])
        first = firsts.setdefault(word, sentence)
        if found.said[row] and word not in said:
            said[word] = Learned(word, first, sentence) if found.shown[row] else None
    return [word for word in said.values() if word is not None]


def table_of(title: str, names: list[str], groups: dict[str, list[dict[str, Any]]]) -> Table:
    """A row of percentages for each translator, and a last one of how many words were due.

    Args:
        title: of the first column.
        names: of the groups: `TIMES_NAMES` or `LAGS_NAMES`.
        groups: by translator, what `by_times` or `by_lag` found in the same sentences.
    """
    rows = [
        [name, *("-" if group["percent"] is None else f"{group['percent']:.1f}" for group in row)]
        for name, row in groups.items()
    ]
    return [[title, *names], *rows, ["words", *(f"{group['words']:,}" for group in next(iter(groups.values())))]]


def _counting(found: NewWords, left_out: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """[rows] bool: those of sentences that count."""
    return np.ones(len(found.words), bool) if left_out is None else ~left_out[found.sentence]


def _grouped(found: NewWords, by: Numbers, groups: Groups, counting: NDArray[np.bool_]) -> list[dict[str, Any]]:
    told = []
    for low, high in groups:
        rows = counting & (by >= low) & (by <= (np.iinfo(np.int64).max if high is None else high))
        due, said = int(found.due[rows].sum()), int(found.said[rows].sum())
        told.append({"words": due, "percent": 100 * said / due if due else None})
    return told
