"""Measures the speed and the recall of a search method while the memory changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

import raremem
from raremem.benchmarks.live_index.methods import NEIGHBORS, SearchMethod
from raremem.benchmarks.live_index.streams import AHEAD, Ints, KeyStream, Rows
from raremem.config import MemoryConfig
from raremem.state import MemoryState

CHECKED = 8
"""Batches that are asked for each time."""
ROUNDING = float(np.finfo(np.float32).eps)


@dataclass
class SearchFigures:
    """Figures of a search method: steps, seconds, the longest step in ms, recall in %, and seconds of the first build."""

    first_build_seconds: float
    steps: int = 0
    seconds: float = 0.0
    worst_ms: float = 0.0
    recall_at_1: list[float] = field(default_factory=list)
    recall_at_10: list[float] = field(default_factory=list)
    newest: list[float] = field(default_factory=list)
    builds: int = 0

    @property
    def steps_per_second(self) -> float:
        """The mean rate."""
        return self.steps / self.seconds


def measure(stream: KeyStream, make: Callable[[], SearchMethod], seconds: float, checks: int) -> SearchFigures:
    """Send the stream through a search method for so many seconds, and check its answers so many times meanwhile."""
    started = time.perf_counter()
    method = make()
    measured = SearchFigures(time.perf_counter() - started)
    builds = method.builds
    while measured.seconds < seconds or not measured.newest:
        rows, targets = stream.batch(measured.steps)
        check = measured.seconds >= seconds * len(measured.newest) / checks
        if check:
            _compare(measured, method, stream)
        started = time.perf_counter()
        written = method.step(rows, targets)
        taken = time.perf_counter() - started
        measured.steps, measured.seconds = measured.steps + 1, measured.seconds + taken
        measured.worst_ms = max(measured.worst_ms, 1000 * taken)
        if check:
            there = written >= 0
            found = method.query(rows[there])[:, 0]
            measured.newest.append(100 * float((method.keys[found] == method.keys[written[there]]).all(axis=1).mean()))
    measured.builds = method.builds - builds
    return measured


def _compare(measured: SearchFigures, method: SearchMethod, stream: KeyStream) -> None:
    """Add the recall of rows that are not in the stream. A slot as near as the nearest, up to rounding, counts as right."""
    first = AHEAD + CHECKED * len(measured.newest)
    rows = np.concatenate([stream.batch(first + number)[0] for number in range(CHECKED)])
    found, truth = method.query(rows), _nearest(method.keys, rows)
    behind = np.einsum("bd,bd->b", rows, method.keys[truth[:, 0]] - method.keys[found[:, 0]])
    measured.recall_at_1.append(100 * float((behind <= rows.shape[1] * ROUNDING).mean()))
    measured.recall_at_10.append(100 * float((found[:, :, None] == truth[:, None, :]).any(axis=1).mean()))


def _nearest(keys: Rows, rows: Rows) -> Ints:
    """Slots [B, 10] of the nearest keys, by exact search."""
    nothing = np.zeros(len(keys), np.int32)
    state = MemoryState(keys, nothing, nothing, nothing, np.zeros((), np.int32))
    config = MemoryConfig(len(keys), keys.shape[1], NEIGHBORS)
    return raremem.get_backend("numpy").query(config, state, rows).slots
