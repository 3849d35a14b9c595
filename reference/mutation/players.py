"""The backends that the laws are tried on, cheap ones, chosen so that together they run all of `core/`.

Beside NumPy and PyTorch as users have them stand NumPy tables that take other ways through the core: what is traced, what is
scanned in low precision, what an index proposes. Where a way is only taken in a large memory, the size from which on it is
taken is made small; the laws are the same.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from raremem import algorithm, index, scan, search
from raremem.adapters.numpy import NumpyPrimitives
from raremem.backend import ArrayBackend, Backend
from raremem.primitives import Primitives
from raremem.registry import get_backend
from raremem.state import NO_SLOT, MemoryState

Array = NDArray[Any]
F16_ROUNDOFF = 2.0**-11


class Traced(NumpyPrimitives):
    """Whose content is taken for unknown, as in `jax.jit`."""

    def eager(self, array: Array) -> bool:
        """Never."""
        return False


class Unblocked(Traced):
    """The same, for a compiler that is not up to blocks; and arrays are written one after the other."""

    write = Primitives.write

    def blocks(self) -> bool:
        """Never."""
        return False


class FewAtATime(Traced):
    """The same, with room for few similarities."""

    def held(self, queries: Array) -> int:
        """Two whole memories of the size that `few_at_a_time` makes a whole."""
        return 32


class LowPrecision(NumpyPrimitives):
    """Which scans in f16."""

    def coarse(self, state: MemoryState, batch: int) -> tuple[Array, str, float]:
        """The keys, to be cast chunk by chunk."""
        return state.keys, "float16", F16_ROUNDOFF

    def inner(self, left: Array, right: Array) -> Array:
        """Summed in f32 whatever comes."""
        product = super().inner(left.astype(np.float32), right.astype(np.float32))
        return product.astype(left.dtype)


class Everything:
    """An index that proposes all its slots."""

    def __init__(self, keys: Array, slots: Array, seed: int) -> None:
        self.slots = slots

    def search(self, queries: Array, count: int) -> Array:
        """All of them, for every query, and -1 up to the count."""
        none = np.full(max(0, count - len(self.slots)), NO_SLOT, np.int32)
        return np.tile(np.concatenate([self.slots, none]), (len(queries), 1))


class Growing(Everything):
    """The same, and it takes more in."""

    def add(self, keys: Array, slots: Array) -> None:
        """Slots of changed keys."""
        self.slots = np.concatenate([self.slots, slots])


@contextmanager
def _with(backend: Callable[[], Backend], *sizes: tuple[Any, dict[str, Any]]) -> Iterator[Backend]:
    """A backend, while modules have other sizes."""
    with ExitStack() as stack:
        for module, constants in sizes:
            stack.enter_context(patch.multiple(module, **constants))
        yield backend()


def _short_lists() -> Any:
    small = {
        "SHARE": 0.01,
        "width_and_rows": lambda slots, *sizes: (1 if slots < 8 else 2, 7),
        "shortlist": lambda k: k // 2 + 1,
    }
    small["CHUNK"] = 6
    parts = {"GATHERED": 0, "BLOCK": 1, "CHUNK": 5, "MERGED": 3}
    return _with(lambda: ArrayBackend(LowPrecision()), (search, small), (algorithm, parts))


def _few_at_a_time() -> Any:
    return _with(lambda: ArrayBackend(FewAtATime()), (scan, {"WHOLE": 16, "CHUNK": 8, "FEW": 1, "MANY": 2}))


def _no_blocks() -> Any:
    return _with(lambda: ArrayBackend(Unblocked()), (scan, {"CHUNK": 8}))


def _index(kind: Any, framework: str = "numpy") -> Any:
    every = {"shortlist": lambda k: 512}
    small = {"SMALLEST": 1, "FRESH": 2}
    return _with(lambda: get_backend(framework, index=index.LiveIndex(kind, background=False)), (index, small), (search, every))


PARTS = 3


def nearest_of_parts(p: Any, state: MemoryState, queries: Array, targets: Array | None, k: int) -> Any:
    """As `search.nearest`, by as many holders as parts, one after the other: what each would hand out is noted, then joined.
    The neighbors come in the wrong order: `algorithm.query` puts them in order."""
    cuts = [len(state.values) * place // PARTS for place in range(PARTS + 1)]
    noted: list[list[tuple[Array, Array]]] = []
    answer = None
    for holder in (*range(PARTS), 0):
        first, last = cuts[holder : holder + 2]
        part = MemoryState(*[*(array[first:last] for array in state[:4]), state.step])
        handed_out: list[tuple[Array, Array]] = []
        joined = [
            tuple(np.concatenate(column, axis=1) for column in zip(*turn, strict=True)) for turn in zip(*noted, strict=True)
        ]

        def gather(scores: Array, slots: Array, most: int, turns: Any = joined, kept: Any = handed_out) -> Any:
            padding = ((0, 0), (0, most))
            own = np.pad(scores, padding, constant_values=scan.NOTHING), np.pad(slots, padding, constant_values=NO_SLOT)
            kept.append((scores, slots))
            return own if len(noted) < PARTS else tuple(
                np.concatenate([every, np.pad(every[:, :0], padding, constant_values=none)], axis=1)
                for every, none in zip(turns[len(kept) - 1], (scan.NOTHING, NO_SLOT), strict=True)
            )  # fmt: skip

        answer = search.nearest_of_shards(p, part, first, queries, targets, k, gather)
        noted.append(handed_out)
    assert answer is not None, "there are parts"
    return answer[0][:, ::-1], answer[1]


PLAYERS: dict[str, tuple[Callable[[], Any], bool]] = {
    "numpy": (lambda: _with(lambda: get_backend("numpy")), True),
    "numpy, short lists of small chunks": (_short_lists, True),
    "numpy, traced": (lambda: _with(lambda: ArrayBackend(Traced())), True),
    "numpy, traced, few at a time": (_few_at_a_time, False),
    "numpy, traced, no blocks, one array at a time": (_no_blocks, False),
    "numpy, index": (lambda: _index(Everything), False),
    "torch, growing index": (lambda: _index(Growing, "torch"), False),
    "numpy, parts": (lambda: _with(lambda: ArrayBackend(NumpyPrimitives(), search=nearest_of_parts)), False),
    "torch": (lambda: _with(lambda: get_backend("torch", compiled=False)), False),
}
"""By name: how each is made ready, a context that gives the backend; and whether laws that are costly are tried on it."""


def installed() -> list[str]:
    """The players whose framework is here."""
    return [name for name in PLAYERS if not name.startswith("torch") or importlib.util.find_spec("torch") is not None]
