"""Approximate search with faiss: keys in lists by the nearest of some centers, to which more keys are added at little cost."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

LISTS_PER_ROOT = 4
PROBED = 16
SAMPLED = 64
"""Keys for each list, of which the centers are learned."""


class Index:
    """See `NeighborIndex`."""

    def __init__(self, keys: NDArray[np.float32], slots: NDArray[np.int32], seed: int) -> None:
        lists = max(1, min(len(keys) // 40, int(LISTS_PER_ROOT * len(keys) ** 0.5)))
        self.centers = faiss.IndexFlatIP(keys.shape[1])
        self.index = faiss.IndexIVFFlat(self.centers, keys.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
        self.index.nprobe = PROBED
        self.index.cp.seed = seed % 2**31
        self.index.cp.max_points_per_centroid = SAMPLED
        self.index.cp.min_points_per_centroid = 1
        self.index.train(keys)
        self.add(keys, slots)

    def search(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int32]:
        """See `NeighborIndex.search`."""
        return self.index.search(np.ascontiguousarray(queries), count)[1].astype(np.int32)

    def add(self, keys: NDArray[np.float32], slots: NDArray[np.int32]) -> None:
        """See `NeighborIndex.add`."""
        self.index.add_with_ids(keys, slots.astype(np.int64))
