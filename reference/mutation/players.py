"""The backends that the laws are tried on, cheap ones, chosen so that together they run all of `core/`.

Beside NumPy and PyTorch as users have them stand NumPy tables that take other ways through the core: what is traced, what is
scanned in low precision, what an index proposes. Where a way is only taken in a large memory, the size from which on it is
taken is made small, by the plans that are given to a backend and its searcher; the laws are the same.
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
from raremem.ranks import NOTHING
from raremem.registry import get_backend
from raremem.rules.work import AT_ONCE, Work
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
    """Whose content is taken for unknown, as in `jax.jit`."""

    eager = False


class OneByOne(Traced):
    """The same, whose arrays are written one after the other."""

    write = Primitives.write


class LowPrecision(NumpyPrimitives):
    """Whose products of f16 are summed in f32, which scores rows by a product with all keys if that is cheaper at all, and
    whose zeros have either sign."""

    gathered = 0

    def inner(self, left: Array, right: Array) -> Array:
        """Summed in f32 whatever comes."""
        product = super().inner(left.astype(np.float32), right.astype(np.float32))
        return product.astype(left.dtype)

    def score(self, queries: Array, keys: Array) -> Array:
        """What is 0.0 in every other column is -0.0: which of them a sum of products gives is a library's business."""
        scores = super().score(queries, keys)
        scores[:, ::2] = np.where(scores[:, ::2] == 0, np.float32(-0.0), scores[:, ::2])
        return scores


@dataclass(frozen=True)
class SmallBlocks(ShortlistPlan):
    """Blocks of two slots, seven queries at a time, and lists that are mostly too short at first."""

    chunk: int = 6
    share: float = 0.01
    targets: TargetPlan = TargetPlan(gathered=0)  # noqa: RUF009

    def cut(self, slots: int, k: int, batch: int, dim: int) -> Cut:
        """Single slots where there are few; at first half of the blocks that are asked for."""
        return Cut(1, k + 1, 7) if slots < 8 else Cut(2, k // 2 + 1, 7)


class LowShortlist(NumpyShortlist):
    """Which scans in f16."""

    def coarse_keys(self, p: Primitives, state: MemoryState, batch: int) -> CoarseKeys:
        """The keys, to be cast chunk by chunk."""
        return CoarseKeys(state.keys, "float16", F16_ROUNDOFF)


@dataclass(frozen=True)
class AllProposed(LivePlan):
    """An index from the first slot on, which is asked for more slots than there are. The target is sought row by row, each row
    among its own slots, a few rows together."""

    smallest: int = 1
    fresh: int = 2
    targets: TargetPlan = TargetPlan(gathered=512, gather_cost=0)  # noqa: RUF009

    def proposals(self, k: int) -> int:
        """As many as a memory of the laws has, or more."""
        return 512


class Everything:
    """An index that proposes all its slots."""

    def __init__(self, keys: Array, slots: Array, seed: int) -> None:
        self.slots = slots

    def search(self, queries: Array, count: int) -> Array:
        """All of them, for every query, and -1 up to the count."""
        none = np.full(max(0, count - len(self.slots)), NO_SLOT, np.int32)
        return np.tile(np.concatenate([self.slots, none]), (len(queries), 1))


class Growing(Everything):
    """The same, and it takes more in."""

    def add(self, keys: Array, slots: Array) -> None:
        """Slots of changed keys."""
        self.slots = np.concatenate([self.slots, slots])


PARTS = 3


class Parts(Shards):
    """As many holders as parts, which answer one after the other: what each would hand out is noted, then joined. The neighbors
    come in the wrong order: the query puts them in order."""

    def __init__(self) -> None:
        super().__init__(NumpyShortlist())
        self._handed_out: list[tuple[Array, Array]] = []
        self._joined: list[tuple[Array, Array]] = []

    def gather(self, state: MemoryState, scores: Array, slots: Array, k: int) -> tuple[Array, Array]:
        """What all have handed out at this turn, once all have, and before that this holder's; and k places for nothing."""
        turn = len(self._handed_out)
        self._handed_out.append((scores, slots))
        every = self._joined[turn] if self._joined else (scores, slots)
        padding = ((0, 0), (0, k))
        nothing = zip(every, (NOTHING, NO_SLOT), strict=True)
        every_scores, every_slots = (np.pad(column, padding, constant_values=none) for column, none in nothing)
        return every_scores, every_slots

    def find(self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int) -> Found:
        """See `Searcher.find`."""
        cuts = [len(state.values) * place // PARTS for place in range(PARTS + 1)]

        def of_part(holder: int) -> Found:
            self._handed_out = []
            first, last = cuts[holder : holder + 2]
            part = MemoryState(*[*(array[first:last] for array in state[:4]), state.step])
            return self.find_in_part(p, state, part, first, queries, targets, k)

        self._joined, noted = [], []
        for holder in range(PARTS):
            of_part(holder)
            noted.append(self._handed_out)
        for scores, slots in (zip(*turn, strict=True) for turn in zip(*noted, strict=True)):
            self._joined.append((np.concatenate(scores, axis=1), np.concatenate(slots, axis=1)))
        slots, best = of_part(0)
        return Found(slots[:, ::-1], best)


def _short_lists() -> Backend:
    return ArrayBackend(LowPrecision(), LowShortlist(SmallBlocks()), work=Work(rows=3, slots=5, block=1))


def _few_at_a_time() -> Backend:
    return ArrayBackend(Traced(), PortableScan(ScanPlan(held=32, whole=16, chunk=8, few=1, many=2)))


def _no_blocks() -> Backend:
    return ArrayBackend(OneByOne(), PortableScan(ScanPlan(chunk=8, in_blocks=False)), work=AT_ONCE)


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
"""By name: how each is made; and whether laws that are costly are tried on it."""


def installed() -> list[str]:
    """The players whose framework is here."""
    return [name for name in PLAYERS if not name.startswith("torch") or importlib.util.find_spec("torch") is not None]
