"""Snapshots of training runs, from which a stopped run resumes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

import raremem
from raremem.command.outputs import write_file

HEADER = "run"


@dataclass
class TrainingRun:
    """A training run: its settings, its progress, and its curve.

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


def write_snapshot(path: Path, run: TrainingRun, content: dict[str, NDArray[Any]]) -> None:
    """Write a run and the arrays of its learner, whole or not at all."""
    arrays = {name: np.array(array, order="C") for name, array in content.items()}
    header = {**asdict(run), "sha256": _checksum(run, arrays)}
    write_file(path, safetensors.numpy.save(arrays, {HEADER: json.dumps(header, sort_keys=True)}))


def _checksum(run: TrainingRun, arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(json.dumps(asdict(run), sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def resume(path: Path, asked: dict[str, Any], minutes: float) -> tuple[TrainingRun, dict[str, NDArray[Any]]] | None:
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
        run = TrainingRun(**header)
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
