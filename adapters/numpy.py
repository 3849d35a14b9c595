"""The NumPy backend. Updates are made in place."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem import score_order
from raremem.backend import ArrayBackend
from raremem.errors import StateError
from raremem.primitives import Primitives, set_all
from raremem.search.blocks import block_width
from raremem.search.shortlist import Shortlist
from raremem.state import MemoryState, backends_of, quietly

Array = NDArray[Any]


_MAY_WRITE = operator.attrgetter("flags.writeable")
"""Whether an array may be written to: one that another library shares, or a number that arithmetic made of [], may not."""


def is_product_cheaper(always_gathered: int, array: Any, rows: Any) -> bool:
    """Whether scoring rows [m, n] of `array` [slots, d] on a CPU costs less by a product with the whole array.

    It does if the gathered rows would hold more numbers than fit in a cache (`always_gathered`), and at least twice as many as
    the product of the m queries.
    """
    (batch, n), (slots, dim) = rows.shape, array.shape
    return batch * n * dim >= always_gathered and 2 * batch * slots <= batch * n * dim


class NumpyPrimitives(Primitives):
    """The table for NumPy."""

    name = "numpy"
    xp: Any = np
    eager = True
    always_gathered = 2**21
    """So many numbers of gathered keys fit into a CPU's cache: below that, keys are always gathered."""
    sorted_at_once = 2**11
    """`top_k` sorts so many numbers at most; of more, it first leaves most out."""

    def asarray(self, array: Any, like: Array | None = None) -> Array:
        return np.asarray(array)

    def to_numpy(self, array: Array) -> Array:
        return np.array(array)

    def copy(self, array: Array) -> Array:
        return np.array(array)

    def peek(self, array: Any, wait: bool = False) -> Array:
        return np.asarray(array)

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
        """The product with the fewer rows second, which OpenBLAS computes in half the time."""
        return left @ right.T if len(left) > len(right) else (right @ left.T).T

    def score(self, queries: Array, keys: Array) -> Array:
        return np.matmul(keys, queries[:, :, None])[:, :, 0]

    def score_rows(self, queries: Array, array: Array, rows: Array) -> Array:
        if is_product_cheaper(self.always_gathered, array, rows):
            return self.take_along(self.inner(queries, array), rows)
        return self.score(queries, array.take(rows, axis=0))

    def top_k(self, scores: Array, k: int) -> tuple[Array, Array]:
        if scores.size <= self.sorted_at_once:
            columns = self.sort_order(scores, np.arange(scores.shape[1]), k).astype(np.int32)
            return self.take_along(scores, columns), columns
        row, column = _contenders(scores, k)
        found = scores[row, column]
        order = np.lexsort((column, -found if found.dtype == np.float32 else ~found, row))
        first = np.searchsorted(row[order], np.arange(len(scores)))
        order = order[first[:, None] + np.arange(k)]
        return found[order], column[order].astype(np.int32)

    def sort_order(self, scores: Array, slots: Array, k: int | None = None) -> Array:
        if scores.dtype == np.float32:
            scores = score_order.ordered(np.ascontiguousarray(scores).view(np.int32))
        ranked = ~score_order.ordinal(scores.astype(np.int64), slots)  # NumPy sorts the smallest first
        if k is None or k == scores.shape[1]:
            return np.argsort(ranked, axis=1)
        best = np.argpartition(ranked, k - 1, axis=1)[:, :k]
        return self.take_along(best, np.argsort(self.take_along(ranked, best), axis=1))

    def take_along(self, array: Array, columns: Array) -> Array:
        return array[np.arange(len(array))[:, None], columns]  # `take_along_axis` takes twice as long for a few

    def sum_by_column(self, array: Array, columns: Array, count: int) -> Array:
        places = columns + count * np.arange(len(columns))[:, None]
        sums = np.bincount(places.reshape(-1), array.reshape(-1), count * len(columns))
        return sums.astype(np.float32).reshape(-1, count)

    def slice_rows(self, array: Array, start: int, count: int) -> Array:
        return array[start : start + count]

    def put_rows(self, array: Array, rows: Array, content: Array) -> Array:
        array[rows] = content
        return array

    def write(self, state: MemoryState, slots: Array, content: MemoryState) -> MemoryState:
        if not all(map(_MAY_WRITE, state)):
            fixed = next(name for name, array in state._asdict().items() if not _MAY_WRITE(array))
            raise StateError(
                f"{fixed} of the state may not be written to; expected arrays of its own. Make such with backend.copy(state)."
            )
        set_all(state, (slots, slots, slots, slots, ...), content)
        return state


def _contenders(scores: Array, k: int) -> tuple[Array, Array]:
    """The rows [n] and columns [n] of the numbers that may be among the k largest of their row, ties included.

    The k-th largest block maximum is at most the k-th largest number. Numbers below it are left out.
    """
    (rows, count), width = scores.shape, block_width(scores.shape[1], k)
    blocks = count // width
    whole = width * blocks  # columns that are `blocks` apart make a block; those after the last whole block are in none
    maxima = scores[:, :whole].reshape(rows, width, blocks).max(axis=1)
    lowest = np.partition(maxima, -k, axis=1)[:, -k]
    row, block = np.nonzero(~(maxima < lowest[:, None]))  # NaN, of a state made by hand, is kept
    row = np.concatenate([np.repeat(row, width), np.repeat(np.arange(rows), count - whole)])
    column = (block[:, None] + blocks * np.arange(width)).reshape(-1)
    column = np.concatenate([column, np.tile(np.arange(whole, count), rows)])
    left = ~(scores[row, column] < lowest[row])
    return row[left], column[left]


class NumpyShortlist(Shortlist):
    """`Shortlist` with the fastest calls that NumPy has."""

    def largest(self, p: Primitives, scores: Array, k: int) -> Array:
        return np.argpartition(scores, -k, axis=1)[:, -k:].copy()  # a view would keep all the indices

    def gather(self, p: Primitives, keys: Array, rows: Array, into: Array | None) -> Array:
        """See `Shortlist.gather`. Without `mode="clip"` NumPy copies once more."""
        return keys.take(rows, axis=0) if into is None else keys.take(rows, axis=0, out=into[: len(rows)], mode="clip")


class NumpyBackend(ArrayBackend):
    """`ArrayBackend` in NumPy, without NumPy's floating-point errors and warnings, whatever `numpy.seterr` asks for.

    Steps wrap and small weights underflow by design, and rows that are not finite are computed before they are rejected.
    """

    table = NumpyPrimitives
    search = NumpyShortlist

    query = quietly(ArrayBackend.query)
    update = quietly(ArrayBackend.update)
    forget = quietly(ArrayBackend.forget)
    to_numpy = quietly(ArrayBackend.to_numpy)
    recall = quietly(ArrayBackend.recall)
    scores = quietly(ArrayBackend.scores)


def default_device() -> str:
    """The device of arrays."""
    return "cpu"


backend = NumpyBackend()
backends_of[np.ndarray] = backend
BACKENDS = {None: backend, False: backend}
