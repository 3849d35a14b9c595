"""What is known at a token about each neighbor that the memory gives, and about the network's own answer: the gate sees it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.tasks.translation.notes import Notes
from raremem.benchmarks.tasks.translation.source import Source

Floats = NDArray[np.float32]
Whole = NDArray[np.int32]
TEMPERATURE = 15.0
SMALL = 1e-9
ABSENT = -15.0
"""The rarity of a source word that is not in the sentence."""


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
        neighbors: [T, k, features] of each neighbor.
        context: [T, features] of the token.
        values: [T, k] the tokens that the neighbors stand for.
        there: [T, k] whether there is such a neighbor.
    """

    neighbors: Floats
    context: Floats
    values: Whole
    there: NDArray[np.bool_]

    def part(self, rows: NDArray[np.int64]) -> Evidence:
        """Some of the tokens."""
        return Evidence(self.neighbors[rows], self.context[rows], self.values[rows], self.there[rows])


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
    largest = probabilities.max(1)
    own = np.take_along_axis(probabilities, np.maximum(values, 0), 1)
    agree = (values[:, :, None] == values[:, None, :]) & there[:, None, :]
    weight = np.exp(TEMPERATURE * (similarities - similarities[:, :1])) * there
    each = {
        "similarity": similarities,
        "behind the nearest": similarities[:, :1] - similarities,
        **_of_source_words(source, words, notes.word[slots]),
        "follows what was said": (notes.before[slots][:, :, None] == support[:, None, :]).any(2),
        "same token before": notes.last[slots] == last[:, None],
        "hits": np.log1p(notes.hits[slots]),
        "sentences ago": np.log1p(np.maximum(sentence - notes.recent[slots], 0)),
        "probability by the network": np.log(own + SMALL),
        "neighbors that agree": np.log1p(agree.sum(2)),
        "share of those": (agree * weight[:, None, :]).sum(2) / np.maximum(weight.sum(1, keepdims=True), SMALL),
        "likeliest for the network": own == largest[:, None],
    }
    context = {
        "nearest similarity": similarities[:, 0],
        "largest probability": largest,
        "entropy": -(probabilities * np.log(probabilities + SMALL)).sum(1),
        "rarity of the word attended to": source.rarity[words.argmax(1)],
        "attention on it": words.max(1),
        "nearest is the network's": each["likeliest for the network"][:, 0],
        "neighbors that agree with the nearest": each["neighbors that agree"][:, 0],
        "the memory has the word attended to": each["its source word is the one attended to"].any(1),
    }
    return Evidence(stacked(each) * there[:, :, None], stacked(context), values, there)


def _of_source_words(source: Source, words: Floats, noted: Whole) -> dict[str, NDArray[Any]]:
    """Of the source words [T, k] that the neighbors stand for, by notes: how they fare in this sentence."""
    same = noted[:, :, None] == source.numbers
    here = same.any(2)
    return {
        "attention on its source word": np.minimum((same * words[:, None]).sum(2), 1),
        "its source word is the one attended to": noted == source.numbers[words.argmax(1)][:, None],
        "its source word is here": here,
        "rarity of its source word": source.rarity[same.argmax(2)] * here + ABSENT * ~here,
    }


def stacked(features: dict[str, NDArray[Any]]) -> Floats:
    """Features by name, as the last axis of one array."""
    return np.stack(list(features.values()), -1).astype(np.float32)
