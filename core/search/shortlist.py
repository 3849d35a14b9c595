"""The exact search where shapes may depend on content: a coarse scan rules most slots out, and a bound proves the answer.

The coarse scan keeps only the largest similarity of each block of slots. The slots of the best blocks are then scored in f32. A
bound on the rounding of the coarse scan proves for each query that no other slot belongs among its k. Where it proves that not,
more blocks are scored, and in the end all. In a small memory all slots are scored in f32 at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from ..primitives import Primitives
from ..score_order import NOTHING
from ..state import NO_SLOT, Array, MemoryState
from .blocks import block_width
from .coarse import CoarseKeys, CoarseScan, and_rest, error_of
from .contract import Found, Searcher
from .portable import PortableScan
from .targets import TargetPlan, best_of_having, best_with_target, slots_having


class Cut(NamedTuple):
    """How a search is cut.

    Attributes:
        width: slots in a block, a power of two; 1 where all slots are scored in f32 at once.
        blocks: blocks to score at first.
        rows: queries at a time.
    """

    width: int
    blocks: int
    rows: int


@dataclass(frozen=True)
class ShortlistPlan:
    """The sizes that a search is cut by. Answers do not depend on them.

    Attributes:
        rows: queries at a time, at most, so that the block maxima do not grow with the batch.
        fewest_rows: queries at a time, at least, when fewer would allow narrower blocks: every group reads all keys again.
        maxima: block maxima held at a time, at most: 32 MB.
        scores: similarities computed at a time: few enough to stay in a processor's cache. A search with no more than these
            scores all slots in f32.
        chunk: slots at a time, at most, of keys that are cast: the result should stay in the cache too.
        gathered_at_once: numbers of gathered keys held at a time, and half as many block maxima to choose among.
        share: one in so many slots may be scored in f32 after the coarse scan. A query that needs more has all slots scored.
        targets: the sizes that the search of positives is cut by.
    """

    rows: int = 512
    fewest_rows: int = 64
    maxima: int = 2**23
    scores: int = 2**20
    chunk: int = 2**14
    gathered_at_once: int = 2**21
    share: float = 16
    targets: TargetPlan = field(default_factory=TargetPlan)

    def few_enough(self, slots: int, blocks: int, width: int) -> bool:
        """Whether to score these blocks, and not all slots."""
        return blocks * width * self.share <= slots

    def cut(self, slots: int, k: int, batch: int, dim: int) -> Cut:
        """How to search so many slots for the k best of each of so many queries.

        A block has as many slots as make the choice of blocks and the scoring of their slots cost alike (measured: a slot
        gathered and scored costs as much as key_dim maxima). Where there would be too many maxima, it has twice as many, or
        else there are fewer queries at a time.
        """
        blocks = k + k // 2 + 8  # rounding may put some more slots before the best k
        width: int = 2 ** max(2, round(math.log2(slots / (blocks * dim)) / 2))
        if slots * batch <= self.scores or not self.few_enough(slots, blocks, width):
            return Cut(1, k + 1, max(1, self.gathered_at_once // (2 * slots)))
        rows = min(batch, self.rows)
        while rows >= 2 * self.fewest_rows and slots * rows > 2 * width * self.maxima:
            rows //= 2
        return Cut(max(width, 2 ** math.ceil(math.log2(slots * rows / self.maxima))), blocks, rows)


class Shortlist(Searcher):
    """The search for arrays on a CPU. A framework says in its own kind what is quickest there.

    Args:
        plan: the sizes that it is cut by.
    """

    def __init__(self, plan: ShortlistPlan | None = None) -> None:
        self.plan = ShortlistPlan() if plan is None else plan

    def coarse_keys(self, p: Primitives, state: MemoryState, batch: int) -> CoarseKeys:
        """The keys for the coarse scan of a batch of so many queries."""
        return CoarseKeys(state.keys, "float32", 0.0)

    def block_maxima(self, p: Primitives, scores: Array, width: int) -> Array:
        """[n * width, B] -> [n, B]: the maxima of rows that are n apart, or upper bounds on them; `width` is a power of two."""
        while width > 1:
            half, width = len(scores) // 2, width // 2
            scores = p.xp.maximum(scores[:half], scores[half:])
        return scores

    def largest(self, p: Primitives, scores: Array, k: int) -> Array:
        """Columns [m, k] of the k largest of each row [m, n], in any order, ties to any."""
        return p.top_k(scores, k)[1]

    def gather(self, p: Primitives, keys: Array, rows: Array, into: Array | None) -> Array:
        """`keys[rows]`. It may be written to `into`, an earlier result of at least as many rows."""
        return keys[rows]

    def find(self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int) -> Found:
        """See `Searcher.find`. Masked rows cost nothing, and neither do empty slots after the last filled one."""
        asking = p.xp.where(p.xp.any(queries != 0, axis=1))[0]
        if len(asking) < len(queries):
            return self._of_these(p, state, queries, targets, k, asking)
        if state.values[-1] == NO_SLOT:
            state = _without_empty_end(p, state, k)
        cut = self.plan.cut(len(state.values), k, *queries.shape)
        of_some = self._of_all_slots if cut.width == 1 else partial(self._of_best_slots, cut)
        if len(queries) <= cut.rows:
            return of_some(p, state, queries, targets, k)
        parts: list[Found] = []
        for start in range(0, len(queries), cut.rows):
            rows = slice(start, start + cut.rows)
            parts.append(of_some(p, state, queries[rows], None if targets is None else targets[rows], k))
        return Found(*(None if part[0] is None else p.xp.concatenate(part) for part in zip(*parts, strict=True)))

    def _of_these(
        self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int, asking: Array
    ) -> Found:
        """`find` for the rows `asking` [n] alone."""
        found = p.xp.full_like(p.xp.broadcast_to(p.arange(k, queries), (len(queries), k)), NO_SLOT)
        best = None if targets is None else p.copy(found[:, :1])
        if len(asking):
            some = self.find(p, state, queries[asking], None if targets is None else targets[asking], k)
            found[asking] = some.slots
            if best is not None:
                best[asking] = some.target_slots
        return Found(found, best)

    def _of_all_slots(self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int) -> Found:
        """Score all slots in f32."""
        scores, empty = p.inner(state.keys, queries).T, state.values == NO_SLOT
        if p.xp.any(empty):
            scores = p.xp.where(empty, NOTHING, scores)
        best, slots = p.top_k(scores, k)
        slots = p.xp.where(best > NOTHING, slots, NO_SLOT)
        if targets is None:
            return Found(slots, None)
        beyond = partial(_best_of_scored, p, state, scores, targets)
        return Found(slots, best_with_target(p, state, queries, targets, slots, beyond))

    def _of_best_slots(
        self, cut: Cut, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int
    ) -> Found:
        """Score the slots of the best blocks in f32, and of more blocks for queries whose answer is not proven."""
        width, blocks, _ = cut
        coarse = self.scan(p, state, queries, width)
        found, certain = self._of_best_blocks(p, state, queries, coarse, blocks, k)
        left = p.xp.where(~certain)[0]
        while len(left) and self.plan.few_enough(len(state.values), 2 * blocks, width):
            blocks *= 2
            found[left], certain = self._of_best_blocks(p, state, queries[left], coarse.of(left), blocks, k)
            left = left[p.xp.where(~certain)[0]]
        if len(left):
            found[left] = PortableScan().find(p, state, queries[left], None, k).slots
        if targets is None:
            return Found(found, None)
        beyond = partial(best_of_having, p, state, queries, targets, slots_having(p, state), self.plan.targets)
        return Found(found, best_with_target(p, state, queries, targets, found, beyond))

    def certain(self, p: Primitives, state: MemoryState, queries: Array, k: int) -> Array:
        """Whether the first short list of each of unit queries [B] is proven to hold its k nearest slots."""
        width, blocks, _ = self.plan.cut(len(state.values), k, *queries.shape)
        if width == 1:
            return p.xp.full_like(p.xp.any(queries != 0, axis=1), True)
        return self._of_best_blocks(p, state, queries, self.scan(p, state, queries, width), blocks, k)[1]

    def scan(self, p: Primitives, state: MemoryState, queries: Array, width: int) -> CoarseScan:
        """Compare queries [B, key_dim] with all keys, in blocks of so many slots."""
        keys, dtype, roundoff = self.coarse_keys(p, state, len(queries))
        low = p.cast(queries, dtype)
        asked = low if dtype == "float32" else self._of_few_sizes(p, low)
        most = min(self.plan.scores // len(asked), self.plan.chunk if keys is state.keys else len(keys))
        whole, size = len(keys) // width * width, width * max(1, most // width)
        maxima = p.xp.empty_like(p.xp.broadcast_to(asked[:, 0], (whole // width, len(asked))))
        for start in range(0, whole, size):
            some = keys[start : min(start + size, whole)]
            scores = p.inner(p.cast(some, dtype) if keys is state.keys else some, asked)
            maxima[start // width : (start + len(scores)) // width] = self.block_maxima(p, scores, width)
        error = error_of(p, queries, p.cast(low, "float32"), roundoff)
        return CoarseScan(maxima[:, : len(low)], error, 1.01 * roundoff, width, size)

    def _of_few_sizes(self, p: Primitives, rows: Array) -> Array:
        """Rows [B, n], padded by repeating some, so that products have few sizes. For a product of a new size in a low dtype
        a library may first compile a program (oneDNN: 3 to 6 ms, as long as the product takes)."""
        grain = self.plan.fewest_rows if len(rows) >= self.plan.fewest_rows else 8
        return p.xp.concatenate([rows, rows[: -len(rows) % grain]]) if len(rows) >= grain else rows

    def _of_best_blocks(
        self, p: Primitives, state: MemoryState, queries: Array, coarse: CoarseScan, blocks: int, k: int
    ) -> tuple[Array, Array]:
        """The best slots [B, k] in the best blocks, and whether [B] it is proven that no other slot is better."""
        blocks = min(blocks, len(coarse.maxima))
        chosen = self.largest_of_columns(p, coarse.maxima, blocks)
        highest = p.cast(p.take_along(coarse.maxima.T, chosen), "float32")
        certain_above = coarse.most_beyond(p, highest) if blocks < len(coarse.maxima) else p.xp.full_like(coarse.error, NOTHING)
        found, lowest = self._scored(p, state, queries, coarse, chosen, k)
        return found, lowest > certain_above

    def _scored(
        self, p: Primitives, state: MemoryState, queries: Array, coarse: CoarseScan, chosen: Array, k: int
    ) -> tuple[Array, Array]:
        """The best slots [B, k] of the chosen blocks [B, n] by their scores in f32, and the lowest [B] of these scores."""
        rows = max(1, self.plan.gathered_at_once // (chosen.shape[1] * coarse.width * queries.shape[1]))
        parts, keys = [], None
        for start in range(0, len(queries), rows):
            ids = coarse.slots_of(p, chosen[start : start + rows], len(state.values))
            keys = self.gather(p, state.keys, ids, keys)  # in the same memory: new memory takes longer than all else
            scores = p.xp.where(state.values[ids] != NO_SLOT, p.score(queries[start : start + rows], keys), NOTHING)
            order = p.sort_order(scores, ids, k)
            parts.append((p.take_along(ids, order), p.take_along(scores, order[:, -1:])[:, 0]))
        found, lowest = (p.xp.concatenate(part) for part in zip(*parts, strict=True))
        return found, lowest

    def largest_of_columns(self, p: Primitives, scores: Array, k: int) -> Array:
        """Rows [B, k] of the k largest of each column [n, B], in any order, ties to any; block maxima are compared first."""
        count = len(scores)
        width = block_width(count, k)
        stride = count // width
        if width == 1:
            return self.largest(p, scores.T, k)
        maxima = self.block_maxima(p, scores[: width * stride], width)
        rows = self.largest(p, maxima.T, k)[:, None, :] + stride * p.arange(width, scores)[None, :, None]
        rows = and_rest(p, rows.reshape(-1, width * k), width * stride, count)
        return p.take_along(rows, self.largest(p, p.take_along(scores.T, rows), k))


def _without_empty_end(p: Primitives, state: MemoryState, k: int) -> MemoryState:
    """The state without the empty slots after the last filled one, but with at least k slots."""
    filled = p.xp.where(state.values != NO_SLOT)[0]
    count = max(k, int(filled[-1]) + 1 if len(filled) else 0)
    return state._replace(
        keys=state.keys[:count], values=state.values[:count], last_used=state.last_used[:count], hits=state.hits[:count]
    )


def _best_of_scored(p: Primitives, state: MemoryState, scores: Array, targets: Array, rows: Array) -> Array:
    """The best slot [n] with the target of each of these rows [n], by scores [B, slots] of all slots; ties to the lowest."""
    wanted = targets[rows][:, None]
    having = p.xp.where(p.xp.any(state.values[None, :] == wanted, axis=0))[0]
    if not len(having):
        return p.xp.full_like(targets[rows], NO_SLOT)
    own = p.xp.where(state.values[having][None, :] == wanted, scores[rows[:, None], having[None, :]], NOTHING)
    column = own.argmax(1)[:, None]
    best = p.xp.where(p.take_along(own, column) > NOTHING, having[column], NO_SLOT)
    return p.cast(best[:, 0], "int32")
