"""Search methods for a memory that changes at every step: raremem, exact or with a live index, and plain indexes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

import raremem
from raremem.benchmarks.cost.workload import full_memory
from raremem.benchmarks.live_index.streams import BATCH, Ints, Rows
from raremem.config import MemoryConfig
from raremem.search.live import LivePlan

NEIGHBORS = 10
ALONE = {"hnswlib, in place": "hnswlib", "annoy, rebuilt": "annoy"}
"""The plain indexes by name, and their packages."""


class SearchMethod(Protocol):
    """A full memory with its method of search, which a stream is sent through."""

    builds: int

    @property
    def keys(self) -> Rows:
        """As they are now [slots, key_dim]."""

    def query(self, rows: Rows) -> Ints:
        """Slots [B, 10] nearest to rows, nearest first."""

    def step(self, rows: Rows, targets: Ints) -> Ints:
        """Query and update. Returns the slots [B] that hold a row as it is from now on, or -1."""


class RarememSearch:
    """A memory of raremem, searched exactly or with a live index."""

    def __init__(self, backend: Any, keys: Rows, values: Ints, seed: int) -> None:
        self.backend, self.builds = backend, 0
        self.config = MemoryConfig(len(keys), keys.shape[1], NEIGHBORS, seed=seed)
        self.state = full_memory(backend, self.config, keys, values, BATCH, seed)
        if backend.index is not None:
            backend.index.build = self._counted(backend.index.build)
            self.query(keys[:1])
            backend.index.rebuild()

    def _counted(self, build: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self.builds += 1
            return build(*arguments)

        return counted

    @property
    def keys(self) -> Rows:
        """See `SearchMethod`."""
        return np.asarray(self.state.keys)

    def query(self, rows: Rows) -> Ints:
        """See `SearchMethod`."""
        return np.asarray(self.backend.query(self.config, self.state, self._own(rows)).slots)

    def step(self, rows: Rows, targets: Ints) -> Ints:
        """See `SearchMethod`."""
        rows, targets = self._own(rows), self._own(targets)
        out = self.backend.query(self.config, self.state, rows, targets)
        self.state, report = self.backend.update(self.config, self.state, rows, targets, lookup=out)
        placed = np.asarray(report.written) & ~np.asarray(report.hit)
        return np.where(placed, np.asarray(report.slots), -1)

    def _own(self, array: Any) -> Any:
        return self.backend.primitives.asarray(array, self.state.keys)


class PlainIndex:
    """An index without raremem. A new row takes the slot written longest ago. hnswlib is changed in place, annoy is rebuilt."""

    def __init__(self, name: str, keys: Rows, seed: int, rebuilt_every: int) -> None:
        self.keys, self.seed, self.next, self.builds, self.steps = keys.copy(), seed, 0, 0, 0
        self.rebuilt_every = rebuilt_every
        self.make = raremem.get_index(name).build
        self.in_place = name == "hnswlib"
        self._build()

    def _build(self) -> None:
        self.index: Any = self.make(self.keys, np.arange(len(self.keys), dtype=np.int32), self.seed)
        self.builds += 1

    def query(self, rows: Rows) -> Ints:
        """See `SearchMethod`."""
        slots = self.index.search(rows, NEIGHBORS)
        order = np.argsort(-np.einsum("bd,bkd->bk", rows, self.keys[slots]), axis=1, kind="stable")
        return np.take_along_axis(slots, order, axis=1)

    def step(self, rows: Rows, targets: Ints) -> Ints:
        """See `SearchMethod`."""
        self.query(rows)
        slots = ((self.next + np.arange(len(rows))) % len(self.keys)).astype(np.int32)
        self.next += len(rows)
        self.keys[slots] = rows
        self.steps += 1
        if self.in_place:
            self.index.index.add_items(rows, slots)
        elif self.steps % self.rebuilt_every == 0:
            self._build()
        return slots


def installed_methods() -> list[str]:
    """The names of all search methods whose packages are installed."""
    packages = [name for name in raremem.registry.INDEXES if importlib.util.find_spec(name) is not None]
    return ["exact", *(f"raremem + {name}" for name in packages), *(way for way, name in ALONE.items() if name in packages)]


def make_method(
    name: str, backend: str, keys: Rows, values: Ints, seed: int, rebuilt_every: int, plan: LivePlan
) -> SearchMethod:
    """The search method of that name, in a memory of these keys [slots, key_dim] and values [slots].

    A plain annoy index is built again after so many steps, raremem's as the plan says.
    """
    if name in ALONE:
        return PlainIndex(ALONE[name], keys, seed, rebuilt_every)
    index = raremem.get_index(name.removeprefix("raremem + "), seed=seed, plan=plan) if name != "exact" else None
    return RarememSearch(raremem.get_backend(backend, index=index), keys, values, seed)
