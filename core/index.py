"""The interface of an approximate index. Use one of your own with `raremem.get_index("package.module:MyIndex")`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Slots = NDArray[np.int32]


class NeighborIndex(Protocol):
    """An approximate index over unit keys [n, key_dim]. It names each key by its slot."""

    def __init__(self, keys: Rows, slots: Slots, seed: int) -> None:
        """Build it. The same input gives the same index."""

    def search(self, queries: Rows, count: int) -> Slots:
        """Slots [B, count or more] that may be nearest to unit queries [B, key_dim], in any order; -1 where there are no more.

        A slot may come twice, or may have another key by now.
        """


@runtime_checkable
class GrowingIndex(NeighborIndex, Protocol):
    """An index to which keys can be added at little cost."""

    def add(self, keys: Rows, slots: Slots) -> None:
        """Add keys. A slot that the index has already may stay under its old key too."""


Build = Callable[[Rows, Slots, int], NeighborIndex]
