"""What is noted beside each slot of the memory: where its token stood. The memory holds the key and the token itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Slots = NDArray[np.int32]


class Notes:
    """Arrays by slot, that follow the memory's reports: a slot that is taken by another token has that token's notes.

    Args:
        slots: of the memory.

    Attributes:
        word: the source word that was attended to, as a number; -1: nothing was written.
        before: the slot of the token before, -1 at the start of a sentence.
        last: the token before.
        first: the sentence that the token first came from.
        recent: the sentence that it came from last.
        hits: how often it came again.
    """

    def __init__(self, slots: int) -> None:
        self.word, self.before, self.last, self.first, self.recent = (np.full(slots, -1, np.int32) for _ in range(5))
        self.hits = np.zeros(slots, np.int32)

    def write(self, slots: Slots, hit: NDArray[np.bool_], words: Slots, last: Slots, sentence: int) -> None:
        """Note the tokens [T] of a sentence, in order.

        Args:
            slots: [T] where each went, -1: nowhere.
            hit: [T] whether it was there already.
            words: [T] the source word attended to.
            last: [T] the token before.
            sentence: its number.
        """
        before = np.concatenate([[-1], slots[:-1]]).astype(np.int32)
        there = slots >= 0
        new = slots[there & ~hit]
        self.first[new], self.hits[new] = sentence, 0
        np.add.at(self.hits, slots[there & hit], 1)
        for array, values in ((self.word, words), (self.before, before), (self.last, last)):
            array[slots[there]] = values[there]
        self.recent[slots[there]] = sentence
