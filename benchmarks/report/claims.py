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
from functools import partial, reduce
from pathlib import Path
from typing import Any, cast

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


def seeds(family: str, label: str = "", *, runs: dict[str, Result]) -> list[str]:
    """The results of one task and backend, one a seed: "symbols-torch" has symbols-torch-0, symbols-torch-1, and so on.

    Args:
        family: what stands before the seed.
        label: what stands after it.
        runs: all results.

    Raises:
        ValueError: there are none.
    """
    form = re.compile(rf"{re.escape(family)}-(\d+){re.escape(label)}")
    found = {int(match[1]): name for name in runs if (match := form.fullmatch(name))}
    if not found:
        raise ValueError(f"no result is named {family}-SEED{label}.json; expected one in benchmarks/results.")
    return [found[seed] for seed in sorted(found)]


def numbers(names: list[str], path: list[str | int], *, runs: dict[str, Result]) -> list[float]:
    """A figure of each of some results; those where it is null are left out.

    Args:
        names: of the results.
        path: the keys, and places in lists, that lead to it.
        runs: all results.
    """
    found = [reduce(lambda inside, key: inside[key], path, cast(Any, runs[name])) for name in names]
    return [figure for figure in found if figure is not None]


def sources(names: list[str], *, runs: dict[str, Result]) -> str:
    """Where some results are from: files, date, machine, commit and command; each once for those that differ by the seed."""
    origins: dict[str, list[str]] = {}
    commands: dict[str, list[str]] = {}
    for name in names:
        result = runs[name]
        machine, commit = machines(runs).get(result.get("hardware", ""), UNKNOWN), result.get("commit")
        origin = f"{result.get('date') or UNKNOWN}, {machine}, {f'`{commit}`' if commit else UNKNOWN}"
        origins.setdefault(origin, []).append(f"`{name}`")
        command = result.get("command")
        form = re.sub(r"(?<=--seed )\d+", "SEEDS", f"`{command}`") if command else UNKNOWN
        commands.setdefault(form, []).extend(re.findall(r"(?<=--seed )\d+", command or ""))
    told = "; ".join(f"{', '.join(files)}, {origin}" for origin, files in origins.items())
    return f"Runs: {told}. Commands: {', '.join(form.replace('SEEDS', ', '.join(some)) for form, some in commands.items())}."


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
    """Mean ± standard deviation; of one number itself, of none a dash."""
    if not numbers:
        return "-"
    deviation = f" ± {statistics.stdev(numbers):.{digits}f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.{digits}f}{deviation}"


def within(numbers: list[float], most: float) -> str:
    """How many of some numbers are at most `most`."""
    return f"{sum(number <= most for number in numbers)} of {len(numbers)}"


def reached(aim: bool) -> str:
    """How an aim is called that was reached, or missed."""
    return "reached" if aim else "**missed**"


def verdict(figure: float, *, least: float) -> str:
    """Whether a figure, as precise as it is stated, is at least the aim."""
    return f"{least:g}: {reached(figure >= least)}"


def column(table: list[list[str]], row: str, name: str) -> str:
    """A cell of a table of text, by the names of its row and its column."""
    (found,) = (cells for cells in table[1:] if cells[0] == row)
    return found[table[0].index(name)]


def case(result: Result, slots: int, batch: int, key_dim: int, neighbors: int) -> dict[str, float]:
    """The measurements of one size."""
    size = {"slots": slots, "batch": batch, "key_dim": key_dim, "neighbors": neighbors}
    (found,) = (case for case in result["figures"]["cases"] if size.items() <= case.items())
    return found


def page(runs: dict[str, Result]) -> str:
    """The text of the page.

    Args:
        runs: all results, by name.

    Raises:
        jinja2.UndefinedError: the template names a result or a figure that is not there.
        KeyError: a seed lacks a figure.
        ValueError: a task has no result.
    """
    plain = (ratios, span, spread, within, reached, verdict, column, case, statistics.mean)
    helpers: dict[str, Any] = {function.__name__: function for function in plain}
    helpers |= {function.__name__: partial(function, runs=runs) for function in (seeds, numbers, sources)}
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(runs=runs, machines=machines(runs), **helpers)


if __name__ == "__main__":
    PAGE.write_text(page(results()), encoding="utf-8")
