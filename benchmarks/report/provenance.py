"""Where the figures of a run are from: its day, machine, commit and command, without names or paths of the machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import date
from pathlib import Path

from raremem.benchmarks.task import Setting

ROOT = Path(__file__).resolve().parents[2]


def provenance(task: str, setting: Setting) -> dict[str, str | None]:
    """What a result file says of a run of this task beside its figures; None for what is not known."""
    return {"date": date.today().isoformat(), "hardware": _hardware(), "commit": _commit(), "command": _command(task, setting)}


def _hardware() -> str:
    """The processor, and how many cores of it this process may use."""
    try:
        name = re.search(r"^model name\s*: *(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        name = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{cores} cores of {name[1] if name else platform.processor() or platform.machine()}"


def _commit() -> str | None:
    """The short hash of the checkout that the package is in, with "+" if files of it were changed; None if it is in none."""
    git = ["git", "-C", str(ROOT)]
    try:
        found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() + "+" * bool(changed.stdout)


def _command(task: str, setting: Setting) -> str:
    threads = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} " if "OMP_NUM_THREADS" in os.environ else ""
    named = {"data": setting.data, "train": setting.train, "stream": setting.stream}
    data = "".join(f" --{name} PATH" for name, path in named.items() if path is not None)
    return (
        f"{threads}raremem bench {task} --backend {setting.backend}{data} "
        f"--minutes {setting.minutes:g} --seed {setting.seed} --out out"
    )
