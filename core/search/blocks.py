"""The best of very many, block by block: first the best blocks by their maxima, then the best in these."""

from __future__ import annotations

import math

from ..primitives import Primitives
from ..score_order import NOTHING
from ..state import Array

Best = tuple[Array, Array]
"""scores [B, k] and slots [B, k] i32 of the best so far, the highest first, equals in the order of their slots."""


def block_width(count: int, k: int) -> int:
    """How many of `count` numbers make a block, so that k blocks, and then k numbers in these, are found with least work."""
    return 2 ** max(0, int(math.log2(count / k) / 2))


def best_of_columns(
    p: Primitives, scores: Array, k: int, start: Array | int = 0, before: Best | None = None, lowest: float = NOTHING
) -> Best:
    """The k best of each column of [n, B], whose slots are those from `start`, and of what was found in slots before these.

    No score is below `lowest`.
    """
    scores, slots = _of_best_blocks(p, scores, k, before, lowest)
    return join(p, (scores, slots + start), k, before)


def join(p: Primitives, found: Best, k: int, before: Best | None) -> Best:
    """The k best of what was found, slots ascending, and of what was found in slots before these."""
    scores, slots = found
    if before is not None:
        scores, slots = (p.xp.concatenate(both, axis=1) for both in zip(before, found, strict=True))
    best, places = p.top_k(scores, k)
    return best, p.take_along(slots, places)


def _of_best_blocks(p: Primitives, scores: Array, k: int, before: Best | None, lowest: float) -> Best:
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
    chosen = -p.top_k(-p.top_k(maxima, k)[1], k)[0]  # in the order of rows
    blocks = chosen - (0 if before is None else k)
    rows = (blocks[:, :, None] * width + p.arange(width, scores)[None, None, :]).reshape(columns, k * width)
    found = p.take_along(scores.T, p.xp.where(rows >= 0, rows, 0))
    return p.xp.where(rows >= 0, found, lowest), rows
