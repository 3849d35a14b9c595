"""The small table of array operations from which every backend is made.

What the frameworks spell alike (`where`, `sum`, `any`, `cumsum`, `argmax`, `sqrt`, `exp`, ...) the rules take from the table's
namespace `xp`. The rest of the table is what they do not: its abstract methods are all that a new backend writes. The others
have a body here, which is right for every framework whose arrays support what follows.

What is asked of arrays, beside what the table and `xp` do with them:

- attributes: `shape`, a tuple; `dtype`, whose name `validation.dtype_name` can tell; `T`, of two dimensions
- `len(x)`; where nothing is traced, `int(x)` of a whole number [], and `numpy.asarray(x)` for whoever reads results
- `x.reshape(...)`, with one -1 at most; `x.sum(1)` in `Lookup.recall`
- f32 and i32, with their like and with Python numbers: `+ - * / % == != < <= > >=`, broadcast as NumPy does. A Python number
  leaves the dtype as it is. `/` is asked of f32 alone, and `%` of i32 that are not negative by a positive number. `+` and `-`
  of i32 wrap at 32 bits.
- bool: `& | ~`
- indexing: by int, slice, None and `...`; `x[rows]` with i32 of any shape chooses rows, of which -1 is the last, and so does
  `x[:, rows]`
- where the table is `eager`, also: by bool or i64, `x[rows] = y`, `x.argmax(1)`, `<` and the like with infinite numbers
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from numpy.typing import NDArray

from .state import Array, MemoryState

Carry = TypeVar("Carry")


def set_all(arrays: Iterable[Any], places: Iterable[Any], contents: Iterable[Any]) -> None:
    """`array[place] = content` for each, for arrays whose item assignment is written in C.

    It is one call into C: Python runs the handler of a signal between two of its own instructions, and so not in between.
    """
    deque(map(operator.setitem, arrays, places, contents), maxlen=0)


class Primitives(ABC):
    """One framework's operations. Arrays are [rows, columns] unless a method says otherwise."""

    in_place: bool = True
    """Whether an update writes to the arrays of the state that it is given; else arrays never change."""
    eager: bool = False
    """Whether shapes may depend on the content of arrays: it is there to be seen, at no cost, and nothing is compiled."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What `raremem.get_backend` calls it. An attribute of the class will do."""

    @property
    @abstractmethod
    def xp(self) -> Any:
        """A namespace that follows NumPy, for arrays and Python numbers: where, sum, amax, any, cumsum, argmax, abs, sqrt, exp,
        log, concatenate, broadcast_to, full_like, zeros_like, bitwise_xor, bitwise_and, bitwise_right_shift (of i32; it repeats
        the sign). Where the table is `eager`, also amin, maximum, searchsorted, empty_like. An attribute will do."""

    # Arrays and the host.

    @abstractmethod
    def asarray(self, array: Any, like: Array | None = None) -> Array:
        """`array` as this framework's own, on the device of `like` or on the default device. The same object if it is that
        already; else it may share memory with a NumPy array that is given."""

    @abstractmethod
    def to_numpy(self, array: Array) -> NDArray[Any]:
        """A copy of `array` in NumPy."""

    @abstractmethod
    def copy(self, array: Array) -> Array:
        """An array of the same content in memory of its own."""

    @abstractmethod
    def peek(self, array: Array, wait: bool = False) -> NDArray[Any] | None:
        """`array` in NumPy, or None if its content is unknown (traced), is not all here, or would make an accelerator wait.

        With `wait`, only a traced array gives None.
        """

    def identity(self, array: Array) -> Any | None:
        """The object that stands for this array while it lives; None while it is traced."""
        return array

    # Arithmetic.

    @abstractmethod
    def cast(self, array: Array, dtype: str) -> Array:
        """`array` in the dtype of that NumPy name: "int32", "float32", or what a searcher of this framework scans in."""

    @abstractmethod
    def constant(self, array: Array) -> Array:
        """`array`, closed to gradients."""

    @abstractmethod
    def arange(self, count: int, like: Array) -> Array:
        """0, 1, ..., count - 1 in i32, on the device of `like`."""

    @abstractmethod
    def multiply(self, array: Array, factor: int) -> Array:
        """`array * factor` modulo 2**32, both i32."""

    @abstractmethod
    def power_of_two(self, array: Array) -> Array:
        """The largest power of two that is not above each entry of `array`, f32, all normal and positive."""

    @abstractmethod
    def inner(self, left: Array, right: Array) -> Array:
        """[m, d] x [n, d] -> [m, n]: the inner products of rows, summed in f32."""

    @abstractmethod
    def score(self, queries: Array, keys: Array) -> Array:
        """[m, d] x [m, n, d] -> [m, n]: each query with its own n keys, summed in f32. Differentiable."""

    def score_rows(self, queries: Array, array: Array, rows: Array) -> Array:
        """[m, d] x [slots, d] x [m, n] -> [m, n]: each query with its own n rows of `array`, none of them negative.

        Differentiable by both. A gradient uses the rows as they are now, even if `array` is written to before it is taken.
        """
        return self.score(queries, array[rows])

    # Order.

    @abstractmethod
    def top_k(self, scores: Array, k: int) -> tuple[Array, Array]:
        """The k largest of each row [m, n], f32 or i32, largest first, and their columns in i32; equals (0.0 is -0.0) by
        column."""

    @abstractmethod
    def sort_order(self, scores: Array, slots: Array, k: int | None = None) -> Array:
        """[m, n] columns that sort each row by score, largest first, equals (0.0 is -0.0) by slot; the first k, if given."""

    # Rows.

    @abstractmethod
    def take_along(self, array: Array, columns: Array) -> Array:
        """Entries [m, k] of `array` [m, n], chosen row by row."""

    @abstractmethod
    def sum_by_column(self, array: Array, columns: Array, count: int) -> Array:
        """[m, n] x [m, n] -> [m, count]: in each row the sums of the entries of `array`, f32, that have the same column, of
        `columns`, i32, in [0, count). On a CPU the same to the bit every time. Differentiable by `array`."""

    @abstractmethod
    def slice_rows(self, array: Array, start: Array | int, count: int) -> Array:
        """`array[start : start + count]`, where `start` may be traced."""

    @abstractmethod
    def put_rows(self, array: Array, rows: Array, content: Array) -> Array:
        """`array` with `array[rows] = content`; in place where the framework can. Equal rows bring equal content."""

    def write(self, state: MemoryState, slots: Array, content: MemoryState) -> MemoryState:
        """The state with its rows at slots [n] as in `content` (rows [n, ...] of each array, and the step). Equal slots bring
        equal content. Where arrays are written in place, in one call into C, so that no signal leaves half of it (rule 11)."""
        put = partial(self.put_rows, rows=slots)
        return MemoryState(
            keys=put(state.keys, content=content.keys),
            values=put(state.values, content=content.values),
            last_used=put(state.last_used, content=content.last_used),
            hits=put(state.hits, content=content.hits),
            step=content.step,
        )

    def loop(self, start: int, stop: int, body: Callable[[Any, Carry], Carry], carry: Carry) -> Carry:
        """`carry = body(i, carry)` for i in range(start, stop); i may be traced."""
        for index in range(start, stop):
            carry = body(index, carry)
        return carry
