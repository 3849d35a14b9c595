"""What is measured: accuracy by how often a symbol was seen, and on symbols shown once after training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.report.tables import group_names
from raremem.benchmarks.task import Findings, Setting, Table, Task
from raremem.benchmarks.tasks.symbols.recipe import Symbols, SymbolsRecipe
from raremem.benchmarks.training.learner import Learner, framework_module
from raremem.benchmarks.training.loop import train
from raremem.benchmarks.training.snapshots import TrainingRun, resume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEN = ((0, 0), (1, 1), (2, 2), (3, 5), (6, 20), (21, 100), (101, None))
"""First and last count of each group of symbols."""
ARMS = {"with memory": True, "without": False}


class SymbolLearner(Learner, Protocol):
    """A learner that can be asked, and shown without a gradient step."""

    def ask(self, symbols: Symbols) -> Symbols:
        """The network's answers [B, length]."""

    def show(self, symbols: Symbols, answers: Symbols, due: NDArray[np.bool_]) -> None:
        """Let the memory see sequences and their answers."""


@dataclass(frozen=True)
class SymbolFigures:
    """Right answers in % by how often the symbol was seen, with how many were asked; and in % after a single showing."""

    by_seen: list[float | None]
    asked: list[int]
    one_shot: float
    never_shown: float


def make_learner(backend: str, recipe: SymbolsRecipe) -> SymbolLearner:
    """The network in that framework.

    Raises:
        MissingPackageError: the framework, or a package of the extra `bench`, is not installed.
    """
    return framework_module("tasks.symbols", backend).make(recipe)


def seen_in_training(recipe: SymbolsRecipe) -> NDArray[np.int64]:
    """How often training asked for each symbol [symbols]."""
    counts = np.zeros(recipe.symbols, np.int64)
    for step in range(recipe.steps):
        sequences, _, _ = recipe.batch_at(step)
        np.add.at(counts, sequences[:, :-1].ravel(), 1)
    return counts


def measure(learner: SymbolLearner, recipe: SymbolsRecipe, seen: NDArray[np.int64]) -> SymbolFigures:
    """Ask for symbols of every frequency; then, and last of all, show unseen ones once and ask for those."""
    generator = np.random.default_rng([recipe.seed, 4])
    asked_in_one = recipe.batch * (recipe.length - 1)
    known = recipe.order[recipe.unseen :]
    groups = [known[(seen[known] >= low) & (seen[known] <= (seen.max() if high is None else high))] for low, high in SEEN]
    groups[0] = np.concatenate([recipe.order[: recipe.unseen], groups[0]])
    by_seen, asked = [], []
    for group in groups:
        count = min(len(group), 4 * asked_in_one)
        asked.append(count)
        chosen = generator.choice(group, count, replace=False) if count else group
        by_seen.append(100 * float(_right(learner, recipe, chosen).mean()) if count else None)

    new = generator.choice(recipe.order[: recipe.unseen], min(recipe.unseen, 2 * asked_in_one), replace=False)
    before = _right(learner, recipe, new).mean()
    for sequences, _ in _sequences(recipe, generator.permutation(new)):
        learner.show(*recipe.with_answers(sequences))
    after = _right(learner, recipe, generator.permutation(new)).mean()
    return SymbolFigures(by_seen, asked, 100 * float(after), 100 * float(before))


