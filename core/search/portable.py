"""The exact search in f32, in shapes that do not depend on content: what a compiler can take.

Keys are scanned in chunks, and many queries in groups, so that no [batch, slots] matrix is ever held.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..primitives import Primitives
from ..score_order import NOTHING
from ..state import NO_SLOT, Array, MemoryState
from .blocks import Best, best_of_columns, join
from .contract import Found, Searcher


@dataclass(frozen=True)
class ScanPlan:
    """The sizes that a scan is cut by. Answers do not depend on them.

    Attributes:
        held: similarities to hold at a time: as many as stay in a cache.
        whole: memories of at most so many slots are scanned in one chunk, since a compiler copies the keys that it slices; the
            batch is cut instead.
        chunk: the least number of slots in a chunk of a larger memory.
        few: the batch size that one chunk of the whole memory is sized for, at least.
        many: the batch size that a chunk of a larger memory is sized for, at least.
        in_blocks: whether to cut the batch, and to find the top k by blocks. False: one program for batches of any size.
    """

    held: int = 2**21
    whole: int = 2**17
    chunk: int = 2**14
    few: int = 16
    many: int = 128
    in_blocks: bool = True

    def cut(self, batch: int, slots: int) -> tuple[int, int]:
        """The slots in a chunk, and the rows in a group."""
        if slots <= max(self.whole, self.held // max(batch, self.few)):
            return slots, max(1, self.held // slots)
        chunk = max(self.chunk, self.held // max(batch, self.many))
        return chunk, max(1, self.held // chunk)


class PortableScan(Searcher):
    """The search for traced code.

    Args:
        plan: the sizes that it is cut by.
    """

    def __init__(self, plan: ScanPlan | None = None) -> None:
        self.plan = ScanPlan() if plan is None else plan

    def find(self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int) -> Found:
        """See `Searcher.find`."""
        batch, slots = queries.shape[0], state.values.shape[0]
        if not self.plan.in_blocks or not isinstance(batch, int):  # an exported program's symbol
            return self._of_group(p, state, queries, targets, k, self.plan.chunk)
        chunk, rows = self.plan.cut(batch, slots)
        if batch <= rows:
            return self._of_group(p, state, queries, targets, k, chunk)
        return self._of_groups(p, state, queries, targets, k, chunk, rows)

    def _of_groups(
        self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int, chunk: int, rows: int
    ) -> Found:
        """So many rows at a time. All groups but the first are counted from the end, so the second may overlap the first."""
        batch = queries.shape[0]
        groups, row = -(-batch // rows), p.arange(batch, queries)

        def of_group(start: Array | int) -> tuple[Array, ...]:
            some = None if targets is None else p.slice_rows(targets, start, rows)
            found = self._of_group(p, state, p.slice_rows(queries, start, rows), some, k, chunk)
            return found if found.target_slots is not None else (found.slots,)

        def with_group(index: Array | int, found: tuple[Array, ...]) -> tuple[Array, ...]:
            start = batch - (groups - index) * rows
            return tuple(p.put_rows(all_, row[:rows] + start, some) for all_, some in zip(found, of_group(start), strict=True))

        slots, *best = p.loop(1, groups, with_group, tuple(some[row % rows] for some in of_group(0)))
        return Found(slots, best[0] if best else None)

    def _of_group(self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int, chunk: int) -> Found:
        """Scan all slots, in chunks of at most so many. All chunks but the first are counted from the end, as groups are."""
        slots = state.keys.shape[0]
        size = min(slots, max(chunk, k))
        chunks = -(-slots // size)

        def with_chunk(index: Array | int, found: tuple[Best, ...]) -> tuple[Best, ...]:
            return self._with_chunk(p, state, queries, targets, k, size, slots - (chunks - index) * size, found)

        found = self._with_chunk(p, state, queries, targets, k, size, 0, ())
        found = p.loop(1, chunks, with_chunk, found)
        best, *best_with_target = (p.xp.where(scores > NOTHING, ids, NO_SLOT) for scores, ids in found)
        return Found(best, best_with_target[0] if best_with_target else None)

    def _with_chunk(
        self,
        p: Primitives,
        state: MemoryState,
        queries: Array,
        targets: Array | None,
        k: int,
        size: int,
        start: Array | int,
        found: tuple[Best, ...],
    ) -> tuple[Best, ...]:
        """`found`, updated by the chunk of slots from `start`. Slots that the first chunk has scanned are left out."""
        ids = p.arange(size, state.values) + start
        values = p.slice_rows(state.values, start, size)
        there = (values != NO_SLOT) & (ids >= (size if found else 0))
        absent = p.cast(p.xp.where(there, 0.0, NOTHING), "float32")
        keys = p.constant(p.slice_rows(state.keys, start, size))
        # The layout suits the next step: maxima of blocks of slots, or top_k of whole rows.
        scores = p.inner(keys, queries) if self.plan.in_blocks else p.inner(queries, keys).T
        scores = scores + absent[:, None]
        best = self._best_of_columns(p, scores, k, start, found[0] if found else None)
        if targets is None:
            return (best,)
        scores = p.xp.where(values[:, None] == targets[None, :], scores, NOTHING)
        return best, self._best_of_columns(p, scores, 1, start, found[1] if found else None)

    def _best_of_columns(self, p: Primitives, scores: Array, k: int, start: Array | int, before: Best | None) -> Best:
        """See `blocks.best_of_columns`."""
        if self.plan.in_blocks:
            return best_of_columns(p, scores, k, start, before)
        best, slots = p.top_k(scores.T, k)
        return (best, slots + start) if before is None else join(p, (best, slots + start), k, before)
