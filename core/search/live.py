"""Rule 10: approximate search that follows a memory as it changes, with any index.

An index only proposes slots: it owns neither keys nor values, and losing it loses nothing. Slots that were written since its
last build are searched exactly, whatever the index proposes is scored again from the true keys, and when enough has changed a
new one is built in the background.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DeviceError
from ..index import Build, GrowingIndex, NeighborIndex, Rows, Slots
from ..primitives import Primitives
from ..score_order import NOTHING
from ..state import NO_SLOT, Array, MemoryState, quietly
from ..watch import Watch
from .contract import Found, Searcher, scores_of
from .targets import TargetPlan, best_of_having, best_with_target

Stamp = tuple[int | None, int]
"""The framework's count of writes to the keys, or None, and the memory's step."""


@dataclass(frozen=True)
class LivePlan:
    """When an index is used, and built anew.

    Attributes:
        smallest: the least number of filled slots for which an index is built: fewer are faster to search exactly.
        most_fresh: changed slots that are searched exactly before a growing index takes them in (all but those of the last
            update), or before a new index is built.
        share: a new index is built when more than one in so many of the slots in the old one, and more than `most_fresh`, have
            changed.
        targets: the sizes that the search of positives is cut by.
    """

    smallest: int = 20_000
    most_fresh: int = 4096
    share: int = 8
    targets: TargetPlan = field(default_factory=TargetPlan)

    def proposals(self, k: int) -> int:
        """How many slots to ask an index for: more than k, since approximate indexes miss some of the best."""
        return k + k // 2 + 8


class _ByValue:
    """Some slots, sorted by the values [slots] that a memory had at some time."""

    def __init__(self, values: NDArray[np.int32], slots: Slots) -> None:
        found = values[slots]
        order = np.argsort(found, kind="stable")
        self.values, self.slots = found[order], slots[order]

    def having(self, wanted: NDArray[np.int32]) -> Slots:
        """The slots that had one of the wanted values [n], all different."""
        first, last = np.searchsorted(self.values, wanted), np.searchsorted(self.values, wanted, "right")
        count = last - first
        return self.slots[np.repeat(last - np.cumsum(count), count) + np.arange(count.sum())]


@dataclass
class _Built:
    """An index, the slots that it was built from, and the slots that had changed between its build and its last growth."""

    index: NeighborIndex
    slots: _ByValue
    changed: _ByValue


class _Building:
    """An index that is being built, in a thread or in the constructor. It has no lock: a fork could leave it taken."""

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
        """Wait for the index, so many seconds at most, and return it. An error of the build is raised here.

        None: it is not finished. If it is not under way either, it never will be: its thread is that of another process.
        """
        if self.under_way:
            self._thread.join(timeout)
        if self.error is not None:
            raise self.error
        return self.built


class LiveIndex:
    """Approximate search in one memory, as it changes. Give it to a backend or a module with `index=`.

    Of a memory with fewer than 20,000 filled slots, and until a first index is built, every search is exact. It follows the
    state that is queried; another state, or a detected write by something else (`raremem.watch`), makes it
    begin anew. Use it in one thread.

    Args:
        build: makes an index.
        background: build in a thread of its own, while queries go on with the old index. If False, build in the query that
            finds it due: then the same calls give the same answers.
        seed: for the index.
        plan: when an index is used, and built anew.
    """

    def __init__(self, build: Build, background: bool = True, seed: int = 0, plan: LivePlan | None = None) -> None:
        self.build, self.background, self.seed = build, background, seed
        self.plan = LivePlan() if plan is None else plan
        self.drop()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy begins anew."""
        return LiveIndex, (self.build, self.background, self.seed, self.plan)

    @property
    def ready(self) -> bool:
        """Whether there is an index; if not, searches are exact."""
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

    def follow(self, followed: Array, keys: Rows, values: NDArray[np.int32], stamp: Stamp) -> None:
        """Make sure that the index is of this memory as it is now, and begin to build one if it is due.

        Args:
            followed: the memory's keys in its framework: this object identifies the memory.
            keys, values: of the memory, as NumPy arrays that share its storage.
            stamp: changes when something writes to the keys.
        """
        if not self.is_of(followed, stamp):
            self.drop()
            self._followed = followed
            self._keys, self._values, self._watch = keys, values, Watch(keys, stamp)
            self._fresh, self._changed, self._since = (np.zeros(len(values), np.bool_) for _ in range(3))
            self._newest = np.zeros(0, np.int32)
        if self._building is not None and not self._building.under_way:
            self._finish()
        if self._built is not None and isinstance(self._built.index, GrowingIndex):
            self._grow(self._built.index)
        if self._building is None and self._is_due():
            self._start()

    def is_of(self, followed: Array, stamp: Stamp) -> bool:
        """Whether this memory is followed, and no write to its keys but the noted updates is detected."""
        return followed is self._followed and self._watch is not None and self._watch.holds(self._keys, stamp)

    def note(self, followed: Array, stamp: Stamp, slots: Slots) -> None:
        """Note the slots [n] that an update has written: they are searched exactly from the next query on."""
        if followed is not self._followed or self._watch is None:
            return
        for flags in (self._fresh, self._changed, self._since):
            flags[slots] = True
        self._newest = slots
        self._watch.follow(self._keys, stamp, slots)

    def fresh(self) -> Slots:
        """The slots to search exactly, ascending."""
        return np.flatnonzero(self._fresh).astype(np.int32)

    def proposed(self, queries: Rows, k: int) -> Slots:
        """The slots [B, n] that the index proposes, with -1 for repeated slots and for those that are searched exactly."""
        assert self._built is not None, "ready"
        slots = self._built.index.search(queries, self.plan.proposals(k))
        slots = np.sort(np.where((slots >= 0) & (slots < len(self._fresh)), slots, NO_SLOT), axis=1)
        again = np.zeros_like(slots, np.bool_)
        again[:, 1:] = slots[:, 1:] == slots[:, :-1]
        return np.where(again | self._fresh[slots], NO_SLOT, slots).astype(np.int32)

    def having(self, wanted: NDArray[np.int32]) -> Slots:
        """The slots that have one of the wanted values [n], all different, and some that had one before; ascending."""
        assert self._built is not None, "ready"
        fresh = self.fresh()
        fresh = fresh[np.isin(self._values[fresh], wanted)]
        slots = np.concatenate([self._built.slots.having(wanted), self._built.changed.having(wanted), fresh])
        return np.unique(slots).astype(np.int32)

    def _grow(self, index: GrowingIndex) -> None:
        """Add the changed slots to the index, but those of the last update."""
        if self._built is None or np.count_nonzero(self._fresh) <= self.plan.most_fresh:
            return
        slots = np.setdiff1d(np.flatnonzero(self._fresh), self._newest).astype(np.int32)
        index.add(self._keys[slots], slots)
        self._built.changed = _ByValue(self._values, np.flatnonzero(self._changed).astype(np.int32))
        self._fresh[slots] = False

    def _is_due(self) -> bool:
        """Whether to build an index: the first, or a new one because enough slots have changed."""
        if self._built is None:
            return int(np.count_nonzero(self._values != NO_SLOT)) >= self.plan.smallest
        return int(np.count_nonzero(self._changed)) > max(self.plan.most_fresh, len(self._built.slots.slots) // self.plan.share)

    def _start(self) -> None:
        """Begin to build. Slots whose keys change meanwhile are flagged, and searched exactly.

        So are the slots of the last update, since an approximate index may miss even a key that equals the query.
        """
        self._since = np.zeros_like(self._fresh)
        self._since[self._newest] = True
        work = partial(_build, self.build, self._keys, self._values, self.seed)
        self._building = _Building(work, self.background)
        if not self.background:
            self._finish()

    def _finish(self) -> None:
        """Wait for the index that is being built, and use it. If the build has failed, raise its error and drop the index.

        In a forked child the building thread does not run: the old index stays, and the next search begins a new build.
        """
        building, self._building = self._building, None
        if building is not None:
            before, self._built = self._built, None
            built = building.result()
            self._built = before if built is None else built
            if built is not None:
                self._fresh, self._changed = self._since.copy(), self._since


def _build(build: Build, keys: Rows, values: NDArray[np.int32], seed: int) -> _Built:
    slots = np.flatnonzero(values != NO_SLOT).astype(np.int32)
    return _Built(build(keys[slots], slots, seed), _ByValue(values, slots), _ByValue(values, slots[:0]))


def _not_counted(array: Array) -> int | None:
    """The count of writes for a framework that has none."""
    return None


class IndexedSearch(Searcher):
    """The search with a live index, and the exact search where the index has no answer.

    Args:
        index: the index, which follows the memory.
        exact: the exact search of the backend.
        host: the table and the exact search for NumPy arrays, on which small operations cost least; default: those of the call.
        writes: returns how often the framework has written to an array; None if it does not count.
    """

    mode = "index"
    alone = True

    def __init__(
        self,
        index: LiveIndex,
        exact: Searcher,
        host: tuple[Primitives, Searcher] | None = None,
        writes: Callable[[Array], int | None] = _not_counted,
    ) -> None:
        self.index, self.exact, self._host, self._writes = index, exact, host, writes

    def find(self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int) -> Found:
        """See `Searcher.find`; slots that the index does not propose may be missing.

        Raises:
            DeviceError: the memory is on an accelerator, or the call is being compiled.
        """
        if not p.eager:
            raise DeviceError(
                "an index was asked in code that is being compiled, or for a memory that is not on the CPU; expected neither. "
                "Leave out index= there: the search is then exact."
            )
        seen = MemoryState(*map(p.peek, state))
        self.index.follow(state.keys, seen.keys, seen.values, self._stamp(state))
        if not self.index.ready:
            return self.exact.find(p, state, queries, targets, k)
        here = p if self._host is None else self._host[0]
        slots, best = self._found(here, seen, p.peek(queries), None if targets is None else p.peek(targets), k)
        return Found(p.asarray(slots, state.values), None if best is None else p.asarray(best, state.values))

    def before_update(self, p: Primitives, state: MemoryState) -> tuple[LiveIndex | None, Any]:
        """See `Searcher.before_update`: returns the index, and the cache of the exact search."""
        follows = p.eager and self.index.is_of(state.keys, self._stamp(state))
        return self.index if follows else None, self.exact.before_update(p, state)

    def after_update(self, p: Primitives, state: MemoryState, slots: Array, taken: tuple[LiveIndex | None, Any]) -> None:
        """See `Searcher.after_update`: the written slots are searched exactly from the next query on."""
        index, of_exact = taken
        if index is not None:
            index.note(state.keys, self._stamp(state), p.to_numpy(slots))
        if of_exact is not None:
            self.exact.after_update(p, state, slots, of_exact)

    def _stamp(self, state: MemoryState) -> Stamp:
        """The stamp of a state: it changes when the framework, or an update, writes to the keys."""
        return self._writes(state.keys), int(state.step)

    @quietly
    def _found(self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int) -> Found:
        """`find` on NumPy arrays, with a table for them."""
        slots = self._proposed_and_fresh(p, state, queries, k)
        if targets is None:
            return Found(slots, None)
        beyond = partial(best_of_having, p, state, queries, targets, self.index.having, self.index.plan.targets)
        return Found(slots, best_with_target(p, state, queries, targets, slots, beyond))

    def _proposed_and_fresh(self, p: Primitives, state: MemoryState, queries: Array, k: int) -> Array:
        """The best slots [B, k] among the proposed and the changed ones; by exact search where these are too few."""
        exact = self.exact if self._host is None else self._host[1]
        candidates, fresh = self.index.proposed(queries, k), self.index.fresh()
        if len(fresh):
            part = state._replace(keys=state.keys[fresh], values=state.values[fresh])
            columns = exact.find(p, part, queries, None, min(k, len(fresh))).slots
            candidates = np.concatenate([candidates, np.where(columns != NO_SLOT, fresh[columns], NO_SLOT)], axis=1)
        scores = scores_of(p, state, queries, candidates)
        order = p.sort_order(scores, candidates, k)
        found = np.where(p.take_along(scores, order) > NOTHING, p.take_along(candidates, order), NO_SLOT)
        few = np.flatnonzero((found[:, -1] == NO_SLOT) & (queries != 0).any(axis=1))
        if len(few):
            found[few] = exact.find(p, state, queries[few], None, k).slots
        return found
