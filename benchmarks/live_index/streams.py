"""Streams of keys for a memory that changes at every step: drawn in clusters, or of embedded characters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.cost.workload import IN_CLUSTER, near
from raremem.benchmarks.data.characters import Images
from raremem.benchmarks.data.distortion import distort
from raremem.benchmarks.progress import progress

BATCH = 64
AHEAD = 2**20
"""The first step whose rows are for comparisons: no stream comes to them."""

Rows = NDArray[np.float32]
Ints = NDArray[np.int32]


class KeyStream(Protocol):
    """The keys of a full memory, and the batches that change it."""

    def start(self) -> tuple[Rows, Ints]:
        """The keys of a full memory, and their values."""

    def batch(self, step: int) -> tuple[Rows, Ints]:
        """Rows and targets of a step: half of known values, half of new ones. They depend on the seed and the step alone."""


@dataclass(frozen=True)
class Clusters:
    """A stream of keys in clusters."""

    slots: int
    key_dim: int
    seed: int

    @cached_property
    def centers(self) -> Rows:
        """Of the clusters [n, key_dim]."""
        generator = np.random.default_rng([self.seed, 0])
        return generator.standard_normal((self.slots // IN_CLUSTER, self.key_dim), np.float32)

    def start(self) -> tuple[Rows, Ints]:
        """See `KeyStream`."""
        values = np.resize(np.arange(len(self.centers), dtype=np.int32), self.slots)
        return self._rows(values, 0), values

    def batch(self, step: int) -> tuple[Rows, Ints]:
        """See `KeyStream`."""
        generator = np.random.default_rng([self.seed, 2, step])
        targets = generator.integers(0, len(self.centers), BATCH).astype(np.int32)
        return self._rows(targets, step + 1), _half_new(targets, len(self.centers), step)

    def _rows(self, values: Ints, number: int) -> Rows:
        return near(np.random.default_rng([self.seed, 1, number]), self.centers[values])


@dataclass(frozen=True)
class Drawings:
    """A stream of embedded characters: `rows` [n, key_dim] of `classes` [n].

    The first `slots` fill the memory; half of the others are sent, over and over, and half are for comparisons.
    """

    slots: int
    rows: Rows
    classes: Ints

    def start(self) -> tuple[Rows, Ints]:
        """See `KeyStream`."""
        return self.rows[: self.slots], self.classes[: self.slots]

    def batch(self, step: int) -> tuple[Rows, Ints]:
        """See `KeyStream`."""
        half = (len(self.rows) - self.slots) // BATCH // 2
        first = self.slots + BATCH * (step % half + half * (step >= AHEAD))
        some = slice(first, first + BATCH)
        return self.rows[some], _half_new(self.classes[some], int(self.classes.max()) + 1, step)


def _half_new(targets: Ints, known: int, step: int) -> Ints:
    """Replace every other target by a new value."""
    targets = targets.copy()
    targets[::2] = known + step * BATCH + np.arange(0, BATCH, 2)
    return targets


def draw(embed: Callable[[Images], Rows], images: Images, slots: int, batches: int, seed: int) -> Drawings:
    """The stream of characters [class, example, 28, 28]: each drawing as it is, and distorted as often as need be, mixed."""
    pictures = images.reshape(-1, *images.shape[2:])
    count = slots + batches * BATCH
    generator = np.random.default_rng([seed, 7])
    passes = progress(range(-(-count // len(pictures))), "embedding the stream")
    rows = np.concatenate([embed(distort(generator, pictures) if number else pictures) for number in passes])
    order = generator.permutation(len(rows))[:count]
    return Drawings(slots, rows[order], (order % len(pictures) // images.shape[1]).astype(np.int32))
