"""What a benchmark task is, what it is asked for, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Table = list[list[str]]
"""Rows of cells; the first row is the header."""


@dataclass(frozen=True)
class Setting:
    """What a run is asked for.

    Attributes:
        backend: the name of a backend.
        data: the folder with the data, or None.
        out: the folder for results and snapshots.
        minutes: of training, or of measuring.
        seed: of everything that is random.
        stream: text of one's own to stream, for `translation`, or None.
        train: text of one's own to train on, for `translation`, or None.
    """

    backend: str
    data: Path | None
    out: Path
    minutes: float
    seed: int
    stream: Path | None = None
    train: Path | None = None

    def snapshot_path(self, name: str) -> Path:
        """The file for the training called `name`."""
        return self.out / f"{name}-{self.backend}-{self.seed}.safetensors"


@dataclass(frozen=True)
class Findings:
    """What a task found.

    Attributes:
        headline: its few main figures, each a number, for the report's first page.
        figures: everything that was measured, for the result file: what JSON can hold.
        tables: by title, for the page and the terminal.
        plots: draws them, when the page is written.
        facts: what was run, beyond what every run says.
        notes: sentences on how to read the tables.
    """

    headline: dict[str, float]
    figures: dict[str, Any]
    tables: dict[str, Table]
    plots: Callable[[], list[Figure]] = list
    facts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Task:
    """A task of `raremem bench`.

    Attributes:
        title: one line.
        needs: what has to be installed, and how long it takes; shown by `raremem bench --list`.
        minutes: the default of `--minutes`.
        run: does the work. It imports frameworks late: the module of a task is imported to list it.
        data: the name of its data set in `data.downloads.DATA_SETS`; default: none.
        backends: on which it runs.
    """

    title: str
    needs: str
    minutes: float
    run: Callable[[Setting], Findings]
    data: str | None = None
    backends: tuple[str, ...] = ("torch", "jax")
