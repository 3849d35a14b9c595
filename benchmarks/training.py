"""Snapshots of a training run: a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from raremem.checkpoint import replace_file

HEADER = "run"


@dataclass
class Snapshot:
    """How far a run has come, the seconds it took, its curve so far, and what its learner needs to go on."""

    done: int
    steps: int
    seconds: float
    curve: list[dict[str, Any]]
    content: dict[str, NDArray[Any]]


def snapshot(path: Path, state: Snapshot) -> None:
    """Write a snapshot, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = json.dumps(
        {"done": state.done, "steps": state.steps, "seconds": state.seconds, "curve": state.curve}, sort_keys=True
    )
    arrays = {name: np.array(array, order="C") for name, array in state.content.items()}
    replace_file(path, safetensors.numpy.save(arrays, {HEADER: header}))


def resume(path: Path) -> Snapshot | None:
    """The snapshot at `path`, or None if there is none or its run has ended."""
    if not path.is_file():
        return None
    with safetensors.safe_open(str(path), framework="numpy") as file:
        header = json.loads((file.metadata() or {})[HEADER])
        content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return None if header["done"] >= header["steps"] else Snapshot(**header, content=content)
