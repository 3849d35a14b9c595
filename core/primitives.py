"""The small table of array operations from which every backend is made.

What the frameworks spell alike (`where`, `sum`, `any`, `cumsum`, `argmax`, `sqrt`, `exp`, ...) the algorithm takes from the
table's namespace `xp`. The rest of the table is what they do not: its abstract methods are all that a new backend writes. The
others have a body here, which is right for every framework whose arrays support what follows. A framework that can do better,
or whose arrays support less, has its own.

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
- where arrays are `eager`, also: by bool or i64, `x[rows] = y`, `x.argmax(1)`, `<` and the like with infinite numbers

`^`, `&` and `>>` of i32 are asked in `bits_xor`, `bits_and` and `shift_right` alone.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from numpy.typing import NDArray

from .errors import UnknownBackendError
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

    @property
    @abstractmethod
    def name(self) -> str:
        """What `raremem.get_backend` calls it. An attribute of the class will do."""

    @property
    @abstractmethod
    def xp(self) -> Any:
        """A namespace that follows NumPy: where, sum, amax, any, cumsum, argmax, abs, sqrt, exp, log, concatenate, full_like;
        if arrays may be `eager`, also amin, maximum, unique, searchsorted, broadcast_to, empty_like. An attribute will do."""

    @abstractmethod
    def asarray(self, array: Any, like: Array) -> Array:
        """`array` as this framework's own, on the device of `like`; the same object if it is that already."""

    @abstractmethod
    def to_numpy(self, array: Array) -> NDArray[Any]:
        """A copy of `array` in NumPy."""

    @abstractmethod
    def from_numpy(self, state: MemoryState) -> MemoryState:
        """A state of this framework's arrays that shares no memory with the given NumPy state."""

    @abstractmethod
    def copy(self, array: Array) -> Array:
        """An array of the same content in memory of its own."""

    @abstractmethod
    def peek(self, array: Array, wait: bool = False) -> NDArray[Any] | None:
        """`array` in NumPy, or None if its content is unknown (traced), is not all here, or would make an accelerator wait.

        With `wait`, only a traced array gives None.
        """

    @abstractmethod
    def cast(self, array: Array, dtype: str) -> Array:
        """`array` in the dtype of that NumPy name: "int32", "float32", or what `coarse` says."""

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

    @abstractmethod
    def top_k(self, scores: Array, k: int) -> tuple[Array, Array]:
        """The k largest of each row [m, n], largest first, and their columns; equals (0.0 is -0.0) by column."""

    @abstractmethod
    def sort_order(self, scores: Array, slots: Array, k: int | None = None) -> Array:
        """[m, n] columns that sort each row by score, largest first, equals (0.0 is -0.0) by slot; the first k, if given."""

    @abstractmethod
    def take_along(self, array: Array, columns: Array) -> Array:
        """Entries [m, k] of `array` [m, n], chosen row by row."""

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

    def snapshot(self, array: Array, rows: Array) -> Array:
        """A copy of `array` if a gradient by `rows` will need it later: an update may write to it before the gradient is taken.
        Else `array` itself. Only asked where `eager`."""
        return array

    def gather_rows(self, array: Array, rows: Array, unit: Array) -> Array:
        """`take_rows(array, rows)`. A gradient by `unit` uses the rows as they are now, even if `array` is written to before it
        is taken."""
        return self.take_rows(array, rows)

    def identity(self, array: Array) -> Any | None:
        """The object that stands for this array while it lives; None while it is traced."""
        return array

    def writes(self, array: Array) -> int | None:
        """How often the framework has written to the array, or None if it does not count."""
        return None

    def bits_xor(self, bits: Array, others: Array | int) -> Array:
        """The bits of an i32 array that differ from those of another, or of a Python number in i32."""
        return bits ^ others

    def bits_and(self, bits: Array, others: int) -> Array:
        """The bits that an i32 array has in common with a Python number, 0 or above, in i32."""
        return bits & others

    def shift_right(self, bits: Array, count: int) -> Array:
        """The bits of an i32 array, so many places to the right; zeros come in. (`>>` of i32 repeats the sign.)"""
        return self.bits_and(bits >> count, (1 << (32 - count)) - 1)

    def eager(self, array: Array) -> bool:
        """Whether shapes may depend on the content of `array`: it is there to be seen, at no cost, and nothing is compiled."""
        return False

    def in_numpy(self) -> Primitives:
        """The table for what `peek` shows of `eager` arrays: NumPy's, or one like it."""
        return self

    def coarse(self, state: MemoryState, batch: int) -> tuple[Array, str, float]:
        """How so many queries are compared with all keys at first, if `eager`: the keys, or these in a low dtype;
        the dtype to compare in; and its unit roundoff, or 0.0 for "float32"."""
        return state.keys, "float32", 0.0

    def blocks(self) -> bool:
        """Whether to take a large array block by block, as many as its size asks for: quicker or smaller, where the compiler is
        up to it."""
        return True

    def held(self, queries: Array) -> int:
        """How many similarities to hold at a time, if `blocks`: as many as stay in a cache of the device of `queries`."""
        return 2**21

    def take_rows(self, array: Array, rows: Array, into: Array | None = None) -> Array:
        """`array[rows]`, of which none is negative; perhaps in the memory of `into`, what this gave for at least as many."""
        return array[rows]

    def ascending(self, array: Array) -> Array:
        """Each row [m, n] of an i32 array in order, the smallest first."""
        return self.take_along(array, self.sort_order(0 * array, array))

    def block_maxima(self, scores: Array, width: int) -> Array:
        """[n * width, B] -> [n, B]: the largest of rows that are n apart, or more; `width` is a power of two. Only asked where
        `eager`."""
        while width > 1:
            half, width = len(scores) // 2, width // 2
            scores = self.xp.maximum(scores[:half], scores[half:])
        return scores

    def sums(self, chosen: Array, rows: Array) -> Array:
        """[m, n] x [n, d] -> [m, d]: of rows, the sum of those where `chosen` is 1.0, and not 0.0; in f32 or better."""
        return self.inner(chosen, rows.T)

    def largest(self, scores: Array, k: int) -> Array:
        """Columns [m, k] of the k largest of each row [m, n], in any order, any of equals. Only asked where `eager`."""
        return self.top_k(scores, k)[1]

    def nearest(self, state: MemoryState, queries: Array, targets: Array | None, k: int) -> tuple[Array, Array | None] | None:
        """What `search.nearest` answers, of one's own; or None, for the search that all share. Only asked where not `eager`."""
        return None

    def loop(self, start: int, stop: int, body: Callable[[Any, Carry], Carry], carry: Carry) -> Carry:
        """`carry = body(i, carry)` for i in range(start, stop); i may be traced."""
        for index in range(start, stop):
            carry = body(index, carry)
        return carry

    def compiled(self, query: Callable[..., Any], update: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Both functions as the framework's compiler gives them; `config`, the first argument, is static."""
        raise UnknownBackendError(f"backend {self.name!r} has no compiler; use it eager.")
