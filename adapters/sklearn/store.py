"""`ExampleStore`, a classifier's memory: it may grow, and knows which example is in each slot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.adapters.sklearn.learned_map import unit
from raremem.adapters.sklearn.lookups import joined, without
from raremem.backend import ArrayBackend
from raremem.config import MemoryConfig
from raremem.registry import get_backend
from raremem.state import Lookup, resized

Array = NDArray[Any]

BATCH = 1024
"""Rows that one call of the backend is given."""
LEFT_OUT = 2000
"""How many examples are looked up among the others, at most."""


class ExampleStore:
    """A memory with an id for each slot: how many examples had come before the one that took the slot.

    Args:
        backend: whose memory it is, as `raremem.get_backend` calls it.
        config: its config; `slots` is where it starts if it grows.
        grows: double the slots instead of evicting.
    """

    def __init__(self, backend: str, config: MemoryConfig, grows: bool) -> None:
        self.name, self.backend = backend, get_backend(backend)
        self.config, self.grows = config, grows
        self.state = self.backend.init(config)
        self.ids = np.full(config.slots, -1, np.int64)
        self.filled = self.seen = 0

    def write(self, keys: Array, values: Array) -> Iterator[Lookup]:
        """Write examples in their order. Yields the lookup of each batch before it is written, unless the memory was empty.

        With `write="keep"`, examples for which there is room are written 1,024 at a time. Otherwise each is a batch of its own,
        since it may merge with the one before, or evict it.
        """
        if self.grows and len(keys) > self.config.slots - self.filled:
            self._resize(max(self.filled + len(keys), 2 * self.filled))
        if not self.filled and self.config.write == "keep" and len(keys) <= self.config.slots:
            self._fill(keys, values)
            return
        room = self.config.write == "keep" and len(keys) <= self.config.slots - self.filled
        for start, end in _batches(len(keys), BATCH if room else 1):
            rows = self.backend.own(keys[start:end], self.state)
            targets = self.backend.own(values[start:end].astype(np.int32), self.state)
            found = self.backend.query(self.config, self.state, rows)
            before = self._numpy(found)
            self.state, report = self.backend.update(self.config, self.state, rows, targets, lookup=found)
            slots, hit, written = (self._array(array) for array in (report.slots, report.hit, report.written))
            taken = written if self.config.write == "keep" else written & ~hit
            self.ids[slots[taken]] = self.seen + np.flatnonzero(taken)
            self.filled += int(taken.sum()) - int(self._array(report.evicted))
            self.seen += end - start
            yield before

    def answer(self, keys: Array, neighbors: int | None = None) -> Iterator[Lookup]:
        """Yield the lookups of keys, a batch at a time, in NumPy."""
        config = self.config if neighbors is None else replace(self.config, neighbors=neighbors)
        for start, end in _batches(len(keys), BATCH):
            yield self._numpy(self.backend.query(config, self.state, self.backend.own(keys[start:end], self.state)))

    def left_out(self) -> tuple[Lookup, Array]:
        """Look each example up among all the others. Returns the lookup and the values of these examples.

        Of more than `LEFT_OUT` examples a sample is taken. A single example is not looked up.
        """
        portable = self.backend.to_numpy(self.state)
        slots = np.flatnonzero(portable["filled"]).astype(np.int32)
        if len(slots) == 1:
            slots = slots[:0]
        if len(slots) > LEFT_OUT:
            slots = np.sort(np.random.default_rng(0).choice(slots, LEFT_OUT, replace=False))
        found = joined(self.answer(portable["keys"][slots], self.config.k + 1))
        return without(found, slots, self.config.softmax_temperature), portable["values"][slots]

    def forget(self, **named: Any) -> int:
        """Call `Backend.forget`, and return how many slots it emptied."""
        self.state, report = self.backend.forget(self.config, self.state, **named)
        self.ids[self._array(report.forgotten)] = -1
        count = int(self._array(report.count))
        self.filled -= count
        return count

    def values(self) -> set[int]:
        """The values that it holds."""
        return set(self.backend.counts(self.state))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "state": self.backend.to_numpy(self.state), "backend": None}

    def __setstate__(self, content: dict[str, Any]) -> None:
        vars(self).update(content, backend=get_backend(content["name"]))
        self.state = self.backend.from_numpy(self.config, content["state"])

    def _fill(self, keys: Array, values: Array) -> None:
        """Write to an empty memory what one update would. An update would also search it, which costs rows times slots."""
        keys = unit(keys).astype(np.float32)
        accepted = np.flatnonzero(np.linalg.norm(keys, axis=1) > 0.5)
        portable = self.backend.to_numpy(self.state)
        for name, content in (("keys", keys[accepted]), ("values", values[accepted]), ("filled", True)):
            portable[name][: len(accepted)] = content
        portable["step"] += int(len(accepted) > 0)
        self.state = self.backend.from_numpy(self.config, portable)
        self.ids[: len(accepted)] = self.seen + accepted
        self.filled, self.seen = len(accepted), self.seen + len(keys)

    def _resize(self, slots: int) -> None:
        portable = resized(self.config, self.backend.to_numpy(self.state), slots)[0]
        self.config = replace(self.config, slots=slots)
        self.state = self.backend.from_numpy(self.config, portable)
        self.ids = np.concatenate([self.ids, np.full(slots - len(self.ids), -1, np.int64)])

    def _numpy(self, found: Lookup) -> Lookup:
        names = ("values", "slots", "similarities", "weights", "found")
        return found._replace(**{name: self._array(getattr(found, name)) for name in names})

    def _array(self, array: Any) -> Array:
        """A backend's array in NumPy."""
        if isinstance(self.backend, ArrayBackend):
            return self.backend.primitives.to_numpy(array)
        return np.asarray(array)


def _batches(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Where batches of rows start and end; of no rows there is one, of none."""
    return ((start, min(start + size, rows)) for start in range(0, max(rows, 1), size))
