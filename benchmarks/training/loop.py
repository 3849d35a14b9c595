"""What all tasks share: a learner, the loop that trains it, and snapshots, so that a stopped run goes on where it was."""

from __future__ import annotations

import hashlib
import importlib
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

import raremem
from raremem.benchmarks.progress import progress
from raremem.command.outputs import write_file
from raremem.errors import MissingPackageError

HEADER = "run"
MEASUREMENTS = 20
WARM_UP = 5
TRIAL = 25

Batch = tuple[NDArray[Any], ...]


class Learner(Protocol):
    """A network in one framework, with its memory and its optimizer."""

    def learn(self, *batch: NDArray[Any]) -> float:
        """One gradient step and one update of the memory; returns the loss."""

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """Everything that training has changed, so that it can be resumed."""

    def from_numpy(self, content: dict[str, NDArray[Any]]) -> None:
        """Go on from there."""


@dataclass
class Run:
    """A run of training: what it was asked for, how far it has come, and its curve.

    Attributes:
        asked: the recipe, and whatever else a run must share with the one it goes on from.
        steps: how many it will take.
        done: how many it has taken.
        seconds: how long those took, measurements left out.
        curve: a measurement each, with its `step`, `minutes` and `loss`.
    """

    asked: dict[str, Any]
    steps: int
    done: int = 0
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)


def train(
    make: Callable[[int], Learner],
    batch_at: Callable[[int, int], Batch],
    asked: dict[str, Any],
    minutes: float,
    path: Path,
    measure: Callable[[Any], dict[str, Any]] | None = None,
    steps: int | None = None,
) -> tuple[Any, Run]:
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
    run, content = found or (Run({**asked, "minutes": minutes}, steps or _steps_in(make, batch_at, minutes)), None)
    learner = make(run.steps)
    if content is not None:
        learner.from_numpy(content)
        print(f"{path.stem}: going on from step {run.done} of {run.steps}")
    every = max(1, run.steps // MEASUREMENTS)
    losses = []
    started = time.perf_counter()
    for step in progress(range(run.done, run.steps), f"{path.stem}: training"):
        losses.append(learner.learn(*batch_at(step, run.steps)))
        if (step + 1) % every == 0 or step + 1 == run.steps:
            run.seconds += time.perf_counter() - started
            run.done = step + 1
            point = {"step": run.done, "minutes": run.seconds / 60, "loss": float(np.mean(losses))}
            run.curve.append({**point, **(measure(learner) if measure else {})})
            snapshot(path, run, learner.to_numpy())
            losses = []
            started = time.perf_counter()
    return learner, run


def snapshot(path: Path, run: Run, content: dict[str, NDArray[Any]]) -> None:
    """Write a run and what its learner needs to go on: whole, or not at all."""
    arrays = {name: np.array(array, order="C") for name, array in content.items()}
    header = {**asdict(run), "sha256": _checksum(run, arrays)}
    write_file(path, safetensors.numpy.save(arrays, {HEADER: json.dumps(header, sort_keys=True)}))


def _checksum(run: Run, arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(json.dumps(asdict(run), sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def resume(path: Path, asked: dict[str, Any], minutes: float) -> tuple[Run, dict[str, NDArray[Any]]] | None:
    """The run and the arrays in the snapshot at `path`, or None if nothing is there.

    A task asks for all of its snapshots before its work.

    Raises:
        CheckpointError: the file is damaged, or is no snapshot.
        ConfigError: it is the snapshot of another run.
    """
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            header = json.loads(file.metadata()[HEADER])
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        checksum = header.pop("sha256")
        run = Run(**header)
        if checksum != _checksum(run, content):
            raise ValueError("it was changed after it was written")
    except Exception as error:  # a stranger's file may hold anything
        why = f"{type(error).__name__}: {error}"
        raise raremem.CheckpointError(
            f"{path} is not a whole snapshot of a run ({why}); name another --out, or delete it to begin again."
        ) from error
    expected = json.loads(json.dumps({**asked, "minutes": minutes}))
    if run.asked != expected:
        other = [name for name in {**run.asked, **expected} if run.asked.get(name) != expected.get(name)]
        raise raremem.ConfigError(
            f"{path} is the snapshot of a run of other {', '.join(other)}; "
            "repeat those to go on with it, name another --out, or delete it."
        )
    return run, content


def _steps_in(make: Callable[[int], Learner], batch_at: Callable[[int, int], Batch], minutes: float) -> int:
    """How many steps fit in these minutes, by the median of a short trial: in some, a program is compiled."""
    learner = make(WARM_UP + TRIAL)
    taken = []
    for step in range(WARM_UP + TRIAL):
        started = time.perf_counter()
        learner.learn(*batch_at(step, WARM_UP + TRIAL))
        taken.append(time.perf_counter() - started)
    return max(MEASUREMENTS, int(60 * minutes / statistics.median(taken[WARM_UP:])))


def framework_module(package: str, backend: str) -> Any:
    """The module `<backend>_learner` of a task's package.

    Raises:
        MissingPackageError: the framework, or a package of the extra `bench`, is not installed.
    """
    raremem.get_backend(backend)
    try:
        return importlib.import_module(f"raremem.benchmarks.{package}.{backend}_learner")
    except ImportError as error:
        raise MissingPackageError(f"training needs {error.name}: pip install 'raremem[bench]'") from error
