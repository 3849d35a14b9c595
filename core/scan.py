"""Rule 2's search in f32, in shapes that do not depend on data: what a compiler can take.

The keys are scanned in chunks, so that no [batch, slots] matrix is ever held.
"""

from __future__ import annotations

import math

from .primitives import Primitives
from .state import NO_SLOT, Array, MemoryState

CHUNK = 16_384
"""Slots in a chunk, whatever the batch: a compiler for any batch size must not have to reason about it."""

NOTHING = -float("inf")

Candidates = tuple[Array, Array, Array, Array]
"""scores [B, k] f32 and slots [B, k] i32 of the nearest; score [B, 1] and slot [B, 1] of the best with the target."""


def scan(p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int) -> tuple[Array, Array | None]:
    """See `search.nearest`."""
    slots = state.keys.shape[0]
    size = min(slots, max(CHUNK, k))
    chunks = -(-slots // size)

    def candidates(first: int, start: Array | int) -> Candidates:
        """Candidates among the slots from `start`, those before `first` left out."""
        ids = p.arange(size, state.values) + start
        values = p.slice_rows(state.values, start, size)
        present = (values != NO_SLOT) & (ids >= first)
        absent = p.cast(p.xp.where(present, 0.0, NOTHING), "float32")
        scores = p.inner(queries, p.slice_rows(state.keys, start, size)) + absent[None, :]
        best, columns = top_k(p, scores, k)
        if targets is None:
            return best, columns + start, best[:, :1], columns[:, :1]
        scores = p.xp.where(values[None, :] == targets[:, None], scores, NOTHING)
        highest, column = _highest(p, scores)
        return best, columns + start, highest, column + start

    def body(index: Array | int, found: Candidates) -> Candidates:
        """Chunks after the first are laid from the end, so the second may begin inside the first."""
        return _merge(p, found, candidates(size, slots - (chunks - index) * size), k)

    scores, ids, target_score, target_id = p.loop(1, chunks, body, candidates(0, 0))
    ids = p.xp.where(scores > NOTHING, ids, NO_SLOT)
    if targets is None:
        return ids, None
    return ids, p.xp.where(target_score > NOTHING, target_id, NO_SLOT)


def top_k(p: Primitives, scores: Array, k: int, lowest: float = NOTHING) -> tuple[Array, Array]:
    """`p.top_k` in two levels: the k best blocks of columns by their maximum, then the k best columns in them.

    No score is below `lowest`.

    Whatever is among the k best columns is in one of those blocks: k blocks before its own would hold k columns before it.
    """
    if not p.blocks():  # before anything is worked out of the shape: a compiler would guard on it
        return p.top_k(scores, k)
    rows, count = scores.shape
    width = 2 ** int(math.log2(count / k) / 2)
    if width == 1:
        return p.top_k(scores, k)
    if count % width:
        filler = p.xp.full_like(scores[:, : -count % width], lowest)
        scores = p.xp.concatenate([scores, filler], axis=1)
    maxima = p.xp.amax(scores.reshape(rows, -1, width), axis=2)
    _, blocks = p.top_k(maxima, k)
    blocks = p.take_along(blocks, p.sort_order(blocks * 0, blocks))
    columns = (blocks[:, :, None] * width + p.arange(width, scores)).reshape(rows, k * width)
    best, places = p.top_k(p.take_along(scores, columns), k)
    return best, p.take_along(columns, places)


def _highest(p: Primitives, scores: Array) -> tuple[Array, Array]:
    """`top_k` with a k of 1. By blocks, since XLA's argmax on a CPU looks at one number after the other."""
    if p.blocks():
        return top_k(p, scores, 1)
    column = p.cast(p.xp.argmax(scores, axis=1), "int32")[:, None]
    return p.take_along(scores, column), column


def _merge(p: Primitives, low: Candidates, high: Candidates, k: int) -> Candidates:
    """Both candidate lists in one. `low` comes from lower slots: first in place, it wins ties."""
    ids = p.xp.concatenate([low[1], high[1]], axis=1)
    scores, columns = p.top_k(p.xp.concatenate([low[0], high[0]], axis=1), k)
    better = high[2] > low[2]
    return (
        scores,
        p.take_along(ids, columns),
        p.xp.where(better, high[2], low[2]),
        p.xp.where(better, high[3], low[3]),
    )
