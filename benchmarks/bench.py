"""The benchmark tasks: what there is, what each needs, and the files that a run leaves."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import raremem
from raremem.benchmarks import omniglot
from raremem.benchmarks.pages import as_text
from raremem.checkpoint import replace_file

NEEDS = {"omniglot": "Omniglot (--data: its two official zips, or .npz); the extra bench and a framework; 20 minutes"}


def run_task(task: str, backend: str, data: Path | None, out: Path, minutes: float, seed: int) -> None:
    """Run a task, print its figures, and write `<task>-<backend>.json` and `.html` into `out`.

    Raises:
        ConfigError: the task needs data, and none was named; or the minutes are none.
    """
    if data is None:
        raise raremem.ConfigError(f"{task} needs {NEEDS[task]}. Name the folder with --data, or set RAREMEM_DATA.")
    if not minutes > 0:
        raise raremem.ConfigError(f"--minutes {minutes}: expected more than 0.")
    started = time.perf_counter()
    outcome = omniglot.run(backend, data, out, minutes, seed)
    info = raremem.backends()[backend]
    wall = time.perf_counter() - started
    result = {
        "task": task,
        "backend": backend,
        "versions": {"raremem": raremem.__version__, backend: info.version},
        "device": info.device,
        "cores": os.cpu_count(),
        "seed": seed,
        "recipe": dataclasses.asdict(outcome.recipe),
        "test": [dataclasses.asdict(accuracy) for accuracy in outcome.test],
        "published": omniglot.PUBLISHED,
        "training_minutes": outcome.minutes,
        "wall_seconds": wall,
        "curve": outcome.curve,
    }
    facts = {
        "backend": f"{backend} {info.version} on {info.device}, {os.cpu_count()} cores",
        "training": f"{outcome.recipe.steps} episodes of {outcome.recipe.classes} classes, seed {seed}",
        "wall time": f"{wall / 60:.1f} minutes",
    }
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / f"{task}-{backend}.json", (json.dumps(result, indent=1) + "\n").encode())
    replace_file(out / f"{task}-{backend}.html", outcome.html(facts).encode())
    print(as_text(outcome.table()))
    print(f"{out / task}-{backend}.json and .html written after {wall / 60:.1f} minutes")
