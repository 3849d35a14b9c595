"""Scatter at a memory: many calls may read it at a time, and one that writes to it is alone (rule 11).

A call that finds another under way raises `ConcurrencyError`; inside `waiting()` it waits for its turn instead.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

from .errors import ConcurrencyError

Result = TypeVar("Result")

LONGEST_FORK = 10.0
"""Seconds for which a fork waits for updates in other threads to end."""
LONGEST_NAP = 0.1
"""Seconds after which a waiting call looks again by itself, should the signal to do so have been lost to an exception."""


class _Turn(NamedTuple):
    """A call under way, or one that waits: on which memory, whether no other may meet it, and in which thread."""

    memory: object
    alone: bool
    thread: int


_patience: ContextVar[float] = ContextVar("raremem_patience", default=0.0)
_lock = threading.Lock()
_changed = threading.Condition(_lock)
_turns: dict[object, _Turn] = {}
"""The calls under way."""
_waiting: dict[object, _Turn] = {}
"""The calls that wait."""


@contextmanager
def waiting(timeout: float = float("inf")) -> Iterator[None]:
    """Within this, in this thread (or task), a call on a memory that another thread is using waits for its turn.

    For a service that answers while it learns. A query waits for an update, an update for queries and for other updates.
    Updates that wait go before queries that come later, so that neither starves.

    Args:
        timeout: seconds that a call waits at most; then it raises `ConcurrencyError`, as it would at once without this.

    Raises:
        ValueError: `timeout` is negative or not a number.

    >>> with waiting(timeout=5.0):
    ...     pass  # out = memory(queries)
    """
    if not timeout >= 0:
        raise ValueError(f"timeout is {timeout!r}; expected seconds, 0 or more. Leave it out to wait as long as it takes.")
    before = _patience.set(timeout)
    try:
        yield
    finally:
        _patience.reset(before)


def in_turn(memory: object, alone: bool, call: Callable[..., Result], *arguments: object) -> Result:
    """`call(*arguments)`, while no call that may not meet it is under way.

    No turn outlives its call, wherever an exception from a signal falls: it is entered inside the `try` whose `finally` takes
    it out with a single call into C. The lock is the plain one for the same reason: to enter a `Condition` is Python code.

    Args:
        memory: the object that stands for the memory; None: nothing is checked.
        alone: whether no other call on the memory may be under way; else no call that is alone.
        call: what to do.
        *arguments: its arguments.

    Raises:
        ConcurrencyError: a call of another thread is under way that this one may not meet.
    """
    if memory is None:
        return call(*arguments)
    me, turn = object(), _Turn(memory, alone, threading.get_ident())
    try:
        with _lock:
            if (_turns or _waiting) and _is_blocked(turn):
                _wait(me, turn)
            _turns[me] = turn
        return call(*arguments)
    finally:
        _turns.pop(me, None)
        if _waiting:
            with _lock:
                _changed.notify_all()


def wholly(write: Callable[[], object], tries: int = 3) -> None:
    """Call `write`, which is not one call into C and may be made twice: again, if an exception from a signal has cut it short.

    The exception is raised when all is written. One that comes every time is raised after so many tries.
    """
    interrupted: BaseException | None = None
    for _ in range(tries):
        try:
            write()
            break
        except BaseException as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _is_blocked(turn: _Turn) -> bool:
    """Whether a call under way may not meet this one, or, where this one is ready to wait, an update waits before it."""
    others = [other for other in list(_turns.values()) if other.memory is turn.memory]
    if any(turn.alone or other.alone for other in others):
        return True
    if turn.alone or not _waiting or not _patience.get() or any(other.thread == turn.thread for other in others):
        return False
    return any(other.memory is turn.memory and other.alone for other in list(_waiting.values()))


def _wait(me: object, turn: _Turn) -> None:
    """Wait until nothing blocks this call. The lock is held before and after, and given up between."""
    deadline = time.monotonic() + _patience.get()
    try:
        while _is_blocked(turn):
            left = deadline - time.monotonic()
            own = any(other.memory is turn.memory and other.thread == turn.thread for other in list(_turns.values()))
            if left <= 0 or own:
                raise ConcurrencyError(
                    "another thread's call on this memory is under way; expected no other call while a memory is updated, or "
                    "one that has an index is queried. Wait for your turn (with raremem.waiting():), hold one lock around "
                    "your calls, or give the other thread a copy of the memory (backend.copy, or copy.deepcopy of a module)."
                )
            _waiting[me] = turn
            _changed.wait(min(left, LONGEST_NAP))
    finally:
        _waiting.pop(me, None)


def _before_fork() -> None:
    """Wait until no other thread is in the middle of an update: the child would have half of it, for good."""
    _lock.acquire()
    deadline, me = time.monotonic() + LONGEST_FORK, threading.get_ident()
    while any(turn.alone and turn.thread != me for turn in list(_turns.values())) and time.monotonic() < deadline:
        _changed.wait(LONGEST_NAP / 10)


def _in_child() -> None:
    """In a child process no other thread goes on: no call is under way there."""
    global _lock, _changed
    _lock = threading.Lock()
    _changed = threading.Condition(_lock)
    _turns.clear()
    _waiting.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=lambda: _lock.release(), after_in_child=_in_child)
