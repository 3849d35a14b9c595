"""Which values are confused: the slot nearest to each, and the nearest that has another value.

Both are exact, by the NumPy backend's own search, and never in a matrix of all pairs. One search for two neighbors tells the
nearest other slot. If that has the same value, others of that value may lie before the first of another one, and so more
neighbors would be needed than can be said beforehand: slots are put in the order of their values and halved between two values,
the slots of each half ask the other half for one neighbor, and each half is halved again, until no value in it has many slots.
Each slot that asks is compared with each other one once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.inspection.content import Content
from raremem.config import MemoryConfig
from raremem.registry import get_backend
from raremem.state import NO_SLOT, MemoryState

ASKED = 20_000
"""Slots that are asked for their nearest, at most; of more a sample is."""
PRODUCTS = 2**37
"""Numbers that are multiplied for one neighbor of each, at most: in a large memory fewer slots are asked. (In one of
1,000,000 x 64 these are 2,147.)"""
SEED = 0
"""Of the sample."""
FEW = 32
"""Where no value has more slots than these, one search for one neighbor more finds a slot of another value."""


class Nearest(NamedTuple):
    """The slots nearest to some.

    Attributes:
        asked: [n] i32, filled slots, ascending.
        nearest: [n] i32, the slot nearest to each, itself left out; -1 if there is no other.
        other: [n] i32, the nearest that has another value; -1 if there is none.
        similarities: [n] f32, of `other`; 0 if there is none.
        filled: how many filled slots there are: not all are asked if there are more than were asked.
    """

    asked: NDArray[np.int32]
    nearest: NDArray[np.int32]
    other: NDArray[np.int32]
    similarities: NDArray[np.float32]
    filled: int


class Pair(NamedTuple):
    """Two values whose keys are near.

    Attributes:
        values: the lower and the higher.
        confused: how many slots of either have as their nearest a slot of the other.
        near: how many have it as the nearest of another value.
        similarity: the largest between two of their slots that are so.
    """

    values: tuple[int, int]
    confused: int
    near: int
    similarity: float


def nearest(content: Content, asked: int = ASKED, products: int = PRODUCTS, few: int = FEW) -> Nearest:
    """The slots nearest to all filled ones, or to a sample of them, drawn with `SEED`.

    Args:
        content: with the memory.
        asked: slots to ask, at most.
        products: numbers to multiply for one neighbor of each of these, at most; one slot is asked at least.
        few: slots of a value of which one search still asks for all.
    """
    filled = np.flatnonzero(content.portable["filled"]).astype(np.int32)
    most = max(1, min(asked, products // max(1, len(filled) * content.config.key_dim)))
    chosen = filled
    if len(filled) > most:
        chosen = np.sort(np.random.default_rng(SEED).choice(filled, most, replace=False))
    if len(filled) < 2:
        none = np.full(len(chosen), NO_SLOT, np.int32)
        return Nearest(chosen, none, none, np.zeros(len(chosen), np.float32), len(filled))
    values = content.portable["values"]
    slots, similarities = _nearest_other(content.state, chosen)
    same = np.flatnonzero(values[slots] == values[chosen])
    other = slots.copy()
    other[same], similarities[same] = _of_another_value(content.state, filled, chosen[same], few)
    return Nearest(chosen, slots, other, similarities, len(filled))


def pairs(found: Nearest, values: NDArray[np.int32]) -> list[Pair]:
    """The pairs of values of which slots were found, those that are confused most first, then those that are near most.

    Args:
        found: what `nearest` gives.
        values: [slots] of the memory.
    """
    there = found.other != NO_SLOT
    own, others = values[found.asked[there]], values[found.other[there]]
    both = np.stack([np.minimum(own, others), np.maximum(own, others)], axis=1)
    which, place = np.unique(both, axis=0, return_inverse=True)
    place = place.reshape(-1)
    confused = np.bincount(place, found.nearest[there] == found.other[there], len(which)).astype(int)
    near = np.bincount(place, minlength=len(which))
    best = np.full(len(which), -np.inf, np.float32)
    np.maximum.at(best, place, found.similarities[there])
    order = np.lexsort((-best, -near, -confused))
    return [
        Pair((int(which[row, 0]), int(which[row, 1])), int(confused[row]), int(near[row]), float(best[row])) for row in order
    ]


def nearest_pairs(found: Nearest, count: int) -> list[tuple[int, int, float]]:
    """The most similar pairs of slots of different values, each once: the lower slot, the higher, and their similarity."""
    seen: dict[tuple[int, int], float] = {}
    for row in np.argsort(-found.similarities, kind="stable"):
        one, other = int(found.asked[row]), int(found.other[row])
        if other != NO_SLOT:
            seen.setdefault((min(one, other), max(one, other)), float(found.similarities[row]))
        if len(seen) == count:
            break
    return [(*slots, similarity) for slots, similarity in seen.items()]


def _nearest_other(state: MemoryState, chosen: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The slot [n] nearest to each of some slots [n], itself left out, and its similarity."""
    slots, similarities = _search(state, state.keys[chosen], 2)
    second = (slots[:, 0] == chosen).astype(int)[:, None]
    return np.take_along_axis(slots, second, 1)[:, 0], np.take_along_axis(similarities, second, 1)[:, 0]


