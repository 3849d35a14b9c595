"""The files of a run: `<task>-<backend>-<seed>.json` and `.html`, and `index.html` over all runs in the folder."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raremem.benchmarks.report.pages import inline_svg, render
from raremem.benchmarks.task import Findings, Setting, Table, Task
from raremem.command.lines import as_line
from raremem.command.outputs import write_file

INDEX = "index.html"
Result = dict[str, Any]
"""What a result file holds."""


def stem(result: Result) -> str:
    """The name of a result's files, without the suffix."""
    return f"{result['task']}-{result['backend']}-{result['seed']}"


def result_files(task: str, setting: Setting) -> list[str]:
    """The names of the files that a run writes, without its snapshots."""
    name = stem({"task": task, "backend": setting.backend, "seed": setting.seed})
    return [f"{name}.json", f"{name}.html", INDEX]


def write_result(out: Path, title: str, result: Result, findings: Findings) -> None:
    """The result as JSON, and its page."""
    versions, backend = result["versions"], result["backend"]
    command = f"raremem bench {result['task']} --backend {backend} --minutes {result['minutes']:g} --seed {result['seed']}"
    place = f"{backend} {versions[backend]}, {result['device']}, {result['threads']} threads; raremem {versions['raremem']}"
    wall = f"{result['wall_seconds'] / 60:.1f} minutes"
    facts = {"run": command, "on": place, "wall time": wall, **findings.facts}
    plots = [inline_svg(figure) for figure in findings.plots()]
    page = render("run.html", title=title, facts=facts, notes=findings.notes, tables=findings.tables, plots=plots)
    write_file(out / f"{stem(result)}.json", json.dumps(result, indent=1) + "\n")
    write_file(out / f"{stem(result)}.html", page)


def write_index(out: Path, tasks: Mapping[str, Task]) -> None:
    """The first page of the report: the figures of every result in `out`, seeds taken together, or "not run".

    A .json that is no result is left out, and named in a line on standard error.
    """
    results = [result for path in sorted(out.glob("*-*-*.json")) if (result := _read_result(path, tasks)) is not None]
    sections = []
    for name, task in tasks.items():
        runs = [result for result in results if result["task"] == name]
        links = {f"{run['backend']}, seed {run['seed']}": f"{stem(run)}.html" for run in runs}
        sections.append({"title": task.title, "table": _summary(runs, task.backends), "links": links})
    write_file(out / INDEX, render("index.html", title="raremem: benchmarks", sections=sections))


def _read_result(path: Path, tasks: Mapping[str, Task]) -> Result | None:
    """The result in a file; None, and a line, if it is none."""
    try:
        result = json.loads(path.read_bytes())
        minutes, headline, backends = result["minutes"], result["headline"], tasks[result["task"]].backends
        if stem(result) != path.stem or type(result["seed"]) is not int or result["backend"] not in backends:
            raise ValueError("its task, backend and seed are not those of its name")
        if not all(type(number) in (int, float) and math.isfinite(number) for number in (minutes, *headline.values())):
            raise ValueError("its figures are not numbers")
    except Exception as error:  # a stranger's file may hold anything
        why = f"{type(error).__name__}: {error}"
        print(as_line(f"raremem: {path} is no result of raremem bench ({why}); left out of {INDEX}."), file=sys.stderr)
        return None
    return result


def _summary(runs: list[Result], backends: tuple[str, ...]) -> Table:
    """A row for each figure of the headlines, a column for each backend."""
    columns = {backend: [run for run in runs if run["backend"] == backend] for backend in backends}
    figures = dict.fromkeys(figure for some in columns.values() for run in some for figure in run["headline"])
    header = ["", *(f"{backend} ({_seeds(some)})" for backend, some in columns.items())]
    return [header, *([figure, *(_mean(some, figure) for some in columns.values())] for figure in figures)]


def _seeds(runs: list[Result]) -> str:
    return ", ".join(f"{run['minutes']:g} min, seed {run['seed']}" for run in runs) or "not run"


def _mean(runs: list[Result], figure: str) -> str:
    """The figure's mean over the seeds, and with several their standard deviation."""
    numbers = [run["headline"][figure] for run in runs if figure in run["headline"]]
    if not numbers:
        return "not run"
    spread = f" ± {statistics.stdev(numbers):.1f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.1f}{spread}"
