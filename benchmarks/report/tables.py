"""Tables: their cells, and as text for a terminal."""

from __future__ import annotations

from raremem.benchmarks.task import Table
from raremem.command.lines import as_line


def group_names(groups: tuple[tuple[int, int | None], ...]) -> list[str]:
    """Names for groups of counts, each from its first to its last, or without a last."""
    return [f"{low}" if low == high else f"{low}-{high}" if high else f"over {low - 1}" for low, high in groups]


def as_text(table: Table) -> str:
    """The table in columns, numbers to the right."""
    table = [[as_line(cell) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]

    def line(row: list[str]) -> str:
        first, *others = zip(row, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])

    return "\n".join(map(line, table))
