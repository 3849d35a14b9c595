"""The NumPy backend. Updates are made in place."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from raremem.backend import ArrayBackend
from raremem.primitives import Primitives, set_all
from raremem.state import MemoryState, mean_of_rows, means_of_rows, quietly

Array = NDArray[Any]
Carry = TypeVar("Carry")


class NumpyPrimitives(Primitives):
    """The table for NumPy."""

    name = "numpy"
    xp: Any = np

    def asarray(self, array: Any, like: Array) -> Array:
        return np.asarray(array)

    def to_numpy(self, array: Array) -> Array:
        return np.array(array)

    def from_numpy(self, state: MemoryState) -> MemoryState:
        return MemoryState(*(np.array(array) for array in state))

    def copy(self, array: Array) -> Array:
        return np.array(array)

    def peek(self, array: Any, wait: bool = False) -> Array:
        return np.asarray(array)

    def eager(self, array: Array) -> bool:
        return True

    def cast(self, array: Array, dtype: str) -> Array:
        return array.astype(dtype, copy=False)

    def constant(self, array: Array) -> Array:
        return array

    def arange(self, count: int, like: Array) -> Array:
        return np.arange(count, dtype=np.int32)

    def multiply(self, array: Array, factor: int) -> Array:
        return array * np.int32(factor)

    def power_of_two(self, array: Array) -> Array:
        return (array.view(np.int32) & 0x7F800000).view(np.float32)

    def inner(self, left: Array, right: Array) -> Array:
        """OpenBLAS takes half the time if the fewer rows come second."""
        return left @ right.T if len(left) > len(right) else (right @ left.T).T

    def score(self, queries: Array, keys: Array) -> Array:
        return np.matmul(keys, queries[:, :, None])[:, :, 0]

    def top_k(self, scores: Array, k: int) -> tuple[Array, Array]:
        columns = np.arange(scores.shape[1], dtype=np.int64)
        ranks = np.partition(_rank_low_first(scores, columns), k - 1, axis=1)[:, :k]
        ranks.sort(axis=1)
        best = (ranks & 0xFFFFFFFF).astype(np.int32)
        return np.take_along_axis(scores, best, axis=1), best

    def take_rows(self, array: NDArray[Any], rows: NDArray[Any], into: NDArray[Any] | None = None) -> NDArray[Any]:
        """Without `clip` NumPy copies once more."""
        return array.take(rows, axis=0) if into is None else array.take(rows, axis=0, out=into[: len(rows)], mode="clip")

    def largest(self, scores: Array, k: int) -> Array:
        return np.argpartition(scores, -k, axis=1)[:, -k:].copy()  # a view would keep all the indices

    def sort_order(self, scores: Array, slots: Array, k: int | None = None) -> Array:
        ranks = _rank_low_first(scores, slots)
        if k is None:
            return np.argsort(ranks, axis=1)
        best = np.argpartition(ranks, k - 1, axis=1)[:, :k]
        return np.take_along_axis(best, np.argsort(np.take_along_axis(ranks, best, axis=1), axis=1), axis=1)

    def take_along(self, array: Array, columns: Array) -> Array:
        return np.take_along_axis(array, columns, axis=1)

    def slice_rows(self, array: Array, start: int, count: int) -> Array:
        return array[start : start + count]

    def put_rows(self, array: Array, rows: Array, content: Array) -> Array:
        array[rows] = content
        return array

    def write(self, state: MemoryState, slots: Array, content: MemoryState) -> MemoryState:
        set_all(state, (slots, slots, slots, slots, ...), content)
        return state


def _rank_low_first(scores: Array, ties: Array) -> Array:
    """One i64 for each entry, in the order that is wanted: highest score first, then lowest tie-breaker.

    The bits of an f32, its magnitude bits flipped where it is negative, order as the numbers do; -0.0 is made 0.0 first.
    """
    if scores.dtype == np.float32:
        bits = (scores + np.float32(0)).view(np.int32)
        scores = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (~scores.astype(np.int64) << 32) | (ties.astype(np.int64) & 0xFFFFFFFF)


class NumpyBackend(ArrayBackend):
    """`ArrayBackend` in NumPy, whatever `numpy.seterr` or warnings that are errors ask for.

    Steps wrap by design, small weights vanish, and rows that are not finite are worked out before they are refused: NumPy's own
    errors would be of what is right.
    """

    query = quietly(ArrayBackend.query)
    update = quietly(ArrayBackend.update)
    to_numpy = quietly(ArrayBackend.to_numpy)


means_of_rows[np.ndarray] = quietly(mean_of_rows)


def default_device() -> str:
    """Where arrays go."""
    return "cpu"


backend = NumpyBackend(NumpyPrimitives())
BACKENDS = {None: backend, False: backend}
