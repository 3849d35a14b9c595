"""Approximate search in a memory that changes at every step, beside exact search and what an index gives by itself.

A full memory takes a stream of batches: half of the rows are of values that it holds, half are new and take the place of old
ones. Every step is a query and an update. From time to time, outside the clock, the answers to some hundred rows are compared
with those of exact search in the keys as they are then, and the rows just written are asked for again. The keys are drawn in
clusters, or are embeddings of Omniglot's characters, each distorted in many ways, by the network of that task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from raremem.benchmarks.data.omniglot import load_omniglot
from raremem.benchmarks.live_index.measure import SearchFigures, measure
from raremem.benchmarks.live_index.methods import installed_methods, make_method
from raremem.benchmarks.live_index.streams import BATCH, Clusters, KeyStream, draw
from raremem.benchmarks.progress import progress
from raremem.benchmarks.task import Findings, Setting, Table, Task
from raremem.benchmarks.tasks.omniglot import trained
from raremem.search.live import LivePlan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHARACTERS_SLOTS = 200_000
"""Slots of the memory of Omniglot's characters."""
POOL = 1536
"""Batches beside them."""
SECONDS = 15.0
"""For which that stream is sent through each way of searching; `--minutes` is for the network."""


@dataclass(frozen=True)
class IndexScale:
    """The size of the measurements. Tests use smaller ones.

    Attributes:
        sizes: slots and key_dim of each stream of keys in clusters.
        checks: times in a stream at which answers are compared.
        rebuilt_every: steps after which a plain annoy index is built again.
        plan: when raremem uses an index, and builds it anew.
    """

    sizes: tuple[tuple[int, int], ...] = ((200_000, 64), (200_000, 128), (1_000_000, 64), (1_000_000, 128))
    checks: int = 20
    rebuilt_every: int = 100
    plan: LivePlan = field(default_factory=LivePlan)


COLUMNS = [
    "", "queries / s", "x exact", "median recall@1", "worst recall@1", "recall@10", "newest found", "mean step ms",
    "worst step ms", "first build s", "builds",
]  # fmt: skip


def run(setting: Setting, scale: IndexScale = IndexScale()) -> Findings:
    """Measure every size and way of searching, for about `setting.minutes` in all, builds and comparisons not counted.

    Raises:
        MissingPackageError: the framework is not installed.
    """
    streams = (Clusters(slots, key_dim, setting.seed) for slots, key_dim in scale.sizes)
    named = {f"{stream.slots:,} keys of {stream.key_dim} dimensions": stream for stream in streams}
    return _measured(setting, named, 60 * setting.minutes / len(scale.sizes) / len(installed_methods()), scale)


def run_characters(setting: Setting) -> Findings:
    """The same with embedded characters, by the network of the Omniglot task, which is trained or taken from its snapshot.

    Raises:
        DataError: the data is not Omniglot.
        MissingPackageError: the framework or the extra `bench` is not installed.
    """
    assert setting.data is not None
    characters = load_omniglot(setting.data)
    learner, _ = trained(setting, characters)
    stream = draw(learner.embed, characters.test, CHARACTERS_SLOTS, POOL, setting.seed)
    name = f"{CHARACTERS_SLOTS:,} embedded characters of {stream.rows.shape[1]} dimensions"
    return _measured(setting, {name: stream}, SECONDS, IndexScale())


def _measured(setting: Setting, streams: Mapping[str, KeyStream], seconds: float, scale: IndexScale) -> Findings:
    measured: dict[str, dict[str, SearchFigures]] = {}
    for title, stream in streams.items():
        keys, values = stream.start()
        measured[title] = {}
        for name in progress(installed_methods(), title):
            make = partial(make_method, name, setting.backend, keys, values, setting.seed, scale.rebuilt_every, scale.plan)
            measured[title][name] = measure(stream, make, seconds, scale.checks)
    return findings(measured)


def findings(measured: dict[str, dict[str, SearchFigures]]) -> Findings:
    """A table for each stream."""
    headline: dict[str, float] = {}
    for title, methods in measured.items():
        for name, found in methods.items():
            headline[f"{title}, {name}: x exact"] = found.steps_per_second / methods["exact"].steps_per_second
            headline[f"{title}, {name}: worst recall@1, %"] = min(found.recall_at_1)
    return Findings(
        headline=headline,
        figures={title: {name: asdict(found) for name, found in methods.items()} for title, methods in measured.items()},
        tables={title: [COLUMNS, *_rows(methods)] for title, methods in measured.items()},
        plots=lambda: [_plot(measured)],
        notes=[
            f"Each step queries and then writes {BATCH} rows, so updates / s are as many as queries / s. Newest found: of rows "
            "that took a slot, those whose key answers the same row at once. Builds: those begun while the stream ran."
        ],
    )


def _rows(methods: dict[str, SearchFigures]) -> Table:
    rows = []
    for name, found in methods.items():
        rate = found.steps_per_second
        rows.append([
            name, f"{BATCH * rate:,.0f}", f"{rate / methods['exact'].steps_per_second:.1f}",
            f"{np.median(found.recall_at_1):.1f} %", f"{min(found.recall_at_1):.1f} %", f"{np.mean(found.recall_at_10):.1f} %",
            f"{np.mean(found.newest):.1f} %", f"{1000 / rate:.1f}", f"{found.worst_ms:.0f}", f"{found.first_build_seconds:.1f}",
            str(found.builds),
        ])  # fmt: skip
    return rows


def _plot(measured: dict[str, dict[str, SearchFigures]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(measured), 4), layout="constrained")
    for axes, (name, ways) in zip(
        figure.subplots(1, len(measured), sharey=True, squeeze=False)[0], measured.items(), strict=True
    ):
        for way, found in ways.items():
            axes.plot(BATCH * found.steps_per_second, min(found.recall_at_1), "o", label=way)
        axes.set(xscale="log", xlabel="queries / s", title=name)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("worst recall@1, %")
    figure.axes[0].legend()
    return figure


TASK = Task(
    "Approximate search in a memory that changes at every step",
    "of annoy, faiss and hnswlib those to be measured; 6 GB of memory; builds of hnswlib take an hour more",
    10.0,
    run,
    backends=("numpy", "torch"),
)
CHARACTERS = Task(
    "The same with the keys of embedded characters",
    "the network of omniglot in --out (or trains it); about 15 minutes more",
    20.0,
    run_characters,
    "omniglot",
    ("torch",),
)
