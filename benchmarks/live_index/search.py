"""Approximate search in a memory that changes at every step, beside exact search and what an index gives by itself.

A full memory takes a stream of batches: half of the rows are of values that it holds, half are new and take the place of old
ones. Every step is a query and an update. From time to time, outside the clock, the answers to some hundred rows are compared
with those of exact search in the keys as they are then, and the rows just written are asked for again. The keys are drawn in
clusters, or are embeddings of Omniglot's characters, each distorted in many ways, by the network of that task.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

import raremem
from raremem import search
from raremem.adapters.numpy import backend as exact
from raremem.benchmarks.cost.speed import full_memory
from raremem.benchmarks.data.characters import load_omniglot
from raremem.benchmarks.live_index.streams import AHEAD, BATCH, Clusters, Ints, Rows, Stream, draw
from raremem.benchmarks.progress import progress
from raremem.benchmarks.report.pages import Outcome
from raremem.benchmarks.runner import Setting
from raremem.benchmarks.tasks.omniglot import trained
from raremem.config import MemoryConfig
from raremem.state import MemoryState

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = ((200_000, 64), (200_000, 128), (1_000_000, 64), (1_000_000, 128))
"""(slots, key_dim)"""
NEIGHBORS = 10
CHECKS = 20
"""Times in a stream at which answers are compared."""
CHECKED = 8
"""Batches that are asked for each time."""
CHARACTERS = 200_000
"""Slots of the memory of Omniglot's characters."""
POOL = 1536
"""Batches beside them."""
SECONDS = 15.0
"""For which it is sent through each store; `--minutes` is for the network."""
REBUILT_EVERY = 100
"""Steps after which a plain annoy index is built again."""
ALONE = {"hnswlib, in place": "hnswlib", "annoy, rebuilt": "annoy"}
"""What is measured beside raremem: an index by itself, and the package that it is."""


class Store(Protocol):
    """What a stream is sent through."""

    builds: int

    @property
    def keys(self) -> Rows:
        """As they are now [slots, key_dim]."""

    def query(self, rows: Rows) -> Ints:
        """Slots [B, 10] nearest to rows, nearest first."""

    def step(self, rows: Rows, targets: Ints) -> Ints:
        """Query and update. Returns the slots [B] that hold a row as it is from now on, or -1."""


