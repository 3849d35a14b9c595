"""Rule 2's search, exact: the top k slots of each query, and the best slot that holds its target.

Where shapes may depend on data, most slots are ruled out by a coarse scan: of each block of slots only the largest coarse
similarity is kept, the slots of the best blocks are scored in f32, and a bound on the rounding of the coarse scan proves for
each query that no other slot belongs among its k. Where it does not, more blocks are scored, and at last all. In a small memory
the scan is in f32, and its blocks are single slots: then only equals at the end of the list ask for more.

Nothing here is differentiable: the search answers with slots, and `algorithm.query` scores those again, with a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from .primitives import Primitives
from .scan import NOTHING, block_width, scan
from .state import NO_SLOT, Array, MemoryState

ROWS = 512
"""Queries at a time, at most: what is kept of the blocks must not grow with the batch."""
FEWEST_ROWS = 64
"""Queries at a time, at least, for narrower blocks: every time all keys are read again."""
MAXIMA = 2**23
"""What is kept of the blocks, at most: 32 MB."""
SCORES = 2**20
"""Similarities at a time: few enough to stay in a processor's cache. No more than these are all kept, in f32."""
CHUNK = 2**14
"""Slots at a time, at most, of keys to be converted: what they are converted to should stay there too."""
GATHERED = 2**21
"""Numbers of keys gathered at a time, and twice those of the maxima chosen among: NumPy's indices of these are so large."""
SHARE = 16
"""Of the slots, one in so many may be scored in f32 after the coarse scan; a query that needs more has all scored."""
F32 = 2.0**-24
"""Unit roundoff of f32."""


Search = Callable[[Primitives, MemoryState, Array, Array | None, int], tuple[Array, Array | None]]
"""What `nearest` is."""
Gather = Callable[[Array, Array, int], tuple[Array, Array]]
"""From this holder's scores and slots [B, n], n at most the third, those [B, m] of all holders, at least so many each row."""


