"""The page of benchmarks in the docs, made from the result files in `benchmarks/results/`.

    python -m raremem.benchmarks.report.claims

writes `docs/benchmarks.md` from `docs/benchmarks.md.jinja`. A result file is what `raremem bench --out` writes;
a key of `PROVENANCE` that is missing or null is shown as "not recorded".
"""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
TEMPLATE = ROOT / "docs" / "benchmarks.md.jinja"
PAGE = ROOT / "docs" / "benchmarks.md"

PROVENANCE = ("date", "hardware", "commit", "command")
UNKNOWN = "not recorded"

Result = dict[str, Any]


def results(folder: Path = RESULTS) -> dict[str, Result]:
    """All result files in a folder, by name without `.json`."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def machines(runs: dict[str, Result]) -> dict[str, str]:
    """A letter for each machine of the results: A for the one with the most of them."""
    counts = Counter(result["hardware"] for result in runs.values() if result.get("hardware"))
    return {hardware: chr(ord("A") + place) for place, (hardware, _) in enumerate(counts.most_common())}


def origin(name: str, runs: dict[str, Result]) -> str:
    """Where a result is from: its file, date, machine and commit."""
    result = runs[name]
    machine, commit = machines(runs).get(result.get("hardware", ""), UNKNOWN), result.get("commit")
    return f"`{name}`, {result.get('date') or UNKNOWN}, {machine}, {f'`{commit}`' if commit else UNKNOWN}"


def commands(names: list[str], runs: dict[str, Result]) -> str:
    """The commands of some results, each once; those that differ by the seed alone are one, with all its seeds."""
    forms: dict[str, list[str]] = {}
    for name in names:
        command = runs[name].get("command")
        form = re.sub(r"(?<=--seed )\d+", "SEEDS", f"`{command}`") if command else UNKNOWN
        forms.setdefault(form, []).extend(re.findall(r"(?<=--seed )\d+", command or ""))
    return ", ".join(form.replace("SEEDS", ", ".join(seeds)) for form, seeds in forms.items())


def mean(names: list[str], figure: str, runs: dict[str, Result]) -> str:
    """The mean of a figure of the headline over some results, with one decimal."""
    return f"{statistics.mean(runs[name]['headline'][figure] for name in names):.1f}"


def ratios(result: Result, of: str, slots: int | None = None, batch: int | None = None) -> list[float]:
    """The ratios called `of` in a headline of speed, of all sizes, or of those with so many slots and rows.

    Args:
        result: one whose headline has names such as "8,192 x 16 x 64 x 1: step / plain torch step".
        of: what stands after the colon.
        slots: the first number of the size.
        batch: the second.
    """
    found = []
    for name, value in result["headline"].items():
        size, _, what = name.partition(": ")
        numbers = [int(number.replace(",", "")) for number in size.split(" x ")] if what == of else []
        if numbers and slots in (None, numbers[0]) and batch in (None, numbers[1]):
            found.append(value)
    return found


def span(numbers: list[float], digits: int = 2) -> str:
    """The least and the largest of some numbers."""
    least, most = (f"{bound(numbers):.{digits}f}" for bound in (min, max))
    return least if least == most else f"{least} to {most}"


def spread(numbers: list[float], digits: int = 1) -> str:
    """Mean ± standard deviation."""
    return f"{statistics.mean(numbers):.{digits}f} ± {statistics.stdev(numbers):.{digits}f}"


def within(numbers: list[float], most: float) -> str:
    """How many of some numbers are at most `most`."""
    return f"{sum(number <= most for number in numbers)} of {len(numbers)}"


def verdict(figure: float, *, least: float) -> str:
    """Whether a figure, as precise as it is stated, is at least the aim."""
    return f"{least:g}: {'reached' if figure >= least else '**missed**'}"


def column(table: list[list[str]], row: str, name: str) -> str:
    """A cell of a table of text, by the names of its row and its column."""
    (found,) = (cells for cells in table[1:] if cells[0] == row)
    return found[table[0].index(name)]


def case(result: Result, slots: int, batch: int, key_dim: int, neighbors: int) -> dict[str, float]:
    """The measurements of one size."""
    size = {"slots": slots, "batch": batch, "key_dim": key_dim, "neighbors": neighbors}
    (found,) = (case for case in result["figures"]["cases"] if size.items() <= case.items())
    return found


def page(template: Path = TEMPLATE, folder: Path = RESULTS) -> str:
    """The text of the page.

    Raises:
        jinja2.UndefinedError: the template names a result or a figure that is not there.
    """
    runs = results(folder)
    helpers = {function.__name__: function for function in (ratios, span, spread, within, verdict, column, case)}
    helpers |= {function.__name__: partial(function, runs=runs) for function in (origin, commands, mean)}
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(template.read_text(encoding="utf-8")).render(runs=runs, machines=machines(runs), **helpers)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
