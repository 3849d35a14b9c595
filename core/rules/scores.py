"""Weights summed by value (rule 15), and the weighted mean of the values' embeddings."""

from __future__ import annotations

from typing import Any

from ..errors import DTypeError, ShapeError
from ..primitives import Primitives
from ..state import Array


def scores(p: Primitives, weights: Array, values: Array, classes: int) -> Array:
    """The sums [B, classes] of weights [B, k] by their values [B, k]; other values than 0 to classes - 1 count for none."""
    xp = p.xp
    if not weights.shape[0]:
        return xp.broadcast_to(weights[:, :1], (0, classes))  # MLX 0.32 cannot add no rows to columns
    counts = (values >= 0) & (values < classes)
    return p.sum_by_column(xp.where(counts, weights, 0.0), xp.where(counts, values, 0), classes)


def mean_of_rows(weights: Array, rows: Array) -> Array:
    """The means [B, dim] of rows [B, k, dim], by their weights [B, k]."""
    return (weights[:, :, None] * rows).sum(1)


def rows_of(p: Primitives, embedding: Any, values: Array) -> Array:
    """The embeddings [B, k, dim] of values [B, k]: an array is indexed, a module is called.

    Where a value is -1 (no neighbor), the row means nothing. A module is called with 0 there.

    Raises:
        DTypeError: the embedding can neither be indexed nor called.
        ShapeError: a module returns another shape.
    """
    if not is_called(embedding):
        if isinstance(embedding, (list, tuple)) or not hasattr(embedding, "__getitem__"):
            raise no_embedding(embedding)
        return embedding[values]
    rows = embedding(p.xp.where(values >= 0, values, 0))
    shape, expected = tuple(getattr(rows, "shape", ())), tuple(values.shape)
    if shape[:-1] != expected:
        raise ShapeError(
            f"the embedding gave {shape} for values {expected}; expected {(*expected, 'dim')}. Give its weights, [values, dim]."
        )
    return rows


def is_called(embedding: Any) -> bool:
    """Whether an embedding is a module or a function, and not an array."""
    return callable(embedding) and not hasattr(embedding, "shape")


def no_embedding(embedding: object) -> DTypeError:
    """The error for an embedding of a wrong type."""
    return DTypeError(
        f"the embedding is a {type(embedding).__name__}; expected an array [values, dim] of the memory's framework, or a "
        "module that takes values [B, k] and gives [B, k, dim]. Of another module give its weights."
    )
