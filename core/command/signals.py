"""Ctrl-C and SIGTERM end a command at once, whatever it is doing.

Python's own way is an exception in the main thread. It comes when compiled code returns, which may take as long as a program
takes to be compiled; it is lost where it comes in a callback; in the middle of an import it leaves a traceback, or C++ aborts;
and pytest and others catch it. So a thread waits for the signal, says its line, and ends the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
LINES = {
    signal.SIGINT: "raremem: interrupted; no file is half-written.",
    signal.SIGTERM: "raremem: terminated; no file is half-written.",
}
WRITING = threading.Lock()
"""Held while a file is written: the process ends after that."""
CLEANING: list[Callable[[], object]] = []
"""Called before the process ends: what removes its temporary folders."""
PATIENCE = 1.0
"""Seconds that a file being written is waited for."""


def end_on_signal() -> None:
    """From now on SIGINT and SIGTERM end this process, with one line on standard error and status 130 or 143.

    A signal that is ignored, as a shell's background jobs ignore SIGINT, is still ignored. Child processes that were forked are
    as they would have been. Called in the main thread, once, by a process that is a command.
    """
    said_to = os.dup(2)  # pytest and others put something else in its place
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    heeded = [number for number in STATUS if signal.getsignal(number) != signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_wait, args=(reader, said_to), name="raremem signals", daemon=True).start()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: _restore_in_child(heeded))


def _wait(reader: int, said_to: int) -> None:
    """Wait for a signal, and end the process."""
    while (number := os.read(reader, 1)[0]) not in STATUS:
        pass
    line = LINES[signal.Signals(number)] + "\n"
    with contextlib.suppress(OSError):
        os.write(said_to, ("\n" * os.isatty(said_to) + line).encode())  # beneath a progress bar
    children = getattr(sys.modules.get("multiprocessing"), "active_children", list)  # an import could wait for another one
    for child in children():
        child.kill()
    WRITING.acquire(timeout=PATIENCE)
    for clean in CLEANING:
        with contextlib.suppress(OSError):
            clean()
    os._exit(STATUS[signal.Signals(number)])


def _restore_in_child(heeded: list[signal.Signals]) -> None:
    """In a child, which shares the pipe: its signals are its own."""
    signal.set_wakeup_fd(-1)
    for number in heeded:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
