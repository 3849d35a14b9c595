"""Runs a task: checks the setting before the work, and writes the report after it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import raremem
from raremem.benchmarks.data.downloads import DATA_SETS, DOWNLOAD, fetch
from raremem.benchmarks.packages import need
from raremem.benchmarks.registry import TASKS, find
from raremem.benchmarks.report.provenance import provenance
from raremem.benchmarks.report.results import INDEX, result_files, stem, write_index, write_result
from raremem.benchmarks.report.tables import as_text
from raremem.benchmarks.task import Findings, Setting, Task
from raremem.command.lines import as_line
from raremem.command.outputs import check_out


def run_task(name: str, setting: Setting) -> None:
    """Run a task, print its tables, and write its files.

    Raises:
        ConfigError: the task needs data, and none was named; it does not run on that backend; the minutes are none; or the
            folder for results cannot be written.
        DataError: the data is not what it should be.
        CheckpointError: there is a snapshot in the folder that is damaged.
        MissingPackageError: a package that the task or its report needs is not installed.
    """
    task = find(name)
    setting = _checked(name, task, setting)
    started = time.perf_counter()
    findings = task.run(setting)
    result = _result(name, setting, findings, time.perf_counter() - started)
    write_result(setting.out, task.title, result, findings)
    write_index(setting.out, {name: find(name) for name in TASKS})
    for title, table in findings.tables.items():
        print(f"\n{as_line(title)}\n{as_text(table)}")
    minutes = result["wall_seconds"] / 60
    print(f"\n{setting.out / stem(result)}.json and .html written after {minutes:.1f} minutes; see {setting.out / INDEX}")


def _checked(name: str, task: Task, setting: Setting) -> Setting:
    """Check the setting, and download its data if that is asked for."""
    if setting.backend not in task.backends:
        raise raremem.ConfigError(f"--backend {setting.backend}: {name} runs on {' or '.join(task.backends)}.")
    if task.data and setting.data is None:
        raise raremem.ConfigError(
            f"{name} needs {DATA_SETS[task.data].title}. Name the folder with --data, set RAREMEM_DATA, or say --data download."
        )
    check_out(setting.out, result_files(name, setting))
    need("the report", "matplotlib", "jinja2")
    if task.data and setting.data == Path(DOWNLOAD):
        setting = replace(setting, data=fetch(task.data))
    return setting


def _result(name: str, setting: Setting, findings: Findings, wall_seconds: float) -> dict[str, Any]:
    """The content of the result file."""
    info = raremem.backends()[setting.backend]
    return {
        "task": name,
        "backend": setting.backend,
        "versions": {"raremem": raremem.__version__, setting.backend: info.version, "numpy": version("numpy")},
        "device": info.device,
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "seed": setting.seed,
        "minutes": setting.minutes,
        "wall_seconds": wall_seconds,
        **provenance(name, setting),
        "headline": findings.headline,
        "figures": findings.figures,
    }
