"""Rule 15: how much weight the neighbors of each value have."""

from __future__ import annotations

from ..primitives import Primitives
from ..state import Array


def scores(p: Primitives, weights: Array, values: Array, classes: int) -> Array:
    """The sums [B, classes] of weights [B, k] by their values [B, k]; other values than 0 to classes - 1 count for none."""
    xp = p.xp
    counts = (values >= 0) & (values < classes)
    return p.sum_by_column(xp.where(counts, weights, 0.0), xp.where(counts, values, 0), classes)
