"""Noticing that something else than our own updates has written to a memory's keys.

What is derived from the keys (a copy in bf16, an index) is told of our own updates. Whatever else writes to them shows in the
framework's count of writes, where it has one and the writer goes through it; in the step; in the rows of the last update, which
whoever replaces the memory by another's (DistributedDataParallel broadcasts buffers past PyTorch's count) takes back; or in a
sample of all rows. What is not noticed is a write past the count to a few other rows, with no update beside it.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

SAMPLED = 128
"""Rows spread over the memory that are compared at every look."""
RECENT = 256
"""Rows of the last update that are compared too, at most."""

Keys = NDArray[np.float32]
Slots = NDArray[np.int32]


class Watch:
    """Remembers some keys [slots, key_dim], and a stamp of all: the count of writes to them, and the memory's step."""

    def __init__(self, keys: Keys, stamp: Hashable) -> None:
        self._sample = np.unique(np.linspace(0, len(keys) - 1, SAMPLED).astype(np.int32))
        self.follow(keys, stamp, self._sample[:0])

    def follow(self, keys: Keys, stamp: Hashable, slots: Slots) -> None:
        """Take for granted what an update of ours has just written to these slots [n]."""
        self._stamp, self._rows = stamp, np.concatenate([self._sample, slots[-RECENT:]])
        self._content = keys[self._rows]

    def holds(self, keys: Keys, stamp: Hashable) -> bool:
        """Whether keys and stamp are as they were, as far as is seen."""
        return stamp == self._stamp and np.array_equal(keys[self._rows].view(np.int32), self._content.view(np.int32))
