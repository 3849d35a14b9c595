"""Rule 10: approximate search. An index proposes slots; it never owns a key, and losing it loses nothing.

`NeighborIndex` is what an adapter writes: a structure over some keys. `LiveIndex` makes such structures follow a memory that
changes at every step: slots that changed since they went into the index are searched exactly, whatever the index proposes is
scored again from the true keys, and when enough has changed a new one is built in the background.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from . import search
from .errors import DeviceError
from .primitives import Primitives
from .scan import NOTHING
from .state import NO_SLOT, Array, MemoryState, UpdateReport, quietly
from .watch import Watch

SMALLEST = 20_000
"""Filled slots from which on there is an index: fewer are searched exactly in less time."""
FRESH = 4096
"""Changed slots that are searched exactly at least; beyond them an index that grows takes in all but the last update's."""
SHARE = 8
"""A new index is built when one in so many of the slots in the old one has changed, and more than `FRESH`."""

Rows = NDArray[np.float32]
Slots = NDArray[np.int32]


class NeighborIndex(Protocol):
    """An approximate index over unit keys [n, key_dim], known by their slots [n]."""

    def __init__(self, keys: Rows, slots: Slots, seed: int) -> None:
        """Build it. The same input gives the same index."""

    def search(self, queries: Rows, count: int) -> Slots:
        """Slots [B, count or more] that may be nearest to unit queries [B, key_dim], in any order; -1 where there are no more.

        A slot may come twice, or may have another key by now.
        """


@runtime_checkable
class GrowingIndex(NeighborIndex, Protocol):
    """An index that takes more keys in at little cost."""

    def add(self, keys: Rows, slots: Slots) -> None:
        """Take more keys in. A slot that was there before may stay under its old key too."""


Build = Callable[[Rows, Slots, int], NeighborIndex]


class _ByValue:
    """Some slots, by the values [slots] of a memory at some time."""

    def __init__(self, values: NDArray[np.int32], slots: Slots) -> None:
        found = values[slots]
        order = np.argsort(found, kind="stable")
        self.values, self.slots = found[order], slots[order]

    def having(self, wanted: NDArray[np.int32]) -> Slots:
        """Those that had one of the wanted values [n], which differ."""
        first, last = np.searchsorted(self.values, wanted), np.searchsorted(self.values, wanted, "right")
        count = last - first
        return self.slots[np.repeat(last - np.cumsum(count), count) + np.arange(count.sum())]


@dataclass
class _Built:
    """An index, the slots that it was built of, and those that had changed since when it last grew."""

    index: NeighborIndex
    slots: _ByValue
    changed: _ByValue


class _Building:
    """An index that is being built, in a thread of its own or in this call. It has no lock: a fork could leave one taken."""

    def __init__(self, work: Callable[[], _Built], background: bool) -> None:
        self.built: _Built | None = None
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name="raremem index", daemon=True)
        if background:
            self._thread.start()
        else:
            self._run()

    def _run(self) -> None:
        try:
            self.built = self._work()
        except BaseException as error:
            self.error = error

    @property
    def under_way(self) -> bool:
        """Whether it is still being built."""
        return self._thread.is_alive()

    def result(self, timeout: float | None = None) -> _Built | None:
        """Wait for the index, so many seconds at most; raise what building it has raised.

        None: it is not there yet, and if it is not under way, never will be: the thread is not in this process.
        """
        if self.under_way:
            self._thread.join(timeout)
        if self.error is not None:
            raise self.error
        return self.built


