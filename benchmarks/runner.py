"""The benchmark tasks: what there is, what each needs, and the files that a run leaves.

A run writes `<task>-<backend>-<seed>.json` and `.html`, and writes `index.html` anew: every task, every backend, all seeds that
are there, and "not run" where none is.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import raremem
from raremem.benchmarks.data.downloads import DOWNLOAD, fetch
from raremem.benchmarks.report.pages import Outcome, as_text, fact_list, html_table, inline_svg, need_plots, page
from raremem.command.lines import as_line
from raremem.command.outputs import check_out, write_file


@dataclass(frozen=True)
class Setting:
    """What a run is asked for: backend, data, the folder for results, minutes of training, seed."""

    backend: str
    data: Path | None
    out: Path
    minutes: float
    seed: int

    def snapshot(self, name: str) -> Path:
        """The file for the training called `name`."""
        return self.out / f"{name}-{self.backend}-{self.seed}.safetensors"


@dataclass(frozen=True)
class Task:
    """A task: its title, what it needs, how long it trains unless told otherwise, the data, and the `module:function` of it."""

    title: str
    needs: str
    minutes: float
    data: str | None
    """The name of its data set in `downloads.SOURCES`, or None."""
    code: str
    backends: tuple[str, ...] = ("torch", "jax")

    def run(self) -> Callable[[Setting], Outcome]:
        """What runs it; imported only now."""
        module, _, function = self.code.partition(":")
        return getattr(importlib.import_module(f"raremem.benchmarks.{module}"), function)


INDEX = "index.html"
FILES = {
    "omniglot": "Omniglot's two official zips (or their folders, or .npz)",
    "multi30k": "Multi30k (train and test_2016_flickr; .en and .de, or .gz)",
}


TASKS = {
    "omniglot": Task(
        "Omniglot: few-shot classification of new characters",
        "the extra bench and a framework; about 21 minutes for --minutes 20",
        20.0,
        "omniglot",
        "tasks.omniglot:run",
    ),
    "omniglot-margin": Task(
        "Omniglot: the same, trained on the paper's margin loss",
        "the extra bench and a framework; about 21 minutes for --minutes 20",
        20.0,
        "omniglot",
        "tasks.omniglot:run_margin",
    ),
    "omniglot-wide": Task(
        "Omniglot: the same with a wider network, for longer",
        "the extra bench and a framework; about 70 minutes for --minutes 60",
        60.0,
        "omniglot",
        "tasks.omniglot:run_wide",
    ),
    "omniglot-large": Task(
        "Omniglot: the same with a larger network, on a GPU",
        "the extra bench and JAX on a GPU; about 8 minutes for --minutes 5",
        5.0,
        "omniglot",
        "tasks.omniglot:run_large",
        ("jax",),
    ),
    "lifelong": Task(
        "The life-long stream: 100,000 new characters, never a reset",
        "the network of omniglot in --out (or trains it); about 10 minutes more",
        20.0,
        "omniglot",
        "tasks.lifelong:run",
    ),
    "symbols": Task(
        "A random function in a recurrent-convolutional network",
        "the extra bench and a framework; twice --minutes: with memory, and without",
        5.0,
        None,
        "tasks.symbols:run",
    ),
    "translation": Task(
        "English to German with a deep sequence-to-sequence network",
        "the extra bench and a framework; twice --minutes: with memory, and without",
        30.0,
        "multi30k",
        "tasks.translation:run",
    ),
    "speed": Task(
        "What a step costs, from 8,192 to 10,000,000 slots",
        "a framework, or numpy; PyTorch and faiss-cpu to compare with; 16 GB of memory",
        8.0,
        None,
        "cost.speed:run",
        ("torch", "jax", "numpy"),
    ),
    "index": Task(
        "Approximate search in a memory that changes at every step",
        "of annoy, faiss and hnswlib those to be measured; 6 GB of memory; builds of hnswlib take an hour more",
        10.0,
        None,
        "live_index.search:run",
        ("numpy", "torch"),
    ),
    "index-omniglot": Task(
        "The same with the keys of embedded characters",
        "the network of omniglot in --out (or trains it); about 15 minutes more",
        20.0,
        "omniglot",
        "live_index.search:run_characters",
        ("torch",),
    ),
    "ranks": Task(
        "One memory over several processes: what a step costs and sends",
        "PyTorch; 2 GB of memory",
        2.0,
        None,
        "cost.ranks:run",
        ("torch",),
    ),
}


def run_task(name: str, setting: Setting) -> None:
    """Run a task, print its tables, and write its files.

    Raises:
        ConfigError: the task needs data, and none was named; it does not run on that backend; the minutes are none; or the
            folder for results cannot be written.
        DataError: the data is not what it should be.
        CheckpointError: there is a snapshot in the folder that is damaged.
    """
    task = TASKS[name]
    if setting.backend not in task.backends:
        raise raremem.ConfigError(f"--backend {setting.backend}: {name} runs on {' or '.join(task.backends)}.")
    if task.data and setting.data is None:
        raise raremem.ConfigError(
            f"{name} needs {FILES[task.data]}. Name the folder with --data, set RAREMEM_DATA, or say --data download."
        )
    stem = f"{name}-{setting.backend}-{setting.seed}"
    check_out(setting.out, (f"{stem}.json", f"{stem}.html", INDEX))
    need_plots()
    if task.data and setting.data == Path(DOWNLOAD):
        setting = replace(setting, data=fetch(task.data))
    started = time.perf_counter()
    outcome = task.run()(setting)
    info = raremem.backends()[setting.backend]
    wall = time.perf_counter() - started
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    versions = {"raremem": raremem.__version__, setting.backend: info.version, "numpy": version("numpy")}
    result = {
        "task": name,
        "backend": setting.backend,
        "versions": versions,
        "device": info.device,
        "threads": threads,
        "seed": setting.seed,
        "minutes": setting.minutes,
        "wall_seconds": wall,
        "headline": outcome.headline,
        "figures": outcome.figures,
    }
    facts = {
        "run": f"raremem bench {name} --backend {setting.backend} --minutes {setting.minutes:g} --seed {setting.seed}",
        "on": f"{setting.backend} {info.version}, {info.device}, {threads} threads; raremem {raremem.__version__}",
        "wall time": f"{wall / 60:.1f} minutes",
        **outcome.facts,
    }
    tables = "".join(f"<h2>{escape(title)}</h2>{html_table(table)}" for title, table in outcome.tables.items())
    notes = "".join(f"<p>{note}</p>" for note in outcome.notes)
    plots = "".join(map(inline_svg, outcome.plots()))
    write_file(setting.out / f"{stem}.json", json.dumps(result, indent=1) + "\n")
    write_file(setting.out / f"{stem}.html", page(task.title, fact_list(facts) + notes + tables + plots))
    write_index(setting.out)
    for title, table in outcome.tables.items():
        print(f"\n{as_line(title)}\n{as_text(table)}")
    print(f"\n{setting.out / stem}.json and .html written after {wall / 60:.1f} minutes; see {setting.out / INDEX}")


def write_index(out: Path) -> None:
    """The first page of the report: the figures of every result in `out`, seeds taken together.

    A .json that is no result is left out, and named in a line on standard error.
    """
    results = [result for path in sorted(out.glob("*-*-*.json")) if (result := _read_result(path)) is not None]
    sections = []
    for name, task in TASKS.items():
        ran = {backend: [r for r in results if (r["task"], r["backend"]) == (name, backend)] for backend in task.backends}
        figures = list(dict.fromkeys(figure for runs in ran.values() for run in runs for figure in run["headline"]))
        columns = [_columns(runs, figures) for runs in ran.values()]
        rows = [[figure, *(column[place] for column in columns)] for place, figure in enumerate(figures)]
        table = html_table([["", *(f"{backend} ({_seeds(ran[backend])})" for backend in task.backends)], *rows])
        links = ", ".join(
            f'<a href="{escape(_stem(run))}.html">{escape(run["backend"])}, seed {run["seed"]}</a>'
            for runs in ran.values()
            for run in runs
        )
        sections.append(f"<h2>{escape(task.title)}</h2>{table}<p>{links}</p>")
    write_file(out / INDEX, page("raremem: benchmarks", "".join(sections)))


def _stem(result: dict[str, Any]) -> str:
    """What the files of a result are called."""
    return f"{result['task']}-{result['backend']}-{result['seed']}"


def _read_result(path: Path) -> dict[str, Any] | None:
    """The result in a file; None, and a line, if it is none."""
    try:
        result = json.loads(path.read_bytes())
        minutes, headline = result["minutes"], result["headline"]
        if (
            _stem(result) != path.stem
            or type(result["seed"]) is not int
            or result["backend"] not in TASKS[result["task"]].backends
        ):
            raise ValueError("its task, backend and seed are not those of its name")
        if not all(type(number) in (int, float) and math.isfinite(number) for number in (minutes, *headline.values())):
            raise ValueError("its figures are not numbers")
    except Exception as error:  # a stranger's file may hold anything
        why = f"{type(error).__name__}: {error}"
        print(as_line(f"raremem: {path} is no result of raremem bench ({why}); left out of {INDEX}."), file=sys.stderr)
        return None
    return result


def _seeds(runs: list[dict[str, Any]]) -> str:
    return ", ".join(f"{run['minutes']:g} min, seed {run['seed']}" for run in runs) or "not run"


def _columns(runs: list[dict[str, Any]], figures: list[str]) -> list[str]:
    """Each figure's mean over the seeds, and with several their standard deviation."""
    cells = []
    for figure in figures:
        numbers = [run["headline"][figure] for run in runs if figure in run["headline"]]
        spread = f" ± {np.std(numbers, ddof=1):.1f}" if len(numbers) > 1 else ""
        cells.append(f"{np.mean(numbers):.1f}{spread}" if numbers else "not run")
    return cells
