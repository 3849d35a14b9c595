"""Detects writes to a memory's keys by anything else than the memory's own updates.

A bf16 copy of the keys, or an index, is told of the memory's updates. Other writes are detected in four ways: by the
framework's count of writes to an array, if it has one; by the memory's step; by the rows of the last update; and by a sample of
all rows. The last two catch a memory that is replaced by another without being counted, as when DistributedDataParallel
broadcasts buffers. A write that is not counted, goes to a few other rows and changes no step is not detected.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

SAMPLED = 128
"""Rows spread over the memory that are compared at every check."""
RECENT = 256
"""Rows of the last update that are compared too, at most."""

Keys = NDArray[np.float32]
Slots = NDArray[np.int32]


class Watch:
    """A copy of some rows of the keys [slots, key_dim], and their stamp: the count of writes to them, and the memory's step."""

    def __init__(self, keys: Keys, stamp: Hashable) -> None:
        self._sample = np.unique(np.linspace(0, len(keys) - 1, SAMPLED).astype(np.int32))
        self.follow(keys, stamp, self._sample[:0])

    def follow(self, keys: Keys, stamp: Hashable, slots: Slots) -> None:
        """Take over the keys and the stamp as they are after the memory's own update of these slots [n]."""
        self._stamp, self._rows = stamp, np.concatenate([self._sample, slots[-RECENT:]])
        self._content = keys[self._rows]

    def holds(self, keys: Keys, stamp: Hashable) -> bool:
        """Whether the stamp and the watched rows are unchanged."""
        return stamp == self._stamp and np.array_equal(keys[self._rows].view(np.int32), self._content.view(np.int32))
