"""Approximate search with faiss: an inverted file with product quantization, to which keys can be added at little cost.

Each key is in the list of the nearest center. Its difference from that center is stored, in half a byte for two dimensions.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

LISTS_PER_ROOT = 4
"""Lists, for the square root of the number of keys."""
PROBED = 32
"""Lists that are searched for a query."""
SAMPLED = 64
"""Keys for each list from which the centers are learned."""
CODE_BITS = 4
"""Bits for two dimensions: the table of sixteen codes fits in a register, and a list is read at the speed of memory."""
WIDER = 2
"""Slots proposed for each one asked for: codes separate near keys less well than the keys themselves do."""


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
        self.index.implem = 10  # a query at a time: two queries seldom search the same list
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
