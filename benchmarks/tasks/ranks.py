"""One memory over several processes: what a step costs and sends, against the number of ranks. See `cost.ranks`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from raremem.benchmarks.cost.ranks import BATCH, KEY_DIM, NEIGHBORS, SLOTS, Cost, measure
from raremem.benchmarks.progress import progress
from raremem.benchmarks.task import Findings, Setting, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANKS = (1, 2, 4)
BILLION = 10**9
DEVICES = 64


def run(setting: Setting, numbers: tuple[int, ...] = RANKS) -> Findings:
    """Measure each number of ranks, for about `setting.minutes` in all.

    Raises:
        MissingPackageError: PyTorch is not installed.
    """
    costs = [measure(ranks, 60 * setting.minutes / len(numbers)) for ranks in progress(numbers, "ranks")]
    return findings(costs)


def findings(costs: list[Cost]) -> Findings:
    """The table, the plot, and what a billion slots would cost by these figures."""
    table = [["ranks", "step ms", "kB sent by a rank", "collectives", "MB of keys on a rank"]]
    for cost in costs:
        numbers = (f"{cost.milliseconds:.1f}", f"{cost.sent / 1e3:.1f}", f"{cost.calls:.0f}", f"{cost.keys / 1e6:.1f}")
        table.append([str(cost.ranks), *numbers])
    headline = {f"{cost.ranks} ranks: step ms": cost.milliseconds for cost in costs}
    headline |= {f"{cost.ranks} ranks: kB sent by a rank": cost.sent / 1e3 for cost in costs}
    return Findings(
        headline=headline,
        figures={"costs": [asdict(cost) for cost in costs]},
        tables={f"{SLOTS:,} slots of {KEY_DIM} dimensions, {NEIGHBORS} neighbors, {BATCH} rows in all": table},
        plots=lambda: [_plot(costs)],
        notes=[_on_paper(costs[-1])],
    )


def _on_paper(cost: Cost) -> str:
    """What a billion slots would need."""
    keys, rest = 4 * KEY_DIM * BILLION / DEVICES / 1e9, 12 * BILLION / 1e9
    return (
        f"On paper, {BILLION:,} slots of {KEY_DIM} dimensions on {DEVICES} devices: each holds {keys:.1f} GB of keys and "
        f"{rest:.0f} GB of values, ages and hits. A step sends what it sends here, {cost.sent / 1e3:.0f} kB a rank in "
        f"{cost.calls:.0f} collectives, since none depends on the slots."
    )


def _plot(costs: list[Cost]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([cost.ranks for cost in costs], [cost.milliseconds for cost in costs], marker="o")
    axes.set(xlabel="ranks", ylabel="milliseconds a step", xticks=RANKS, ylim=(0, None))
    axes.grid(alpha=0.3)
    return figure


TASK = Task(
    "One memory over several processes: what a step costs and sends",
    "PyTorch; 2 GB of memory",
    2.0,
    run,
    backends=("torch",),
)
