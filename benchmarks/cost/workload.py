"""The workloads that costs are measured on: sizes of a memory, its content, and its queries."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.config import MemoryConfig

SMALL = 8_192
"""Slots up to which the compiled step is measured too: there, calls of small operations are most of the eager one."""
SLOTS = (SMALL, 131_072, 1_048_576)
BATCHES = (16, 256)
KEY_DIMS = (64, 128)
NEIGHBORS = (1, 16, 256)
BATCHES_AT_RANDOM = 128
IN_CLUSTER = 20
SPREAD = np.float32(0.3)
"""Of a cluster, where its center has 1 in each dimension."""

Rows = NDArray[np.float32]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Workload:
    """The size of a memory and of its batches.

    Attributes:
        slots: of the memory, all filled.
        batch: rows of a query.
        key_dim: dimensions of a key.
        neighbors: of a query.
        classes: if given, keys and queries are random, as from an untrained network, and so are their classes, of this many.
            Default: keys in clusters of `IN_CLUSTER`, a class each, and queries near them, half of which hit.
        also_compiled: whether PyTorch's step is measured compiled too.
    """

    slots: int
    batch: int
    key_dim: int
    neighbors: int
    classes: int | None = None
    also_compiled: bool = False

    @property
    def title(self) -> str:
        """The sizes as text, for a table."""
        sizes = f"{self.slots:,} x {self.batch} x {self.key_dim} x {self.neighbors}"
        return sizes if self.classes is None else f"{sizes}, {self.classes} classes at random"

    @property
    def config(self) -> MemoryConfig:
        """The memory's."""
        return MemoryConfig(self.slots, self.key_dim, self.neighbors)

    def data(self) -> tuple[Rows, Labels, Rows, Labels]:
        """Make the content of the memory, and its queries.

        Returns:
            Unit keys [slots, key_dim] and their values [slots]; unit queries [n, batch, key_dim] and their targets [n, batch].
            Queries near clusters can be repeated, so n = 1. A random query hits what its first update wrote when it is
            repeated, so n = `BATCHES_AT_RANDOM` batches take turns.
        """
        generator = np.random.default_rng(0)
        if self.classes is not None:
            queries, targets = self._at_random(generator, BATCHES_AT_RANDOM * self.batch, self.classes)
            shape = BATCHES_AT_RANDOM, self.batch
            return *self._at_random(generator, self.slots, self.classes), queries.reshape(*shape, -1), targets.reshape(shape)
        classes = -(-self.slots // IN_CLUSTER)
        centers = generator.standard_normal((classes, self.key_dim), np.float32)
        values = np.resize(np.arange(classes, dtype=np.int32), self.slots)
        keys = near(generator, centers[values])
        targets = generator.choice(classes, self.batch).astype(np.int32)
        queries = near(generator, centers[targets])
        targets[::2] = generator.integers(classes, 2 * classes, len(targets[::2]))
        return keys, values, queries[None], targets[None]

    def _at_random(self, generator: np.random.Generator, count: int, classes: int) -> tuple[Rows, Labels]:
        rows = near(generator, np.zeros((count, self.key_dim), np.float32))
        return rows, generator.integers(0, classes, count).astype(np.int32)


WORKLOADS = [
    Workload(slots, batch, key_dim, neighbors, also_compiled=slots <= SMALL)
    for batch, slots, key_dim, neighbors in product(BATCHES, SLOTS, KEY_DIMS, NEIGHBORS)
]
WORKLOADS += [Workload(10_000_000, 16, 64, 16), Workload(131_072, 256, 128, 16, classes=500)]


def near(generator: np.random.Generator, centers: Rows) -> Rows:
    """A random unit row near each of these cluster centers."""
    rows = centers + SPREAD * generator.standard_normal(centers.shape, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def full_memory(backend: Any, config: MemoryConfig, keys: Rows, values: Labels, batch: int, seed: int) -> Any:
    """A full state; each step of the past used `batch` slots, in random order."""
    step = config.slots // batch
    ages = np.random.default_rng(seed).permutation(config.slots).astype(np.int32) // batch
    return backend.from_numpy(config, {"keys": keys, "values": values, "ages": ages, "filled": values >= 0, "step": step})
