"""The words of a source sentence, as the memory's notes know them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.data.corpus import END

Words = list[list[int]]
"""The words of a sentence, each as its tokens."""


SIGNATURE = 64
ALWAYS = 10**6
"""How often the end was seen."""


def rarity(seen: int) -> float:
    """Of a word that was seen so often in training: 0 if never, else less."""
    return -float(np.log1p(seen))


def random_rows(tokens: int) -> NDArray[np.float32]:
    """Random rows [tokens, SIGNATURE], the same ones always."""
    return np.random.default_rng(5).normal(size=(tokens, SIGNATURE)).astype(np.float32)


@dataclass(frozen=True)
class Source:
    """A sentence to be translated.

    Attributes:
        tokens: [S] with the end.
        place: [S] which of its words each token belongs to; the end is a word.
        numbers: [W] the number of each word.
        rarity: [W] of each.
        signatures: [W, SIGNATURE] what tells one word from another: the mean of random rows, one for each of its tokens.
    """

    tokens: NDArray[np.int32]
    place: NDArray[np.int32]
    numbers: NDArray[np.int32]
    rarity: NDArray[np.float32]
    signatures: NDArray[np.float32]

    def by_word(self, attention: NDArray[np.float32]) -> NDArray[np.float32]:
        """How much of each word [T, W], from how much of each token [T, S]."""
        return attention @ (self.place[:, None] == np.arange(len(self.numbers))).astype(np.float32)


@dataclass
class SourceWords:
    """Numbers for source words, as they come.

    Attributes:
        seen: how often each word stands in the training text.
        rows: [tokens, SIGNATURE] random.
    """

    seen: Counter[tuple[int, ...]]
    rows: NDArray[np.float32]
    numbers: dict[tuple[int, ...], int] = field(default_factory=dict)

    def source(self, words: Words) -> Source:
        """A sentence of these words."""
        words = [*words, [END]]
        keys = [tuple(word) for word in words]
        return Source(
            np.array([token for word in words for token in word], np.int32),
            np.repeat(np.arange(len(words)), [len(word) for word in words]).astype(np.int32),
            np.array([self.numbers.setdefault(key, len(self.numbers)) for key in keys], np.int32),
            np.array([rarity(self.seen[key] if key != (END,) else ALWAYS) for key in keys], np.float32),
            np.stack([self.rows[word].mean(0) for word in words]),
        )


def tokens_of(target: Words) -> NDArray[np.int32]:
    """The tokens of these words, and the end."""
    return np.array([*(token for word in target for token in word), END], np.int32)
