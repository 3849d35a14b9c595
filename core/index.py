"""What an approximate index is: write one of your own, and `raremem.get_index("package.module:MyIndex")` follows a memory by
it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Slots = NDArray[np.int32]


class NeighborIndex(Protocol):
    """An approximate index over unit keys [n, key_dim], known by their slots [n]."""

    def __init__(self, keys: Rows, slots: Slots, seed: int) -> None:
        """Build it. The same input gives the same index."""

    def search(self, queries: Rows, count: int) -> Slots:
        """Slots [B, count or more] that may be nearest to unit queries [B, key_dim], in any order; -1 where there are no more.

        A slot may come twice, or may have another key by now.
        """


@runtime_checkable
class GrowingIndex(NeighborIndex, Protocol):
    """An index that takes more keys in at little cost."""

    def add(self, keys: Rows, slots: Slots) -> None:
        """Take more keys in. A slot that was there before may stay under its old key too."""


Build = Callable[[Rows, Slots, int], NeighborIndex]
