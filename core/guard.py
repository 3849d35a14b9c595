"""No memory is read half written: a call that may not meet another thread's call on the same memory is an error."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import ConcurrencyError

_lock = threading.Lock()
_reading: Counter[int] = Counter()
_writing: set[int] = set()


@contextmanager
def used(memory: int | None, alone: bool) -> Iterator[None]:
    """While this lasts, the memory of that identity is read; if `alone`, no other call may touch it. None: nothing is checked.

    Raises:
        ConcurrencyError: another thread's call is under way that this one may not meet.
    """
    if memory is None:
        yield
        return
    with _lock:
        if memory in _writing or (alone and _reading[memory]):
            raise ConcurrencyError(
                "another thread's call on this memory is under way; expected no other call while a memory is updated, or one "
                "that has an index is queried. Hold one lock around your calls, or let the other thread have a copy of the "
                "memory (backend.copy, or copy.deepcopy of a module)."
            )
        if alone:
            _writing.add(memory)
        else:
            _reading[memory] += 1
    try:
        yield
    finally:
        with _lock:
            if alone:
                _writing.remove(memory)
            else:
                _reading[memory] -= 1
                if not _reading[memory]:
                    del _reading[memory]
