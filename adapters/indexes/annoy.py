"""Approximate search with annoy: random projection trees, which cannot change once built.

annoy takes one query at a time, so a batch is a loop here.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from annoy import AnnoyIndex
from numpy.typing import NDArray

from raremem.errors import MissingPackageError

TREES = 20
LOOKED_AT = 8000
"""Keys that a search compares, at least."""


class Index:
    """See `NeighborIndex`."""

    def __init__(self, keys: NDArray[np.float32], slots: NDArray[np.int32], seed: int) -> None:
        _check_this_build()
        self.slots = slots
        self.index = _trees(keys, TREES, seed)

    def search(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int32]:
        """See `NeighborIndex.search`."""
        found = np.full((len(queries), count), -1, np.int32)
        for row, query in enumerate(queries.tolist()):
            places = self.index.get_nns_by_vector(query, count, max(LOOKED_AT, TREES * count))
            found[row, : len(places)] = self.slots[places]
        return found


def _trees(keys: NDArray[np.float32], trees: int, seed: int) -> AnnoyIndex:
    """Trees over these keys, built in one thread. With more threads the answers depend on the number of cores."""
    index = AnnoyIndex(keys.shape[1], "angular")
    index.set_seed(seed % 2**31)
    for place, key in enumerate(keys):
        index.add_item(place, key.tolist())
    index.build(trees, 1)
    return index


@cache
def _check_this_build() -> None:
    """Check that more than one neighbor is found. Some builds of annoy find one, however many are asked for."""
    found = _trees(np.eye(8, dtype=np.float32), 4, 1).get_nns_by_vector([1.0] * 8, 8, 1000)
    if len(found) < 8:
        raise MissingPackageError(
            f"this build of annoy finds {len(found)} of 8 neighbors; expected all. "
            "Build it here: pip install --force-reinstall --no-binary annoy annoy"
        )
