"""Locks calls on a memory against each other: many may read it at a time, and a call that writes runs alone (rule 11).

A call that may not run beside a running one raises `ConcurrencyError`. Inside `waiting()` it waits for its turn instead.
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
"""Seconds after which a waiting call checks again, in case an exception has kept it from being notified."""


class _Turn(NamedTuple):
    """A running or waiting call: the memory, whether it must run alone, and its thread."""

    memory: object
    alone: bool
    thread: int


_patience: ContextVar[float] = ContextVar("raremem_patience", default=0.0)
_lock = threading.Lock()
_changed = threading.Condition(_lock)
_turns: dict[object, _Turn] = {}
"""The running calls."""
_waiting: dict[object, _Turn] = {}
"""The waiting calls."""


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
    """`call(*arguments)`, while no call that excludes it is running.

    A turn ends with its call, even if a signal raises an exception at any moment: the turn is entered inside the `try` whose
    `finally` removes it with a single call into C. For the same reason the lock is a plain one: entering a `Condition` runs
    Python code.

    Args:
        memory: the object that identifies the memory; None: nothing is checked.
        alone: whether the call must run alone on the memory; if not, it may run beside others that need not.
        call: what to do.
        *arguments: its arguments.

    Raises:
        ConcurrencyError: a call that excludes this one is running in another thread.
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
    """Call `write`, and call it again if an exception, say of a signal, interrupts it. Writing twice must do no harm.

    The exception is raised after `write` has run to its end, or after so many tries.
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
    """Whether a running call excludes this one, or, if this one may wait, an update is waiting already."""
    others = [other for other in list(_turns.values()) if other.memory is turn.memory]
    if any(turn.alone or other.alone for other in others):
        return True
    if turn.alone or not _waiting or not _patience.get() or any(other.thread == turn.thread for other in others):
        return False
    return any(other.memory is turn.memory and other.alone for other in list(_waiting.values()))


def _wait(me: object, turn: _Turn) -> None:
    """Wait until nothing blocks this call. The lock is held before and after, and released while waiting."""
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
    """Wait until no other thread is in an update: the child process would keep a half-written memory."""
    _lock.acquire()
    deadline, me = time.monotonic() + LONGEST_FORK, threading.get_ident()
    while any(turn.alone and turn.thread != me for turn in list(_turns.values())) and time.monotonic() < deadline:
        _changed.wait(LONGEST_NAP / 10)


def _in_child() -> None:
    """Forget all calls: the threads of the parent process do not run in the child."""
    global _lock, _changed
    _lock = threading.Lock()
    _changed = threading.Condition(_lock)
    _turns.clear()
    _waiting.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=lambda: _lock.release(), after_in_child=_in_child)