class RarememStore:
    """A memory of raremem."""

    def __init__(self, backend: Any, keys: Rows, values: Ints, seed: int) -> None:
        self.backend, self.builds = backend, 0
        self.config = MemoryConfig(len(keys), keys.shape[1], NEIGHBORS, seed=seed)
        self.state = full_memory(backend, self.config, keys, values, BATCH, seed)
        if backend.index is not None:
            backend.index.build = self._counted(backend.index.build)
            self.query(keys[:1])
            backend.index.rebuild()

    def _counted(self, build: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self.builds += 1
            return build(*arguments)

        return counted

    @property
    def keys(self) -> Rows:
        """See `Store`."""
        return np.asarray(self.state.keys)

    def query(self, rows: Rows) -> Ints:
        """See `Store`."""
        return np.asarray(self.backend.query(self.config, self.state, self._own(rows)).slots)

    def step(self, rows: Rows, targets: Ints) -> Ints:
        """See `Store`."""
        rows, targets = self._own(rows), self._own(targets)
        out = self.backend.query(self.config, self.state, rows, targets)
        self.state, report = self.backend.update(self.config, self.state, rows, targets, lookup=out)
        placed = np.asarray(report.written) & ~np.asarray(report.hit)
        return np.where(placed, np.asarray(report.slots), -1)

    def _own(self, array: Any) -> Any:
        return self.backend.primitives.asarray(array, self.state.keys)


class AloneStore:
    """An index by itself. A row takes the slot written longest ago; hnswlib is changed in place, annoy built now and then."""

    def __init__(self, name: str, keys: Rows, seed: int) -> None:
        self.keys, self.seed, self.next, self.builds, self.steps = keys.copy(), seed, 0, 0, 0
        self.make = raremem.get_index(name).build
        self.in_place = name == "hnswlib"
        self._build()

    def _build(self) -> None:
        self.index: Any = self.make(self.keys, np.arange(len(self.keys), dtype=np.int32), self.seed)
        self.builds += 1

    def query(self, rows: Rows) -> Ints:
        """See `Store`."""
        slots = self.index.search(rows, NEIGHBORS)
        order = np.argsort(-np.einsum("bd,bkd->bk", rows, self.keys[slots]), axis=1, kind="stable")
        return np.take_along_axis(slots, order, axis=1)

    def step(self, rows: Rows, targets: Ints) -> Ints:
        """See `Store`."""
        self.query(rows)
        slots = ((self.next + np.arange(len(rows))) % len(self.keys)).astype(np.int32)
        self.next += len(rows)
        self.keys[slots] = rows
        self.steps += 1
        if self.in_place:
            self.index.index.add_items(rows, slots)
        elif self.steps % REBUILT_EVERY == 0:
            self._build()
        return slots


@dataclass
class Measured:
    """A stream sent through a store: steps, seconds, the longest step, %s found, and how long a build takes."""

    first_build_seconds: float
    steps: int = 0
    seconds: float = 0.0
    worst_ms: float = 0.0
    recall_at_1: list[float] = field(default_factory=list)
    recall_at_10: list[float] = field(default_factory=list)
    newest: list[float] = field(default_factory=list)
    builds: int = 0


def measure(stream: Stream, make: Callable[[], Store], seconds: float) -> Measured:
    """Send the stream through a store for so long."""
    started = time.perf_counter()
    store = make()
    measured = Measured(time.perf_counter() - started)
    builds = store.builds
    while measured.seconds < seconds or not measured.newest:
        rows, targets = stream.batch(measured.steps)
        check = measured.seconds >= seconds * len(measured.newest) / CHECKS
        if check:
            _compare(measured, store, stream)
        started = time.perf_counter()
        written = store.step(rows, targets)
        taken = time.perf_counter() - started
        measured.steps, measured.seconds = measured.steps + 1, measured.seconds + taken
        measured.worst_ms = max(measured.worst_ms, 1000 * taken)
        if check:
            there = written >= 0
            found = store.query(rows[there])[:, 0]
            measured.newest.append(100 * float((store.keys[found] == store.keys[written[there]]).all(axis=1).mean()))
    measured.builds = store.builds - builds
    return measured


def _compare(measured: Measured, store: Store, stream: Stream) -> None:
    """Add the recall of rows that the stream has not come to. A slot that only rounding tells from the first is right."""
    first = AHEAD + CHECKED * len(measured.newest)
    rows = np.concatenate([stream.batch(first + number)[0] for number in range(CHECKED)])
    found, truth = store.query(rows), _nearest(store.keys, rows)
    behind = np.einsum("bd,bd->b", rows, store.keys[truth[:, 0]] - store.keys[found[:, 0]])
    measured.recall_at_1.append(100 * float((behind <= rows.shape[1] * 2 * search.F32).mean()))
    measured.recall_at_10.append(100 * float((found[:, :, None] == truth[:, None, :]).any(axis=1).mean()))


def _nearest(keys: Rows, rows: Rows) -> Ints:
    """Slots [B, 10] of the nearest keys, by exact search."""
    nothing = np.zeros(len(keys), np.int32)
    state = MemoryState(keys, nothing, nothing, nothing, np.zeros((), np.int32))
    return search.nearest(exact.primitives, state, rows, None, NEIGHBORS)[0]


def run(setting: Setting) -> Outcome:
    """Measure every size and way of searching, for about `setting.minutes` in all, builds and comparisons not counted.

    Raises:
        MissingPackageError: the framework is not installed.
    """
    streams = (Clusters(slots, key_dim, setting.seed) for slots, key_dim in SIZES)
    named = {f"{stream.slots:,} keys of {stream.key_dim} dimensions": stream for stream in streams}
    return _measured(setting, named, 60 * setting.minutes / len(SIZES) / len(_ways()))


def run_characters(setting: Setting) -> Outcome:
    """The same with embedded characters, by the network of the Omniglot task, which is trained or taken from its snapshot.

    Raises:
        DataError: the data is not Omniglot.
        MissingPackageError: the framework or the extra `bench` is not installed.
    """
    assert setting.data is not None
    characters = load_omniglot(setting.data)
    learner, _ = trained(setting, characters)
    stream = draw(learner.embed, characters.test, CHARACTERS, POOL, setting.seed)
    name = f"{CHARACTERS:,} embedded characters of {stream.rows.shape[1]} dimensions"
    return _measured(setting, {name: stream}, SECONDS)


def _ways() -> list[str]:
    """Exact search, and all that is installed."""
    packages = [name for name in raremem.registry.INDEXES if importlib.util.find_spec(name) is not None]
    return ["exact", *(f"raremem + {name}" for name in packages), *(way for way, name in ALONE.items() if name in packages)]


def _measured(setting: Setting, streams: Mapping[str, Stream], seconds: float) -> Outcome:
    measured: dict[str, dict[str, Measured]] = {}
    for name, stream in streams.items():
        keys, values = stream.start()
        measured[name] = {
            way: measure(stream, partial(_store, setting, way, keys, values), seconds) for way in progress(_ways(), name)
        }
    return outcome(measured)


def _store(setting: Setting, way: str, keys: Rows, values: Ints) -> Store:
    if way in ALONE:
        return AloneStore(ALONE[way], keys, setting.seed)
    index = raremem.get_index(way.removeprefix("raremem + "), seed=setting.seed) if way != "exact" else None
    return RarememStore(raremem.get_backend(setting.backend, index=index), keys, values, setting.seed)


def outcome(measured: dict[str, dict[str, Measured]]) -> Outcome:
    """A table for each stream."""
    columns = [
        "", "queries / s", "x exact", "median recall@1", "worst recall@1", "recall@10", "newest found", "mean step ms",
        "worst step ms", "first build s", "builds",
    ]  # fmt: skip
    tables, headline = {}, {}
    for name, ways in measured.items():
        table = [columns]
        exact_rate = ways["exact"].steps / ways["exact"].seconds
        for way, found in ways.items():
            rate = found.steps / found.seconds
            headline[f"{name}, {way}: x exact"] = rate / exact_rate
            headline[f"{name}, {way}: worst recall@1, %"] = min(found.recall_at_1)
            table.append([
                way, f"{BATCH * rate:,.0f}", f"{rate / exact_rate:.1f}", f"{np.median(found.recall_at_1):.1f} %",
                f"{min(found.recall_at_1):.1f} %", f"{np.mean(found.recall_at_10):.1f} %", f"{np.mean(found.newest):.1f} %",
                f"{1000 / rate:.1f}", f"{found.worst_ms:.0f}", f"{found.first_build_seconds:.1f}", str(found.builds),
            ])  # fmt: skip
        tables[name] = table
    return Outcome(
        headline=headline,
        figures={name: {way: asdict(found) for way, found in ways.items()} for name, ways in measured.items()},
        tables=tables,
        plots=lambda: [_plot(measured)],
        notes=[
            f"Each step queries and then writes {BATCH} rows, so updates / s are as many as queries / s. Newest found: of rows "
            "that took a slot, those whose key answers the same row at once. Builds: those begun while the stream ran."
        ],
    )


def _plot(measured: dict[str, dict[str, Measured]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(measured), 4), layout="constrained")
    for axes, (name, ways) in zip(
        figure.subplots(1, len(measured), sharey=True, squeeze=False)[0], measured.items(), strict=True
    ):
        for way, found in ways.items():
            axes.plot(BATCH * found.steps / found.seconds, min(found.recall_at_1), "o", label=way)
        axes.set(xscale="log", xlabel="queries / s", title=name)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("worst recall@1, %")
    figure.axes[0].legend()
    return figure
