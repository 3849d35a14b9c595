"""What is known at a token about each neighbor that the memory gives, and about the network's own answer: the gate sees it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.tasks.translation.lexicon import MOST
from raremem.benchmarks.tasks.translation.notes import Notes
from raremem.benchmarks.tasks.translation.source import Source

Floats = NDArray[np.float32]
Whole = NDArray[np.int32]
NEIGHBOR_FEATURES = (
    "similarity", "behind the nearest", "attention on its source word", "its source word is the one attended to",
    "its source word is here", "rarity of its source word", "follows what was said", "same token before", "hits",
    "sentences ago", "probability by the network", "neighbors that agree", "similarity of those",
    "likeliest for the network",
)  # fmt: skip
CONTEXT_FEATURES = (
    "nearest similarity", "largest probability", "entropy", "rarity of the word attended to", "attention on it",
    "nearest is the network's", "neighbors that agree with the nearest", "the memory has the word attended to",
)  # fmt: skip
TEMPERATURE = 15.0
SMALL = 1e-9


class Neighbors(NamedTuple):
    """What the memory gave at T tokens: values, slots and similarities, each [T, k]; slot -1: none."""

    values: Whole
    slots: Whole
    similarities: Floats

    def part(self, rows: slice) -> Neighbors:
        """Those at some of the tokens."""
        return Neighbors(self.values[rows], self.slots[rows], self.similarities[rows])

    def followed_by(self, other: Neighbors) -> Neighbors:
        """These, and others after them."""
        joined = (np.concatenate(pair) for pair in zip(self, other, strict=True))
        return Neighbors(*joined)


class Evidence(NamedTuple):
    """Of T tokens.

    Attributes:
        neighbors: [T, k, NEIGHBOR_FEATURES].
        context: [T, CONTEXT_FEATURES].
        values: [T, k] the tokens that the neighbors stand for.
        there: [T, k] whether there is such a neighbor.
    """

    neighbors: Floats
    context: Floats
    values: Whole
    there: NDArray[np.bool_]


def agreeing(neighbors: Neighbors, said: Whole) -> Whole:
    """The slots [T, k] of the neighbors that stand for the tokens [T] that were said; -2 for others."""
    return np.where(neighbors.values == said[:, None], neighbors.slots, -2).astype(np.int32)


def evidence(
    source: Source,
    probabilities: Floats,
    words: Floats,
    neighbors: Neighbors,
    notes: Notes,
    last: Whole,
    support: Whole,
    sentence: int,
) -> Evidence:
    """What is known at T tokens.

    Args:
        source: the sentence.
        probabilities: [T, tokens] by the network.
        words: [T, W] how much of each source word is attended to.
        neighbors: what the memory gave.
        notes: of its slots.
        last: [T] the token before.
        support: [T, k] the slots that spoke for the token before; -2: none.
        sentence: its number.
    """
    values, slots, similarities = neighbors
    there = slots >= 0
    main = words.argmax(1)
    same = notes.word[slots][:, :, None] == source.numbers
    own = np.take_along_axis(probabilities, np.maximum(values, 0), 1)
    agree = (values[:, :, None] == values[:, None, :]) & there[:, None, :]
    weight = np.exp(TEMPERATURE * (similarities - similarities[:, :1])) * there
    largest = probabilities.max(1)
    rarity = source.rarity[same.argmax(2)] * same.any(2) - 15.0 * ~same.any(2)
    spoken = (same * words[:, None]).sum(2)
    is_attended = notes.word[slots] == source.numbers[main][:, None]
    agreement = np.log1p(agree.sum(2))
    is_likeliest = own == largest[:, None]
    each = [
        similarities,
        similarities[:, :1] - similarities,
        np.minimum(spoken, 1),
        is_attended,
        same.any(2),
        rarity,
        (notes.before[slots][:, :, None] == support[:, None, :]).any(2),
        notes.last[slots] == last[:, None],
        np.log1p(notes.hits[slots]),
        np.log1p(np.maximum(sentence - notes.recent[slots], 0)),
        np.log(own + SMALL),
        agreement,
        (agree * weight[:, None, :]).sum(2) / np.maximum(weight.sum(1, keepdims=True), SMALL),
        is_likeliest,
    ]
    whole = [
        similarities[:, 0],
        largest,
        -(probabilities * np.log(probabilities + SMALL)).sum(1),
        source.rarity[main],
        words.max(1),
        is_likeliest[:, 0],
        agreement[:, 0],
        is_attended.any(1),
    ]
    return Evidence(
        np.stack(each, 2).astype(np.float32) * there[:, :, None], np.stack(whole, 1).astype(np.float32), values, there
    )


def joined(seen: Evidence, each: Floats, values: Whole) -> Evidence:
    """The evidence, and behind it that of `MOST` candidates of the memory of words. The features of the other kind are 0."""
    rows, neighbors, known = seen.neighbors.shape
    columns = neighbors + MOST
    features = np.zeros((rows, columns, known + each.shape[2]), np.float32)
    features[:, :neighbors, :known] = seen.neighbors
    features[:, neighbors : neighbors + each.shape[1], known:] = each
    all_values, there = np.full((rows, columns), -1, np.int32), np.zeros((rows, columns), np.bool_)
    all_values[:, :neighbors], there[:, :neighbors] = seen.values, seen.there
    all_values[:, neighbors : neighbors + each.shape[1]], there[:, neighbors : neighbors + each.shape[1]] = values, True
    return Evidence(features, seen.context, all_values, there)
