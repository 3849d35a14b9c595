"""Approximate search with faiss: keys in lists by the nearest of some centers, each kept as what it differs from its center by,
in half a byte for two dimensions, to which more keys are added at little cost."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

LISTS_PER_ROOT = 4
PROBED = 32
SAMPLED = 64
"""Keys for each list, of which the centers are learned."""
CODE_BITS = 4
"""Of a code of two dimensions: sixteen codes fit in a register, so that a list is read at the speed of memory."""
WIDER = 2
"""Times as many slots are proposed as are asked for: codes tell near keys apart less well than keys do."""


class Index:
    """See `NeighborIndex`."""

    def __init__(self, keys: NDArray[np.float32], slots: NDArray[np.int32], seed: int) -> None:
        dim = keys.shape[1]
        lists = max(1, min(len(keys) // 40, int(LISTS_PER_ROOT * len(keys) ** 0.5)))
        codes = dim // 2 if dim % 2 == 0 else dim
        centers, inner = faiss.IndexFlatIP(dim), faiss.METRIC_INNER_PRODUCT
        self.index = faiss.IndexIVFPQFastScan(centers, dim, lists, codes, CODE_BITS, inner)
        self.index.by_residual = True
        self.index.nprobe = min(PROBED, lists)
        self.index.implem = 10  # each query by itself: hardly a list is searched for two
        for clustering in (self.index.cp, self.index.pq.cp):
            clustering.seed = seed % 2**31
            clustering.max_points_per_centroid = SAMPLED
            clustering.min_points_per_centroid = 1
        fewest = 2**CODE_BITS
        self.index.train(keys if len(keys) >= fewest else np.resize(keys, (fewest, dim)))
        self.add(keys, slots)

    def search(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int32]:
        """See `NeighborIndex.search`."""
        return self.index.search(queries, WIDER * count)[1].astype(np.int32)

    def add(self, keys: NDArray[np.float32], slots: NDArray[np.int32]) -> None:
        """See `NeighborIndex.add`."""
        self.index.add_with_ids(keys, slots.astype(np.int64))