class CoarseScan(NamedTuple):
    """What a scan in low precision leaves: for each of some queries, the best of each block.

    A chunk of `size` slots is `size // width` blocks: its first block has its first slot and every `size // width`-th after,
    its next block has the next slot, and so on. The last chunk may be shorter; slots after the last whole block are in none.

    Attributes:
        maxima: [blocks, B], the largest coarse similarity in each block, or more.
        error: [B] f32, a bound on how far a coarse similarity, before it is rounded, is below the exact one.
        roundoff: how far, relative to itself, it may be rounded.
        width: slots in a block.
        size: slots in a chunk.
    """

    maxima: Array
    error: Array
    roundoff: float
    width: int
    size: int

    def of(self, rows: Array) -> CoarseScan:
        """The scan of some of the queries."""
        return self._replace(maxima=self.maxima[:, rows], error=self.error[rows])

    def most_beyond(self, p: Primitives, maxima: Array) -> Array:
        """A bound [B] on the exact similarity of any slot in a block but those with these maxima [B, n], the largest."""
        lowest = p.xp.amin(maxima, axis=1)
        return lowest + self.roundoff * p.xp.abs(lowest) + self.error

    def slots_of(self, p: Primitives, blocks: Array, slots: int) -> Array:
        """The slots [B, m] of blocks [B, n] and those in none, in a memory of so many slots."""
        whole = slots // self.width * self.width
        start = blocks // (self.size // self.width) * self.size
        stride = p.xp.where(start + self.size <= whole, self.size, whole - start) // self.width
        first = start + blocks % (self.size // self.width)
        ids = (first[:, :, None] + stride[:, :, None] * p.arange(self.width, blocks)).reshape(len(blocks), -1)
        return p.cast(_and_rest(p, ids, whole, slots), "int32")


def nearest(p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int) -> tuple[Array, Array | None]:
    """The slots most similar to unit queries [B, key_dim].

    Returns:
        Slots [B, k] of the most similar keys, and [B, 1] of the most similar with the target's value, or None without targets.
        Equal scores go to the lowest slot. -1 stands where there is no slot; what stands for a query of zeros means nothing.
    """
    if not all(p.eager(array) for array in (queries, state.values, targets) if array is not None):
        return p.nearest(state, queries, targets, k) or scan(p, state, queries, targets, k)
    asking = p.xp.where(p.xp.any(queries != 0, axis=1))[0]
    if len(asking) < len(queries):
        return _nearest_of_some(p, state, queries, targets, asking, k)
    state = _filled(p, state, k)
    width, rows = width_and_rows(len(state.values), shortlist(k), queries.shape)
    parts = [_shortlisted(p, state, queries[start : start + rows], width, k) for start in range(0, len(queries), rows)]
    found = p.xp.concatenate(parts)
    return found, None if targets is None else best_with_target(p, state, queries, targets, found, partial(_having, p, state))


def _nearest_of_some(
    p: Primitives, state: MemoryState, queries: Array, targets: Array | None, asking: Array, k: int
) -> tuple[Array, Array | None]:
    """As `nearest`, for the rows [n] that ask: what is masked costs nothing."""
    slots = p.cast(p.xp.full_like(queries[:, :1], NO_SLOT), "int32") + 0 * p.arange(k, queries)
    best = None if targets is None else p.copy(slots[:, :1])
    if len(asking):
        slots[asking], found = nearest(p, state, queries[asking], None if targets is None else targets[asking], k)
        if best is not None:
            best[asking] = found
    return slots, best


def nearest_of_shards(
    p: Primitives, part: MemoryState, first: Array | int, queries: Array, targets: Array | None, k: int, gather: Gather
) -> tuple[Array, Array | None]:
    """As `nearest`, in a memory of which every holder has a part: this one's begins with the slot `first`."""
    xp, count = p.xp, min(k, len(part.values))
    nothing = p.cast(queries[:, :0], "int32")
    places, best = nearest(p, part, queries, targets, count) if count else (nothing, nothing)

    def of_all(places: Array, k: int) -> Array:
        slots = xp.where(places != NO_SLOT, places + first, NO_SLOT)
        scores, slots = gather(scores_of(p, part, queries, places), slots, k)
        return p.take_along(slots, p.sort_order(scores, slots, k))

    return of_all(places, k), None if targets is None else of_all(best, 1)


def scores_of(p: Primitives, state: MemoryState, queries: Array, slots: Array) -> Array:
    """Scores [B, n] of each query with its own slots [B, n]; `NOTHING` where there is no slot, or nothing in it."""
    there = slots != NO_SLOT
    rows = p.xp.where(there, slots, 0)
    scores = p.score(queries, p.take_rows(state.keys, rows))
    return p.xp.where(there & (p.take_rows(state.values, rows) != NO_SLOT), scores, NOTHING)


def _filled(p: Primitives, state: MemoryState, k: int) -> MemoryState:
    """The state without the empty slots after the last that is filled, but with k slots."""
    if state.values[-1] != NO_SLOT:
        return state
    filled = p.xp.where(state.values != NO_SLOT)[0]
    count = max(k, int(filled[-1]) + 1 if len(filled) else 0)
    return state._replace(
        keys=state.keys[:count], values=state.values[:count], last_used=state.last_used[:count], hits=state.hits[:count]
    )


def shortlist(k: int) -> int:
    """Blocks to score at first: rounding may put some more slots before the best k."""
    return k + k // 2 + 8


def width_and_rows(slots: int, blocks: int, queries: tuple[int, int]) -> tuple[int, int]:
    """Slots in a block, a power of two, and rows at a time, for queries of this shape.

    As many slots as make the choice of blocks and the scoring of their slots cost alike (measured: a slot gathered and scored
    costs as much as key_dim maxima). Where there would be too many maxima, twice as many, or else fewer rows at a time. One
    slot where that makes few maxima, or so many slots would be scored that all may be.
    """
    batch, dim = queries
    alike = 2 ** max(2, round(math.log2(slots / (blocks * dim)) / 2))
    if slots * batch <= SCORES or not few_enough(slots, blocks, alike):
        return 1, max(1, GATHERED // (2 * slots))
    rows = min(batch, ROWS)
    while rows >= 2 * FEWEST_ROWS and slots * rows > 2 * alike * MAXIMA:
        rows //= 2
    return max(alike, 2 ** math.ceil(math.log2(slots * rows / MAXIMA))), rows


def few_enough(slots: int, blocks: int, width: int) -> bool:
    """Whether to score these blocks, and not all slots."""
    return blocks * width * SHARE <= slots


def _shortlisted(p: Primitives, state: MemoryState, queries: Array, width: int, k: int) -> Array:
    """Slots [B, k] of the most similar keys."""
    coarse, blocks = coarse_scan(p, state, queries, width), k + 1 if width == 1 else shortlist(k)
    found, certain = of_best_blocks(p, state, queries, coarse, blocks, k)
    left = p.xp.where(~certain)[0]
    while len(left) and few_enough(len(state.values), 2 * blocks, width):
        blocks *= 2
        found[left], certain = of_best_blocks(p, state, queries[left], coarse.of(left), blocks, k)
        left = left[p.xp.where(~certain)[0]]
    if len(left):
        found[left] = scan(p, state, queries[left], None, k)[0]
    return found


def coarse_scan(p: Primitives, state: MemoryState, queries: Array, width: int) -> CoarseScan:
    """Compare queries [B, key_dim] with all keys, in blocks of so many slots; in f32 if these are single."""
    if width == 1:
        return CoarseScan(p.inner(queries, state.keys).T, 0 * queries[:, 0], 0.0, 1, len(state.keys))
    keys, dtype, roundoff = p.coarse(state, len(queries))
    low = p.cast(queries, dtype)
    asked = low if dtype == "float32" else _of_few_sizes(p, low)
    most = min(SCORES // len(asked), CHUNK if keys is state.keys else len(keys))
    whole, size = len(keys) // width * width, width * max(1, most // width)
    maxima = p.xp.empty_like(p.xp.broadcast_to(asked[:, 0], (whole // width, len(asked))))
    for start in range(0, whole, size):
        scores = p.inner(p.cast(keys[start : min(start + size, whole)], dtype), asked)
        maxima[start // width : (start + len(scores)) // width] = p.block_maxima(scores, width)
    return CoarseScan(maxima[:, : len(low)], _error(p, queries, p.cast(low, "float32"), roundoff), 1.01 * roundoff, width, size)


def _of_few_sizes(p: Primitives, rows: Array) -> Array:
    """Rows [B, n], and some of them again. For a product in a low dtype of a size that is new, a library may first make a
    program (oneDNN: 3 to 6 ms, as long as the product takes), and as many rows as are not masked ask."""
    grain = FEWEST_ROWS if len(rows) >= FEWEST_ROWS else 8
    return p.xp.concatenate([rows, rows[: -len(rows) % grain]]) if len(rows) >= grain else rows


def _error(p: Primitives, queries: Array, low: Array, roundoff: float) -> Array:
    """How far a coarse similarity [B], before it is rounded, may be below the exact one, for keys and queries of norm 1.

    With q~ and k~ rounded, |q.k - q~.k~| <= |q - q~| |k| + |q~| |k - k~|: the first is measured, the second is at most the
    roundoff. Both products are summed in f32, each with an error of at most key_dim units. One in a hundred is for norms that
    are 1 but for rounding, and for the rounding of all this.
    """
    lost = queries - low
    return 1.01 * (p.xp.sqrt(p.xp.sum(lost * lost, axis=1)) + roundoff + 2 * queries.shape[1] * F32)


def of_best_blocks(
    p: Primitives, state: MemoryState, queries: Array, coarse: CoarseScan, blocks: int, k: int
) -> tuple[Array, Array]:
    """The best slots [B, k] among those of the best blocks, and whether [B] it is certain that no others are better."""
    xp, slots, width = p.xp, len(state.values), coarse.width
    blocks = min(blocks, len(coarse.maxima))
    chosen = largest(p, coarse.maxima, blocks)
    highest = p.cast(p.take_along(coarse.maxima.T, chosen), "float32")
    others = coarse.most_beyond(p, highest) if blocks < len(coarse.maxima) else 0 * coarse.error + NOTHING
    rows = max(1, GATHERED // (blocks * width * queries.shape[1]))
    found, certain, keys = [], [], None
    for start in range(0, len(queries), rows):
        some = slice(start, start + rows)
        if width == 1:
            ids, scores = p.cast(chosen[some], "int32"), highest[some]
        else:
            ids = coarse.slots_of(p, chosen[some], slots)
            keys = p.take_rows(state.keys, ids, keys)  # in the same memory: new memory takes longer than all else
            scores = p.score(queries[some], keys)
        scores = xp.where(p.take_rows(state.values, ids) != NO_SLOT, scores, NOTHING)
        order = p.sort_order(scores, ids, k)
        found.append(p.take_along(ids, order))
        certain.append(p.take_along(scores, order)[:, -1] > others[some])
    return xp.concatenate(found), xp.concatenate(certain)


def largest(p: Primitives, scores: Array, k: int) -> Array:
    """Rows [B, k] of the k largest of each column [n, B], in any order, any of equals: of rows far apart at first only the
    largest is compared."""
    count = len(scores)
    width = block_width(count, k)
    stride = count // width
    if width == 1:
        return p.largest(scores.T, k)
    maxima = p.block_maxima(scores[: width * stride], width)
    rows = p.largest(maxima.T, k)[:, None, :] + stride * p.arange(width, scores)[None, :, None]
    rows = _and_rest(p, rows.reshape(-1, width * k), width * stride, count)
    return p.take_along(rows, p.largest(p.take_along(scores.T, rows), k))


def _and_rest(p: Primitives, columns: Array, start: int, stop: int) -> Array:
    """Columns [B, n], and after them in every row those from `start` to `stop`."""
    rest = p.arange(stop - start, columns) + start
    return p.xp.concatenate([columns, 0 * columns[:, :1] + rest[None, :]], axis=1)


def best_with_target(
    p: Primitives, state: MemoryState, queries: Array, targets: Array, slots: Array, having: Callable[[Array], Array]
) -> Array:
    """The best slot [B, 1] with each target: the first neighbor that has it, or else the best of all slots that do.

    `having` gives, for targets, all slots [n] that have one of them; others among them do no harm.
    """
    xp = p.xp
    right = (state.values[slots] == targets[:, None]) & (slots != NO_SLOT)
    among = xp.any(right, axis=1)
    best = xp.where(among, p.take_along(slots, p.cast(right, "int32").argmax(1)[:, None])[:, 0], NO_SLOT)
    asking = xp.where(~among & xp.any(queries != 0, axis=1))[0]
    if len(asking):
        best[asking] = _best_of(p, state, queries[asking], targets[asking], having(targets[asking]))
    return best[:, None]


def _having(p: Primitives, state: MemoryState, targets: Array) -> Array:
    """The slots [n] that have one of the targets, in order."""
    xp = p.xp
    wanted = xp.unique(targets)
    place = xp.searchsorted(wanted, state.values)
    return p.cast(xp.where(wanted[xp.where(place < len(wanted), place, 0)] == state.values)[0], "int32")


def _best_of(p: Primitives, state: MemoryState, queries: Array, targets: Array, ids: Array) -> Array:
    """The best slot [B] with each target, among slots [n], in order."""
    xp = p.xp
    best = p.cast(xp.full_like(queries[:, 0], NO_SLOT), "int32")
    score = xp.full_like(queries[:, 0], NOTHING)
    size = max(1, GATHERED // len(queries))
    for start in range(0, len(ids), size):
        some = ids[start : start + size]
        scores = p.inner(queries, p.take_rows(state.keys, some))
        scores = xp.where(p.take_rows(state.values, some)[None, :] == targets[:, None], scores, NOTHING)
        column = scores.argmax(1)
        highest = p.take_along(scores, column[:, None])[:, 0]
        best, score = xp.where(highest > score, some[column], best), xp.where(highest > score, highest, score)
    return best
