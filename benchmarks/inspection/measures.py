"""How full a memory is, by value, age and hits, and which slots would go next."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raremem.backend import ArrayBackend
from raremem.benchmarks.inspection.content import Content
from raremem.registry import get_backend
from raremem.rules.eviction import free_slots
from raremem.rules.noise import age_noise
from raremem.rules.plan import UpdatePlan
from raremem.state import quietly

Slots = NDArray[np.int32]


class Values(NamedTuple):
    """The values that a memory holds, the most frequent first, of equals the lowest.

    Attributes:
        values: [n] i32.
        slots: [n] i64, how many slots each has.
    """

    values: NDArray[np.int32]
    slots: NDArray[np.int64]

    @property
    def single(self) -> int:
        """How many have one slot only."""
        return int((self.slots == 1).sum())


class Bin(NamedTuple):
    """How many slots have a number from `first` to `last`."""

    first: int
    last: int
    slots: int


class Next(NamedTuple):
    """What would be evicted.

    Attributes:
        slots: [n] i32, in order.
        noise: [n] i32, what rule 7 adds to the age of each.
    """

    slots: Slots
    noise: NDArray[np.int32]


def by_value(values: NDArray[np.int32]) -> Values:
    """How many slots each value has, of the values [n] of filled slots."""
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return Values(found[order], counts[order].astype(np.int64))


def doubling(numbers: NDArray[Any]) -> list[Bin]:
    """A histogram of whole numbers, 0 and above: 0, 1, 2 to 3, 4 to 7, and so on to the bin of the largest."""
    counts = np.bincount(np.frexp(numbers.astype(np.float64))[1])
    return [Bin(2**place // 2, max(2**place - 1, 0), int(count)) for place, count in enumerate(counts)]


def most_hit(content: Content, count: int) -> Slots:
    """The slots that were hit most, at most so many, of equals the lowest; none that was never hit."""
    hits = content.portable["hits"]
    order = np.argsort(-hits, kind="stable")[:count]
    return order[hits[order] > 0].astype(np.int32)


@quietly
def next_to_go(content: Content, count: int) -> Next:
    """The filled slots that so many rows would take, in order, once they have taken all that are empty (rules 5 and 7).

    As in one update that hits none of them: noise is another at every step.
    """
    backend = get_backend("numpy")
    assert isinstance(backend, ArrayBackend)
    p, config, state = backend.primitives, content.config, content.state
    empty = int((~content.portable["filled"]).sum())
    nearest = np.zeros(min(empty + count, config.slots), np.int32)
    slots, _, filled = free_slots(p, config, state, nearest, nearest > 0, UpdatePlan())
    slots = slots[filled]
    return Next(slots, age_noise(p, config, state.step, slots))
