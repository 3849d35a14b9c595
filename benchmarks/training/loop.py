"""The loop that trains every network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import raremem
from raremem.benchmarks.progress import progress
from raremem.benchmarks.training.learner import Learner, TrainingBatch
from raremem.benchmarks.training.snapshots import TrainingRun, resume, write_snapshot

MEASUREMENTS = 20
WARM_UP = 5
TRIAL = 25


def train(
    make: Callable[[int], Learner],
    batch_at: Callable[[int, int], TrainingBatch],
    asked: dict[str, Any],
    minutes: float,
    path: Path,
    measure: Callable[[Any], dict[str, Any]] | None = None,
    steps: int | None = None,
) -> tuple[Any, TrainingRun]:
    """Train a learner for about `minutes`, or take up the run whose snapshot is at `path`.

    Args:
        make: a new learner that will take this many steps.
        batch_at: the batch of a step, of this many.
        asked: what the run is; a snapshot of something else is an error.
        minutes: from which the number of steps is worked out by a short trial.
        path: for the snapshot, 20 times in a run and at its end.
        measure: what to add to the curve, 20 times in a run.
        steps: how many to take, whatever the minutes.

    Returns:
        The trained learner, and its run.

    Raises:
        ConfigError: `minutes` are none, or the snapshot is of another run.
        CheckpointError: the snapshot is damaged, or is none.
    """
    if not minutes > 0:
        raise raremem.ConfigError(f"--minutes {minutes}: expected more than 0.")
    found = resume(path, asked, minutes)
    run, content = found or (TrainingRun({**asked, "minutes": minutes}, steps or _steps_in(make, batch_at, minutes)), None)
    learner = make(run.steps)
    if content is not None:
        learner.from_numpy(content)
        print(f"{path.stem}: going on from step {run.done} of {run.steps}")
    losses = []
    started = time.perf_counter()
    for step in progress(range(run.done, run.steps), f"{path.stem}: training"):
        losses.append(learner.learn(*batch_at(step, run.steps)))
        if (step + 1) % max(1, run.steps // MEASUREMENTS) == 0 or step + 1 == run.steps:
            run.done, run.seconds = step + 1, run.seconds + time.perf_counter() - started
            point = {"step": run.done, "minutes": run.seconds / 60, "loss": float(np.mean(losses))}
            run.curve.append(point | (measure(learner) if measure else {}))
            write_snapshot(path, run, learner.to_numpy())
            losses, started = [], time.perf_counter()
    return learner, run


def _steps_in(make: Callable[[int], Learner], batch_at: Callable[[int, int], TrainingBatch], minutes: float) -> int:
    """How many steps fit in these minutes, by the median time of a short trial. (The first steps compile programs.)"""
    learner = make(WARM_UP + TRIAL)
    taken = []
    for step in range(WARM_UP + TRIAL):
        started = time.perf_counter()
        learner.learn(*batch_at(step, WARM_UP + TRIAL))
        taken.append(time.perf_counter() - started)
    return max(MEASUREMENTS, int(60 * minutes / statistics.median(taken[WARM_UP:])))
