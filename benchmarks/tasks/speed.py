"""What a step of training costs, beside what others need for it, over memories of many sizes.

A step is a query with its loss and gradient, and an update. Every figure is the median of several runs, on keys in clusters of
twenty, with queries near them, half of which hit; and once of few classes at random, as an untrained network has them: there,
the positive is seldom among the neighbors. The limit is what no search in f32 goes below: the time of the bare product of
queries and keys, or of reading the keys once, whichever is longer. (A scan in lower precision can.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import raremem
from raremem.benchmarks.cost.measure import faiss_ms, measure
from raremem.benchmarks.cost.timing import on_cuda
from raremem.benchmarks.cost.workload import BATCHES, KEY_DIMS, NEIGHBORS, WORKLOADS, Workload
from raremem.benchmarks.progress import progress
from raremem.benchmarks.task import Findings, Setting, Table, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = {
    "step": "step ms",
    "compiled": "compiled ms",
    "graph": "CUDA graph ms",
    "query": "query ms",
    "query with targets": "query with targets ms",
    "limit": "limit ms",
    "plain": "plain torch ms",
    "plain graph": "plain CUDA graph ms",
    "faiss": "faiss search ms",
    "certain": "certain %",
    "peak": "extra MB",
}
"""The titles of what is measured."""
OURS = {"step": "step", "compiled": "compiled step", "graph": "step as a CUDA graph"}
PEERS = {"plain": "plain torch step", "faiss": "faiss search", "plain graph": "plain CUDA graph"}
MEASUREMENTS = 7
"""Of a workload, about, that take the same time."""


def run(setting: Setting, workloads: Sequence[Workload] = WORKLOADS) -> Findings:
    """Measure every workload, for about `setting.minutes` in all.

    Raises:
        MissingPackageError: the framework is not installed.
    """
    backend = raremem.get_backend(setting.backend)
    seconds = 60 * setting.minutes / len(workloads) / MEASUREMENTS
    measured = [measure(workload, backend, seconds) for workload in progress(workloads, f"speed on {setting.backend}")]
    if not on_cuda():
        for found, taken in zip(measured, faiss_ms(workloads, seconds) or [], strict=False):
            found["faiss"] = taken
    return findings(workloads, measured)


def findings(workloads: Sequence[Workload], measured: Sequence[dict[str, float]]) -> Findings:
    """The table, the ratios, and the plot of cost against slots."""
    table: Table = [["slots x batch x dim x k", *COLUMNS.values()]]
    headline: dict[str, float] = {}
    for workload, found in zip(workloads, measured, strict=True):
        table.append([workload.title, *(f"{found[name]:.1f}" if name in found else "not run" for name in COLUMNS)])
        headline |= {
            f"{workload.title}: {OURS[ours]} / {PEERS[peer]}": found[ours] / found[peer]
            for ours in OURS
            for peer in PEERS
            if ours in found and peer in found
        }
    return Findings(
        headline=headline,
        figures={"cases": [{**asdict(workload), **found} for workload, found in zip(workloads, measured, strict=True)]},
        tables={"Milliseconds, medians": table},
        plots=lambda: [_plot(workloads, measured)],
        notes=[
            "A step is query, loss with its gradient, and update; the plain torch step does the same by a matrix product, topk "
            "and index writes. Compiled: query, loss and update as one compiled function. The limit is the longer of the bare "
            "product in f32 and of reading the keys once. Certain: the share of queries whose first short list was proven to "
            "hold the k nearest. Extra MB: by how much the process grows during three steps, at most."
        ],
    )


def _plot(workloads: Sequence[Workload], measured: Sequence[dict[str, float]]) -> Figure:
    from matplotlib.figure import Figure

    lines = {"step": "raremem, step", "plain": "plain torch, step", "faiss": "faiss, search", "limit": "limit"}
    key_dim, neighbors = KEY_DIMS[-1], NEIGHBORS[1]
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, batch in zip(figure.subplots(1, len(BATCHES), sharey=True), BATCHES, strict=True):
        for name, title in lines.items():
            points = [
                (workload.slots, found[name])
                for workload, found in zip(workloads, measured, strict=True)
                if (workload.batch, workload.key_dim, workload.neighbors, workload.classes) == (batch, key_dim, neighbors, None)
                and name in found
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=title)
        axes.set(
            xscale="log", yscale="log", xlabel="slots", title=f"batch {batch}, {key_dim} dimensions, {neighbors} neighbors"
        )
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("milliseconds")
    if figure.axes[0].lines:
        figure.axes[0].legend(loc="lower right")
    return figure


TASK = Task(
    "What a step costs, from 8,192 to 10,000,000 slots",
    "a framework, or numpy; PyTorch and faiss-cpu to compare with; 16 GB of memory",
    8.0,
    run,
    backends=("torch", "jax", "numpy"),
)
