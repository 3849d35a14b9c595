"""Top k of very many scores, block by block: first the k blocks with the largest maxima, then the top k within these."""

from __future__ import annotations

import math

from ..primitives import Primitives
from ..score_order import NOTHING
from ..state import Array

Best = tuple[Array, Array]
"""Scores [B, k] and slots [B, k] i32 of the best so far, highest first, ties in the order of slots."""


def block_width(count: int, k: int) -> int:
    """The size of a block of `count` numbers at which finding k blocks, and then k numbers in them, costs least."""
    return 2 ** max(0, int(math.log2(count / k) / 2))


def best_of_columns(
    p: Primitives, scores: Array, k: int, start: Array | int = 0, before: Best | None = None, lowest: float = NOTHING
) -> Best:
    """The k best of each column of scores [n, B], together with those found before.

    Args:
        p: the primitives.
        scores: [n, B], none below `lowest`.
        k: how many.
        start: the slot of the first row of scores.
        before: the best of the slots before `start`, or None.
        lowest: what scores are padded with.
    """
    scores, slots = _of_best_blocks(p, scores, k, before, lowest)
    return join(p, (scores, slots + start), k, before)


def join(p: Primitives, found: Best, k: int, before: Best | None) -> Best:
    """The k best of `found`, whose slots ascend, and of `before`, whose slots all come earlier."""
    scores, slots = found
    if before is not None:
        scores, slots = (p.xp.concatenate(both, axis=1) for both in zip(before, found, strict=True))
    best, places = p.top_k(scores, k)
    return best, p.take_along(slots, places)


def _of_best_blocks(p: Primitives, scores: Array, k: int, before: Best | None, lowest: float) -> Best:
    """The scores and rows [B, k * width] of the k blocks of rows with the largest maxima, in the order of rows.

    All of the k best are in these blocks: if k blocks came before a row's own block, k rows would come before the row. Each
    score in `before` counts as a block of its own, and is left out of the result.
    """
    count, columns = scores.shape
    width = block_width(count, k)
    if count % width:
        scores = p.xp.concatenate([scores, p.xp.full_like(scores[: -count % width], lowest)], axis=0)
    maxima = p.xp.amax(scores.reshape(scores.shape[0] // width, width, columns), axis=1).T
    if before is not None:
        maxima = p.xp.concatenate([before[0], maxima], axis=1)
    chosen = -p.top_k(-p.top_k(maxima, k)[1], k)[0]  # in the order of rows
    blocks = chosen - (0 if before is None else k)
    rows = (blocks[:, :, None] * width + p.arange(width, scores)[None, None, :]).reshape(columns, k * width)
    found = p.take_along(scores.T, p.xp.where(rows >= 0, rows, 0))
    return p.xp.where(rows >= 0, found, lowest), rows