def _sequences(recipe: SymbolsRecipe, symbols: Symbols) -> list[tuple[Symbols, int]]:
    """Batches of sequences that ask for each symbol once, and for how many: the last repeats some to be full."""
    places = recipe.length - 1
    full = np.resize(symbols, -(-len(symbols) // (recipe.batch * places)) * recipe.batch * places)
    rows = full.reshape(-1, places)
    rows = np.concatenate([rows, rows[:, :1]], axis=1)
    left = len(symbols)
    batches = []
    for start in range(0, len(rows), recipe.batch):
        count = min(left, recipe.batch * places)
        batches.append((rows[start : start + recipe.batch], count))
        left -= count
    return batches


def _right(learner: SymbolLearner, recipe: SymbolsRecipe, symbols: Symbols) -> NDArray[np.bool_]:
    """Which of these symbols are answered rightly."""
    right = []
    for sequences, count in _sequences(recipe, symbols):
        _, answers, due = recipe.with_answers(sequences)
        right.append((learner.ask(sequences) == answers)[due][:count])
    return np.concatenate(right)


def run(setting: Setting) -> Findings:
    """Train with memory for about `setting.minutes`, without for as many batches, and measure both.

    Raises:
        MissingPackageError: the framework or the extra `bench` is not installed.
    """
    measured: dict[str, SymbolFigures] = {}
    runs: dict[str, TrainingRun] = {}
    for memory in ARMS.values():
        resume(_snapshot(setting, memory), _asked(setting, memory), setting.minutes)
    for arm, memory in ARMS.items():
        steps = max((run.steps for run in runs.values()), default=None)
        learner, runs[arm] = _trained(setting, memory, steps)
        recipe = _recipe(setting, memory, runs[arm].steps)
        measured[arm] = measure(learner, recipe, seen_in_training(recipe))
    return findings(measured, runs)


@lru_cache(4)
def _recipe(setting: Setting, memory: bool, steps: int) -> SymbolsRecipe:
    return SymbolsRecipe(steps=steps, memory=memory, seed=setting.seed)


def _trained(setting: Setting, memory: bool, steps: int | None) -> tuple[SymbolLearner, TrainingRun]:
    return train(
        lambda steps: make_learner(setting.backend, _recipe(setting, memory, steps)),
        lambda step, steps: _recipe(setting, memory, steps).batch_at(step),
        _asked(setting, memory),
        setting.minutes,
        _snapshot(setting, memory),
        steps=steps,
    )


def _asked(setting: Setting, memory: bool) -> dict[str, Any]:
    return asdict(SymbolsRecipe(memory=memory, seed=setting.seed))


def _snapshot(setting: Setting, memory: bool) -> Path:
    return setting.snapshot_path(f"symbols-{'memory' if memory else 'plain'}")


def findings(measured: dict[str, SymbolFigures], runs: dict[str, TrainingRun]) -> Findings:
    """The tables and plots of both arms."""
    names = group_names(SEEN)
    by_seen: Table = [["seen in training", *names]]
    one_shot: Table = [["", "never shown", "shown once, without a gradient step"]]
    for arm, found in measured.items():
        by_seen.append([arm, *("-" if percent is None else f"{percent:.1f}" for percent in found.by_seen)])
        by_seen.append([f"{arm}: asked", *(f"{count:,}" for count in found.asked)])
        one_shot.append([arm, f"{found.never_shown:.2f}", f"{found.one_shot:.2f}"])
    headline = {f"shown once, {arm}, %": found.one_shot for arm, found in measured.items()}
    for arm, found in measured.items():
        headline |= {
            f"seen {name} in training, {arm}, %": percent
            for name, percent in zip(names, found.by_seen, strict=True)
            if percent is not None
        }
    return Findings(
        headline=headline,
        figures={arm: {"measured": asdict(found), "run": asdict(runs[arm])} for arm, found in measured.items()},
        tables={"Right answers by how often the symbol was seen in training, %": by_seen, "New symbols, %": one_shot},
        plots=lambda: [_plot(measured, names)],
        facts={f"training {arm}": f"{run.steps:,} batches in {run.seconds / 60:.1f} minutes" for arm, run in runs.items()},
        notes=["Chance is 1 in 16,000. Symbols are asked for in sequences that were never seen."],
    )


def _plot(measured: dict[str, Any], names: list[str]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for arm, found in measured.items():
        points = [(name, percent) for name, percent in zip(names, found.by_seen, strict=True) if percent is not None]
        line = axes.plot(*zip(*points, strict=True), marker="o", label=arm)[0]
        axes.axhline(found.one_shot, linestyle=":", color=line.get_color(), label=f"{arm}: shown once after training")
    axes.set(xlabel="times the symbol was seen in training", ylabel="right answers, %", ylim=(-3, 103))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


TASK = Task(
    "A random function in a recurrent-convolutional network",
    "the extra bench and a framework; twice --minutes: with memory, and without",
    5.0,
    run,
)