def _of_another_value(
    state: MemoryState, filled: NDArray[np.int32], chosen: NDArray[np.int32], few: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The slot [n] nearest to each of some slots [n] among all `filled` that have another value than it; -1: there is none."""
    order = filled[np.argsort(state.values[filled], kind="stable")]
    by_value = _part(state, order)
    place = np.empty(len(state.values), np.int64)
    place[order] = np.arange(len(order))
    bounds = np.flatnonzero(np.diff(by_value.values, prepend=-1, append=-1))
    counts, rows = np.diff(bounds), place[chosen]
    slots, similarities = np.full(len(chosen), NO_SLOT, np.int32), np.full(len(chosen), -np.inf, np.float32)

    def ask(some: NDArray[np.int64], first: int, last: int, k: int) -> None:
        """Let these rows ask the slots of the values from `first` to before `last` for k, among which is one of another value
        than theirs; keep what is nearer than what they have."""
        start, stop = int(bounds[first]), int(bounds[last])
        part = _part(by_value, slice(start, stop))
        found, scores = _search(part, by_value.keys[rows[some]], k)
        column = (part.values[found] != by_value.values[rows[some]][:, None]).argmax(axis=1)
        lines = np.arange(len(some))
        better = scores[lines, column] > similarities[some]
        slots[some[better]] = order[start + found[lines, column]][better]
        similarities[some[better]] = scores[lines, column][better]

    parts = [(0, len(counts), np.arange(len(chosen)))]
    while parts:
        first, last, some = parts.pop()
        if last - first < 2 or not len(some):
            continue
        if counts[first:last].max() <= few:
            ask(some, first, last, int(counts[first:last].max()) + 1)
            continue
        middle = first + int(np.searchsorted(bounds[first + 1 : last - 1], (bounds[first] + bounds[last]) // 2)) + 1
        below = rows[some] < bounds[middle]
        for asking, (start, stop), own in (
            (some[below], (middle, last), (first, middle)),
            (some[~below], (first, middle), (middle, last)),
        ):
            if len(asking):
                ask(asking, start, stop, 1)
                parts.append((*own, asking))
    return slots, np.where(slots == NO_SLOT, 0, similarities).astype(np.float32)


def _part(state: MemoryState, some: Any) -> MemoryState:
    """The state of some slots alone."""
    return MemoryState(state.keys[some], state.values[some], state.last_used[some], state.hits[some], state.step)


def _search(state: MemoryState, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The slots [n, k] nearest to unit queries [n, key_dim], of which there are so many, and their similarities."""
    slots, key_dim = state.keys.shape
    config = MemoryConfig(slots, key_dim, neighbors=k)
    found = get_backend("numpy").query(config, state, queries)
    return found.slots, found.similarities
