"""The backends on which mutants are tried: fast ones, which together run all of `core/`.

Beside NumPy and PyTorch as users have them there are NumPy tables for other paths through the core: traced code, scans in low
precision, approximate indexes. Paths for large memories are taken in small ones by the plans of backend and searcher.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.adapters.numpy import NumpyPrimitives, NumpyShortlist
from raremem.backend import ArrayBackend, Backend
from raremem.primitives import Primitives
from raremem.registry import get_backend
from raremem.rules.plan import ANY_BATCH, UpdatePlan
from raremem.score_order import NOTHING
from raremem.search.coarse import CoarseKeys
from raremem.search.contract import Found
from raremem.search.live import LiveIndex, LivePlan
from raremem.search.portable import PortableScan, ScanPlan
from raremem.search.shards import Shards
from raremem.search.shortlist import Cut, ShortlistPlan
from raremem.search.targets import TargetPlan
from raremem.state import NO_SLOT, MemoryState

Array = NDArray[Any]
F16_ROUNDOFF = 2.0**-11


class Traced(NumpyPrimitives):
    """A table of arrays whose content is unknown, as in `jax.jit`."""

    eager = False


class OneByOne(Traced):
    """The same table, which writes the arrays of a state one after the other."""

    write = Primitives.write


class LowPrecision(NumpyPrimitives):
    """A table that sums products of f16 in f32, scores rows by a product with all keys wherever that is cheaper, and gives
    zeros of both signs."""

    always_gathered = 0

    def inner(self, left: Array, right: Array) -> Array:
        """The product, summed in f32 whatever the dtype."""
        product = super().inner(left.astype(np.float32), right.astype(np.float32))
        return product.astype(left.dtype)

    def score(self, queries: Array, keys: Array) -> Array:
        """Scores with -0.0 for 0.0 in every other column: which of them a sum of products is depends on the library."""
        scores = super().score(queries, keys)
        scores[:, ::2] = np.where(scores[:, ::2] == 0, np.float32(-0.0), scores[:, ::2])
        return scores


@dataclass(frozen=True)
class SmallBlocks(ShortlistPlan):
    """A plan with blocks of two slots, seven queries at a time, and lists that are mostly too short at first."""

    chunk: int = 6
    share: float = 0.01
    targets: TargetPlan = TargetPlan(gathered_at_once=0)  # noqa: RUF009

    def cut(self, slots: int, k: int, batch: int, dim: int) -> Cut:
        """Blocks of one slot in a memory of few; at first half of the blocks that are asked for."""
        return Cut(1, k + 1, 7) if slots < 8 else Cut(2, k // 2 + 1, 7)


class LowShortlist(NumpyShortlist):
    """A short list that scans in f16."""

    def coarse_keys(self, p: Primitives, state: MemoryState, batch: int) -> CoarseKeys:
        """The keys, to be cast chunk by chunk."""
        return CoarseKeys(state.keys, "float16", F16_ROUNDOFF)


@dataclass(frozen=True)
class AllProposed(LivePlan):
    """A plan with an index from the first slot on, which is asked for more slots than there are. Targets are searched row by
    row among their own slots, a few rows together."""

    smallest: int = 1
    most_fresh: int = 2
    targets: TargetPlan = TargetPlan(gathered_at_once=512, gather_cost=0)  # noqa: RUF009

    def proposals(self, k: int) -> int:
        """At least as many as the memories of most laws have slots."""
        return 512


class Everything:
    """An index that proposes all its slots."""

    def __init__(self, keys: Array, slots: Array, seed: int) -> None:
        self.slots = slots

    def search(self, queries: Array, count: int) -> Array:
        """All slots, for every query, and -1 up to the count."""
        none = np.full(max(0, count - len(self.slots)), NO_SLOT, np.int32)
        return np.tile(np.concatenate([self.slots, none]), (len(queries), 1))


class Growing(Everything):
    """The same index, to which keys can be added."""

    def add(self, keys: Array, slots: Array) -> None:
        """Add slots whose keys have changed."""
        self.slots = np.concatenate([self.slots, slots])


PARTS = 3


class Parts(Shards):
    """A memory in `PARTS` parts, which are searched one after the other: what each sends is recorded, then joined. Neighbors
    come in reverse order, since a query must sort them."""

    def __init__(self) -> None:
        super().__init__(NumpyShortlist())
        self._sent: list[tuple[Array, Array]] = []
        self._joined: list[tuple[Array, Array]] = []

    def gather(self, state: MemoryState, scores: Array, slots: Array, k: int) -> tuple[Array, Array]:
        """What all parts have sent at this turn, or only this part before all have; and k places without a slot."""
        turn = len(self._sent)
        self._sent.append((scores, slots))
        every = self._joined[turn] if self._joined else (scores, slots)
        padding = ((0, 0), (0, k))
        nothing = zip(every, (NOTHING, NO_SLOT), strict=True)
        every_scores, every_slots = (np.pad(column, padding, constant_values=none) for column, none in nothing)
        return every_scores, every_slots

    def find(self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int) -> Found:
        """See `Searcher.find`."""
        cuts = [len(state.values) * place // PARTS for place in range(PARTS + 1)]

        def of_part(holder: int) -> Found:
            self._sent = []
            first, last = cuts[holder : holder + 2]
            part = MemoryState(*[*(array[first:last] for array in state[:4]), state.step])
            return self.find_in_part(p, state, part, first, queries, targets, k)

        self._joined, recorded = [], []
        for holder in range(PARTS):
            of_part(holder)
            recorded.append(self._sent)
        for scores, slots in (zip(*turn, strict=True) for turn in zip(*recorded, strict=True)):
            self._joined.append((np.concatenate(scores, axis=1), np.concatenate(slots, axis=1)))
        slots, best = of_part(0)
        return Found(slots[:, ::-1], best)


def _short_lists() -> Backend:
    return ArrayBackend(LowPrecision(), LowShortlist(SmallBlocks()), plan=UpdatePlan(rows=3, slots=5, block=1))


def _few_at_a_time() -> Backend:
    return ArrayBackend(Traced(), PortableScan(ScanPlan(held=32, whole=16, chunk=8, few=1, many=2)))


def _no_blocks() -> Backend:
    return ArrayBackend(OneByOne(), PortableScan(ScanPlan(chunk=8, in_blocks=False)), plan=ANY_BATCH)


def _index(kind: Any, framework: str, share: int) -> Backend:
    return get_backend(framework, index=LiveIndex(kind, background=False, plan=AllProposed(share=share)))


PLAYERS: dict[str, tuple[Callable[[], Backend], bool]] = {
    "numpy": (lambda: get_backend("numpy"), True),
    "numpy, short lists of small chunks": (_short_lists, True),
    "numpy, traced": (lambda: ArrayBackend(Traced()), True),
    "numpy, traced, few at a time": (_few_at_a_time, False),
    "numpy, traced, no blocks, one array at a time": (_no_blocks, False),
    "numpy, index": (lambda: _index(Everything, "numpy", 8), False),
    "torch, growing index": (lambda: _index(Growing, "torch", 1), False),
    "numpy, parts": (lambda: ArrayBackend(NumpyPrimitives(), Parts()), False),
    "torch": (lambda: get_backend("torch", compiled=False), False),
}
"""By name: how each is made, and whether costly laws are tried on it."""


def installed() -> list[str]:
    """The players whose framework is installed."""
    return [name for name in PLAYERS if not name.startswith("torch") or importlib.util.find_spec("torch") is not None]
