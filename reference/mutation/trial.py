"""Trial of one mutant, in a forked process that imports raremem anew with the mutant in place of its module.

`reference.faults` replaces a module in a running program. That is not enough here: what other modules took when they were
imported (default arguments, base classes, classes of instances) would be unchanged, and a mutant of a class would be noticed
for being another class.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NoReturn

from raremem.errors import ConfigError

MEMORY = 4 * 2**30
"""Bytes that a mutant may allocate."""
AT_LEAST = 2.0
TIMES = 5.0
"""A law hangs if it takes this many seconds of a processor, and this many times as long as without a mutant, more."""
WALL = 20.0
"""For a law that waits and does nothing: this many times that limit, by the clock, since the machine may be busy."""

Try = tuple[str, str]
"""A player and a law."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a mutant: "killed" by a law on a player, "hung" or "crashed" in it, or "survived"."""

    outcome: str
    player: str = ""
    law: str = ""
    seconds: float = 0.0
    """Of a processor."""
    tries: int = 0
    """Pairs of player and law that were tried."""
    left: int = 0
    """Pairs that reach the line of a survivor too, and were not tried, to save time."""
    kit: str = ""
    """The digest of the laws."""
    late: bool = False
    """Whether it survived an earlier version of the kit."""


class Running:
    """A mutant that is being tried in a process of its own."""

    def __init__(self, module: str, source: str, tries: Sequence[Try], limits: Sequence[float], examples: int) -> None:
        self.tries, self.limits = tries, limits
        self.begun, self.at, self.told = time.monotonic(), -1, b""
        self.reading, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self.reading)
            _child(writing, lambda: _try(_Teller(writing), module, source, tries, limits, examples))
        os.close(writing)

    def fileno(self) -> int:
        """The file descriptor, for `selectors`."""
        return self.reading

    def hear(self) -> bool:
        """Read what the process has written; returns whether it has ended."""
        told = os.read(self.reading, 2**16)
        self.told += told
        if told:
            self.begun = time.monotonic()
        return not told

    def stop_if_late(self) -> None:
        """End it if it has written nothing for too long."""
        at = self.told.count(b"\n") - 1
        limit = self.limits[at] if 0 <= at < len(self.limits) else AT_LEAST
        if time.monotonic() - self.begun > WALL * limit:
            self.stop()

    def stop(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def outcome(self) -> Outcome:
        """The outcome. Call it once, after the process has ended."""
        os.close(self.reading)
        _, status, used = os.wait4(self.pid, 0)
        said = [json.loads(line) for line in self.told.splitlines()]
        begun = [tuple(line) for line in said if isinstance(line, list)]
        seconds = round(used.ru_utime + used.ru_stime, 2)
        player, law = begun[-1] if begun else ("", "import")
        if said and isinstance(said[-1], str):
            by = (player, law) if said[-1] == "killed" else ("", "")
            return Outcome(said[-1], by[0], by[1], seconds, len(begun))
        late = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        return Outcome("hung" if late else "crashed", player, law, seconds, len(begun))


class _Teller:
    """Writes lines of JSON to the parent process."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def say(self, what: Any) -> None:
        os.write(self.pipe, json.dumps(what).encode() + b"\n")


def _child(writing: int, work: Callable[[], None]) -> NoReturn:
    """Do the work of a forked process, without output, and end it."""
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        work()
    finally:
        os._exit(0)


def _try(tell: _Teller, module: str, source: str, tries: Sequence[Try], limits: Sequence[float], examples: int) -> None:
    """Try each law on its player until one breaks."""
    try:
        _limit_memory()
        _limit_processor(AT_LEAST)
        with planted(module, source):
            players = importlib.import_module("raremem.reference.mutation.players").PLAYERS
            laws = importlib.import_module("raremem.reference.laws")
            for (player, law), limit in zip(tries, limits, strict=True):
                tell.say([player, law])
                _limit_processor(limit)
                laws.run(laws.LAWS[law], players[player][0](), examples, shrink=False)
    except Exception:
        tell.say("killed")
    else:
        tell.say("survived")


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, most))


def _limit_processor(seconds: float) -> None:
    """End the process after so many more seconds of a processor."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + seconds) + 1, most))


# Planting


class _Planted(importlib.machinery.SourceFileLoader):
    """Loads a module from a text instead of its file."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self.text = text

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.text, self.path, "exec")


class _Finder:
    """Finds one module before all other finders do."""

    def __init__(self, name: str, path: str, text: str, inside: list[str] | None) -> None:
        self.name, self.path, self.text, self.inside = name, path, text, inside

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        loader = _Planted(name, self.path, self.text)
        return importlib.util.spec_from_file_location(name, self.path, loader=loader, submodule_search_locations=self.inside)


@contextlib.contextmanager
def planted(module: str, source: str) -> Iterator[None]:
    """A context in which raremem is imported anew, with this text for that module."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise LookupError(f"there is no module {module}.")
    finder = _Finder(module, spec.origin, source, spec.submodule_search_locations)
    before = {name: kept for name, kept in sys.modules.items() if _is_ours(name)}
    _unload()
    sys.meta_path.insert(0, finder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.meta_path.remove(finder)
        _unload()
        sys.modules.update(before)


def _unload() -> None:
    for name in [name for name in sys.modules if _is_ours(name)]:
        del sys.modules[name]


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "raremem"


# What a law reaches


@dataclass
class Reached:
    """The lines (file, line) that a law runs without a mutant, and its seconds."""

    lines: set[tuple[str, int]]
    seconds: float


class Reaching:
    """A process that finds what each law reaches on a player, but for those in `known`. It begins at once."""

    def __init__(self, player: str, examples: int, files: Iterable[str], known: Iterable[str] = ()) -> None:
        self.player = player
        self.reading, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self.reading)
            _child(writing, lambda: _reach(_Teller(writing), player, examples, set(files), set(known)))
        os.close(writing)

    def laws(self) -> dict[str, Reached]:
        """Wait for the process, and return what it found. Call it once.

        Raises:
            ConfigError: a law breaks without any mutant.
        """
        with os.fdopen(self.reading, "rb") as pipe:
            said = [json.loads(line) for line in pipe]
        os.waitpid(self.pid, 0)
        if not said or said[-1] != "done":
            last = said[-1] if said else "nothing was tried"
            raise ConfigError(f"without any mutant a law is broken on {self.player!r}: {last}; expected none. Mend that first.")
        return {law: Reached({(file, line) for file, line in lines}, seconds) for law, lines, seconds in said[:-1]}


def _reach(tell: _Teller, player: str, examples: int, files: set[str], known: set[str]) -> None:
    from raremem.reference.laws import LAWS, run
    from raremem.reference.mutation.players import PLAYERS

    warnings.simplefilter("ignore")
    make, costly = PLAYERS[player]
    lines: set[tuple[CodeType, int]] = set()

    def note(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        lines.add((frame.f_code, frame.f_lineno))
        return note

    for name, law in LAWS.items():
        lines.clear()
        begun = time.process_time()
        threading.settrace(note)
        sys.settrace(note)
        try:
            backend = make()
            if name in known or not law.runs_on(backend) or (law.costly and not costly):
                continue
            run(law, backend, examples, shrink=False)
        except Exception as error:
            tell.say(f"{name}: {error.__cause__!r}")
            return
        finally:
            sys.settrace(None)
            threading.settrace(None)
        seconds = round(time.process_time() - begun, 2)
        tell.say([name, sorted({(code.co_filename, line) for code, line in lines}), seconds])
    tell.say("done")