class LiveIndex:
    """Approximate search in one memory, as it changes. Give it to a backend or a module with `index=`.

    Of a memory with fewer than 20,000 filled slots, and until a first index is built, every search is exact. It follows the
    state that is queried; another state, or one that something else is seen to have written to (`raremem.watch`), makes it
    begin anew. It is for one thread.

    Args:
        build: makes an index.
        background: build in a thread of its own, while queries go on with the old index; if False, in the call that finds that
            it is time: then the same calls give the same answers.
        seed: for the index.
    """

    def __init__(self, build: Build, background: bool = True, seed: int = 0) -> None:
        self.build, self.background, self.seed = build, background, seed
        self.drop()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy begins anew."""
        return LiveIndex, (self.build, self.background, self.seed)

    @property
    def ready(self) -> bool:
        """Whether an index answers; if not, searches are exact."""
        return self._built is not None

    def drop(self) -> None:
        """Forget the index, and which memory it followed."""
        self._built: _Built | None = None
        self._building: _Building | None = None
        self._followed: Array = None
        self._watch: Watch | None = None

    def rebuild(self) -> None:
        """Build an index of the memory that was last queried, and wait for it. Does nothing if there is none."""
        if self._followed is not None:
            self._start()
            self._finish()

    def nearest(
        self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int
    ) -> tuple[Array, Array | None]:
        """As `search.nearest`; slots that the index does not propose may be missing.

        Raises:
            DeviceError: the memory is on an accelerator, or the call is being compiled.
        """
        if not p.eager(queries):
            raise DeviceError(
                "an index was asked in code that is being compiled, or for a memory that is not on the CPU; expected neither. "
                "Leave out index= there: the search is then exact."
            )
        self._follow(p, state)
        if self._built is None:
            return search.nearest(p, state, queries, targets, k)
        seen = MemoryState(*map(p.peek, state)), p.peek(queries), None if targets is None else p.peek(targets)
        slots, best = self._nearest(p.in_numpy(), *seen, k, self._built)
        return p.asarray(slots, state.values), None if best is None else p.asarray(best, state.values)

    def note(self, p: Primitives, state: MemoryState, report: UpdateReport) -> None:
        """Learn what an update has written: it is found from the next query on."""
        if state.keys is not self._followed:
            return
        slots = p.to_numpy(report.slots)[p.to_numpy(report.written)]
        for flags in (self._fresh, self._changed, self._since):
            flags[slots] = True
        self._newest = slots
        assert self._watch is not None
        self._watch.follow(self._keys, _stamp(p, state), slots)

    def _follow(self, p: Primitives, state: MemoryState) -> None:
        """See that the index is of this memory, as it is now. (Not in `note`: what fails here has changed nothing.)"""
        stamp = _stamp(p, state)
        if state.keys is not self._followed or not self._is_as_seen(stamp):
            self.drop()
            self._followed = state.keys
            keys, values = p.peek(state.keys), p.peek(state.values)
            assert keys is not None, "eager"
            assert values is not None, "eager"
            self._keys, self._values, self._watch = keys, values, Watch(keys, stamp)
            self._fresh, self._changed, self._since = (np.zeros(len(self._values), np.bool_) for _ in range(3))
            self._newest = np.zeros(0, np.int32)
        if self._building is not None and not self._building.under_way:
            self._finish()
        if self._built is not None and isinstance(self._built.index, GrowingIndex) and np.count_nonzero(self._fresh) > FRESH:
            slots = np.setdiff1d(np.flatnonzero(self._fresh), self._newest).astype(np.int32)
            self._built.index.add(self._keys[slots], slots)
            self._built.changed = _ByValue(self._values, np.flatnonzero(self._changed).astype(np.int32))
            self._fresh[slots] = False
        if self._building is None and self._is_due():
            self._start()

    def _is_as_seen(self, stamp: tuple[int | None, int]) -> bool:
        """Whether nothing but the updates that were noted is seen to have written to the keys."""
        return self._watch is not None and self._watch.holds(self._keys, stamp)

    def _is_due(self) -> bool:
        """Whether to build an index: a first one, or another because enough has changed."""
        if self._built is None:
            return int(np.count_nonzero(self._values != NO_SLOT)) >= SMALLEST
        return int(np.count_nonzero(self._changed)) > max(FRESH, len(self._built.slots.slots) // SHARE)

    def _start(self) -> None:
        """Begin to build. Keys may change meanwhile, even as they are read: those slots are flagged, and searched exactly.

        So are those of the last update, since an index need not find even the very key that it is asked for.
        """
        self._since = np.zeros_like(self._fresh)
        self._since[self._newest] = True
        work = partial(_build, self.build, self._keys, self._values, self.seed)
        self._building = _Building(work, self.background)
        if not self.background:
            self._finish()

    def _finish(self) -> None:
        """Wait for what is being built, and use it; if it has failed, say so, and begin anew.

        In a child process nobody builds on: what there was before goes on, and the next search begins to build again.
        """
        building, self._building = self._building, None
        if building is not None:
            before, self._built = self._built, None
            built = building.result()
            self._built = before if built is None else built
            if built is not None:
                self._fresh, self._changed = self._since.copy(), self._since

    @quietly
    def _nearest(
        self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int, built: _Built
    ) -> tuple[Array, Array | None]:
        """See `nearest`. All arrays are NumPy's, and the table is for these: small operations cost least there."""
        fresh = np.flatnonzero(self._fresh).astype(np.int32)
        slots = self._proposed_and_fresh(p, state, queries, k, built, fresh)
        having = partial(self._having, built, fresh)
        return slots, None if targets is None else search.best_with_target(p, state, queries, targets, slots, having)

    def _proposed_and_fresh(
        self, p: Primitives, state: MemoryState, queries: Array, k: int, built: _Built, fresh: Slots
    ) -> Array:
        """The best slots [B, k] of those that the index proposes and those that changed; exact where these are too few."""
        candidates = self._sound(built.index.search(queries, search.shortlist(k)))
        if len(fresh):
            part = state._replace(keys=p.take_rows(state.keys, fresh), values=p.take_rows(state.values, fresh))
            columns, _ = search.nearest(p, part, queries, None, min(k, len(fresh)))
            candidates = np.concatenate([candidates, np.where(columns != NO_SLOT, fresh[columns], NO_SLOT)], axis=1)
        scores = search.scores_of(p, state, queries, candidates)
        order = p.sort_order(scores, candidates, k)
        found = np.where(p.take_along(scores, order) > NOTHING, p.take_along(candidates, order), NO_SLOT)
        few = np.flatnonzero((found[:, -1] == NO_SLOT) & (queries != 0).any(axis=1))
        if len(few):
            found[few] = search.nearest(p, state, queries[few], None, k)[0]
        return found

    def _sound(self, proposed: Slots) -> Slots:
        """Each slot once, and none that there is not or that is searched exactly; -1 instead."""
        proposed = np.sort(np.where((proposed >= 0) & (proposed < len(self._fresh)), proposed, NO_SLOT), axis=1)
        again = np.zeros_like(proposed, np.bool_)
        again[:, 1:] = proposed[:, 1:] == proposed[:, :-1]
        return np.where(again | self._fresh[proposed], NO_SLOT, proposed).astype(np.int32)

    def _having(self, built: _Built, fresh: Slots, targets: NDArray[np.int32]) -> Slots:
        """The slots that have one of the targets [n], and some that had."""
        wanted = np.unique(targets)
        fresh = fresh[np.isin(self._values[fresh], wanted)]
        slots = np.concatenate([built.slots.having(wanted), built.changed.having(wanted), fresh])
        return np.unique(slots).astype(np.int32)


def _stamp(p: Primitives, state: MemoryState) -> tuple[int | None, int]:
    """What changes when the framework writes to the keys, or an update does."""
    return p.writes(state.keys), int(state.step)


def _build(build: Build, keys: Rows, values: NDArray[np.int32], seed: int) -> _Built:
    slots = np.flatnonzero(values != NO_SLOT).astype(np.int32)
    return _Built(build(keys[slots], slots, seed), _ByValue(values, slots), _ByValue(values, slots[:0]))
