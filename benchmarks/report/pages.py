"""What all reports share: tables as text and as HTML, plots inside the page, and the page itself, which needs no network."""

from __future__ import annotations

import html
import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raremem.command.lines import as_line
from raremem.errors import MissingPackageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Table = list[list[str]]
"""Rows of cells; the first row is the header."""


@dataclass(frozen=True)
class Outcome:
    """What a task found.

    Attributes:
        headline: its few main figures, each a number, for the report's first page.
        figures: everything that was measured, for the result file.
        tables: by title, for the page and the terminal.
        plots: draws them.
        facts: what was run, beyond what every run says.
        notes: sentences on how to read the tables, in HTML.
    """

    headline: dict[str, float]
    figures: dict[str, Any]
    tables: dict[str, Table]
    plots: Callable[[], list[Figure]]
    facts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .25rem .7rem; text-align: right }
td:first-child, th:first-child { text-align: left } tr + tr { border-top: 1px solid #ddd }
.row { display: flex; gap: .8rem; align-items: start; padding: .6rem 0; border-top: 1px solid #ddd; font-size: .8rem }
.row img { width: 56px; image-rendering: pixelated; border: 1px solid #bbb; display: block }
.query img { border: 2px solid #222 } .right { color: #05703b } .wrong { color: #b3261e }
svg { max-width: 100%; height: auto }
"""


def group_names(groups: tuple[tuple[int, int | None], ...]) -> list[str]:
    """Names for groups of counts, each from its first to its last, or without a last."""
    return [f"{low}" if low == high else f"{low}-{high}" if high else f"over {low - 1}" for low, high in groups]


def need_plots() -> None:
    """Check, before the work, that plots can be drawn after it.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError("the report's plots need matplotlib: pip install 'raremem[bench]'")


def as_text(table: Table) -> str:
    """The table in columns, numbers to the right."""
    table = [[as_line(cell) for cell in row] for row in table]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )


def html_table(table: Table) -> str:
    """The table in HTML."""
    head, *body = table
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f"<table><tr>{cells}</tr>{rows}</table>"


def fact_list(facts: dict[str, str]) -> str:
    """A list of what was run, in HTML."""
    return f"<ul>{''.join(f'<li>{html.escape(name)}: {html.escape(fact)}</li>' for name, fact in facts.items())}</ul>"


def inline_svg(figure: Figure) -> str:
    """A plot as SVG, to stand inside a page."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def page(title: str, body: str) -> str:
    """A whole HTML page."""
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>{STYLE}</style>
<h1>{html.escape(title)}</h1>
{body}
</html>
"""
