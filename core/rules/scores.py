"""What the weights of neighbors say: the score of each value (rule 15), and the mean of what stands for the values."""

from __future__ import annotations

from ..primitives import Primitives
from ..state import Array


def scores(p: Primitives, weights: Array, values: Array, classes: int) -> Array:
    """The sums [B, classes] of weights [B, k] by their values [B, k]; other values than 0 to classes - 1 count for none."""
    xp = p.xp
    counts = (values >= 0) & (values < classes)
    return p.sum_by_column(xp.where(counts, weights, 0.0), xp.where(counts, values, 0), classes)


def mean_of_rows(weights: Array, values: Array, embedding: Array) -> Array:
    """The means [B, dim] of rows of an embedding [values, dim]: those of values [B, k], by their weights [B, k]."""
    return (weights[:, :, None] * embedding[values]).sum(1)
