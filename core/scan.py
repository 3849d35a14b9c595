"""Rule 2's search in f32, in shapes that do not depend on data: what a compiler can take.

The keys are scanned in chunks, and many queries in groups, so that no [batch, slots] matrix is ever held.
"""

from __future__ import annotations

import math

from .primitives import Primitives
from .state import NO_SLOT, Array, MemoryState

WHOLE = 2**17
"""Slots that are one chunk, where the batch is cut: to cut some out of the keys, a compiler copies them."""
CHUNK = 2**14
"""Slots in a chunk of more than those, at least."""
FEW, MANY = 16, 128
"""Rows that a whole, and a chunk, are at least made for, where more are held than on a CPU."""

NOTHING = -(2.0**127)
"""The score of what is not there: below that of any key, and no infinity, which some run with a trap for. Of f32: a similarity
added to it is lost in its rounding."""

Best = tuple[Array, Array]
"""scores [B, k] and slots [B, k] i32 of the best so far, the highest first, equals in the order of their slots."""


def scan(p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int) -> tuple[Array, Array | None]:
    """See `search.nearest`."""
    if not p.blocks():  # before anything is worked out of the shape: a compiler would guard on it
        return _scan_group(p, state, queries, targets, k, CHUNK)
    batch, slots = queries.shape[0], state.values.shape[0]
    if not isinstance(batch, int):  # a symbol, of an exported program: no groups, since it is not known how many
        return _scan_group(p, state, queries, targets, k, CHUNK)
    held = p.held(queries)
    most = slots if slots <= max(WHOLE, held // max(batch, FEW)) else max(CHUNK, held // max(batch, MANY))
    rows = held // most
    if batch <= rows:
        return _scan_group(p, state, queries, targets, k, most)
    groups = -(-batch // rows)
    row = p.arange(batch, queries)

    def of_group(start: Array | int) -> tuple[Array, ...]:
        some = None if targets is None else p.slice_rows(targets, start, rows)
        slots, best = _scan_group(p, state, p.slice_rows(queries, start, rows), some, k, most)
        return (slots,) if best is None else (slots, best)

    def body(index: Array | int, found: tuple[Array, ...]) -> tuple[Array, ...]:
        """Groups after the first are laid from the end, as chunks are."""
        start = batch - (groups - index) * rows
        return tuple(p.put_rows(all_, row[:rows] + start, some) for all_, some in zip(found, of_group(start), strict=True))

    slots, *best = p.loop(1, groups, body, tuple(p.take_rows(some, row % rows) for some in of_group(0)))
    return slots, best[0] if best else None


def _scan_group(
    p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int, most: int
) -> tuple[Array, Array | None]:
    """All chunks, of at most so many slots, for some of the queries."""
    slots = state.keys.shape[0]
    size = min(slots, max(most, k))
    chunks = -(-slots // size)

    def with_chunk(first: int, start: Array | int, found: tuple[Best, ...]) -> tuple[Best, ...]:
        """What was found, and what is among the slots from `start`, those before `first` left out."""
        ids = p.arange(size, state.values) + start
        values = p.slice_rows(state.values, start, size)
        absent = p.cast(p.xp.where((values != NO_SLOT) & (ids >= first), 0.0, NOTHING), "float32")
        keys = p.constant(p.slice_rows(state.keys, start, size))
        # Laid out for what comes next: the maxima of blocks of slots, or whole rows.
        scores = (p.inner(keys, queries) if p.blocks() else p.inner(queries, keys).T) + absent[:, None]
        best = top_k(p, scores, k, start, found[0] if found else None)
        if targets is None:
            return (best,)
        scores = p.xp.where(values[:, None] == targets[None, :], scores, NOTHING)
        return best, top_k(p, scores, 1, start, found[1] if found else None)

    def body(index: Array | int, found: tuple[Best, ...]) -> tuple[Best, ...]:
        """Chunks after the first are laid from the end, so the second may begin inside the first."""
        return with_chunk(size, slots - (chunks - index) * size, found)

    found = p.loop(1, chunks, body, with_chunk(0, 0, ()))
    best, *best_with_target = (p.xp.where(scores > NOTHING, ids, NO_SLOT) for scores, ids in found)
    return best, best_with_target[0] if best_with_target else None


def top_k(
    p: Primitives, scores: Array, k: int, start: Array | int = 0, before: Best | None = None, lowest: float = NOTHING
) -> Best:
    """The k best of each column of [n, B], whose slots are those from `start`, and of what was found in slots before these.

    No score is below `lowest`.
    """
    if p.blocks():
        scores, slots = _best_blocks(p, scores, k, before, lowest)
    else:
        scores, slots = p.top_k(scores.T, k)
    slots = slots + start
    if before is None and not p.blocks():
        return scores, slots
    if before is not None:
        scores, slots = (p.xp.concatenate(both, axis=1) for both in zip(before, (scores, slots), strict=True))
    best, places = p.top_k(scores, k)
    return best, p.take_along(slots, places)


def block_width(count: int, k: int) -> int:
    """How many of `count` numbers make a block, so that k blocks, and then k numbers in these, are found with least work."""
    return 2 ** max(0, int(math.log2(count / k) / 2))


def _best_blocks(p: Primitives, scores: Array, k: int, before: Best | None, lowest: float) -> Best:
    """The scores and rows [B, k * width] of the k best blocks of rows by their maximum, in the order of rows.

    Whatever is among the k best is in one of those: k blocks before its own would hold k rows before it. What was found before
    counts as so many blocks, which are left out.
    """
    count, columns = scores.shape
    width = block_width(count, k)
    if count % width:
        scores = p.xp.concatenate([scores, p.xp.full_like(scores[: -count % width], lowest)], axis=0)
    maxima = p.xp.amax(scores.reshape(scores.shape[0] // width, width, columns), axis=1).T
    if before is not None:
        maxima = p.xp.concatenate([before[0], maxima], axis=1)
    blocks = p.ascending(p.top_k(maxima, k)[1]) - (0 if before is None else k)
    rows = (blocks[:, :, None] * width + p.arange(width, scores)[None, None, :]).reshape(columns, k * width)
    found = p.take_along(scores.T, p.xp.where(rows >= 0, rows, 0))
    return p.xp.where(rows >= 0, found, lowest), rows
