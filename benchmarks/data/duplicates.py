"""Which lines of a text hardly differ from an earlier one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.data.corpus import words

Hashes = NDArray[np.uint64]
Lines = NDArray[np.int64]


def near_duplicates(lines: list[str]) -> NDArray[np.bool_]:
    """Whether each line differs from an earlier one by at most one word: inserted, left out, or another in its place.

    Words are compared as they are written, without the punctuation between them. So of lines of one word only the first is new.

    Two lines are such if they are alike, or if one is the other without a word, or if both are alike without the word at one
    place. So all lines are compared by hashes of 64 bits, of the line and of the line without each of its words, and the time
    grows with the number of words. A wrong match has a chance of about 2**-64 for each pair of hashes.

    Returns:
        [lines] bool.
    """
    rows = [words(line) for line in lines]
    lengths = np.array([len(row) for row in rows], int)
    numbers: dict[str, int] = {}
    word = np.array([numbers.setdefault(each, len(numbers)) for row in rows for each in row], int)
    line = np.repeat(np.arange(len(rows)), lengths)
    place = np.arange(len(word)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    whole, without, gaps = _hashes(word, line, place, lengths)
    own = np.arange(len(rows))
    near = _earliest(whole, own, whole) < own
    near |= _earliest(without, line, whole) < own
    near[line[_earliest(whole, own, without) < line]] = True
    near[line[_earliest(gaps, line, gaps) < line]] = True
    return near


def _hashes(word: Lines, line: Lines, place: Lines, lengths: Lines) -> tuple[Hashes, Hashes, Hashes]:
    """Of each line; of the line without each word, closed up; and of the line with a gap at each word.

    The hash of a line is the sum of a random number of each word times one of its place, modulo 2**64.
    """
    generator = np.random.default_rng(0)

    def drawn(size: int) -> Hashes:
        return generator.integers(0, 2**64, size, np.uint64)

    by_word, by_place = drawn(int(word.max(initial=0)) + 1), drawn(int(lengths.max(initial=0)) + 1)
    there, closed_up = by_word[word] * by_place[place + 1], by_word[word] * by_place[place]
    starts = np.cumsum(lengths) - lengths
    before = _sums(there)[:-1] - _sums(there)[starts][line]
    after = _sums(closed_up)[starts + lengths][line] - _sums(closed_up)[1:]
    total = _sums(there)[starts + lengths] - _sums(there)[starts]
    return total, before + after, total[line] - there


def _sums(terms: Hashes) -> Hashes:
    """Of the terms before each, and of all."""
    return np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])


def _earliest(hashes: Hashes, line: Lines, asked: Hashes) -> Lines:
    """For each hash that is asked for the first line that has it; the largest number, if none has."""
    order = np.lexsort((line, hashes))
    ordered = hashes[order]
    spot = np.searchsorted(ordered, asked)
    there = spot < len(ordered)
    there[there] = ordered[spot[there]] == asked[there]
    first = np.full(len(asked), np.iinfo(np.int64).max)
    first[there] = line[order][spot[there]]
    return first
