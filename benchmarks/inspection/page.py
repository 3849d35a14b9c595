"""The page: every figure in a table or as bars, which the template draws without an image."""

from __future__ import annotations

import dataclasses
from typing import Any

import raremem
from raremem.benchmarks.inspection import words
from raremem.benchmarks.inspection.content import Content
from raremem.benchmarks.inspection.figures import SHOWN, Figures
from raremem.benchmarks.report.pages import render
from raremem.benchmarks.task import Table

Bars = list[tuple[str, str, float]]
"""Names, counts as text, and lengths in % of the longest."""


def as_html(name: str, content: Content, found: Figures | None) -> str:
    """The page.

    Args:
        name: of the file.
        content: what it holds.
        found: the figures of it; None: nothing is stored.
    """
    fields = dataclasses.asdict(content.config)
    shown: dict[str, Any] = {} if found is None else _sections(content, found)
    return render(
        "inspect.html",
        title=f"raremem: {words.cut(name)}",
        tiles=_tiles(content, found),
        facts={
            "file": f"{words.cut(name)}: {content.kind}",
            **content.facts,
            "read by": f"raremem {raremem.__version__}",
        },
        config=[["field of the config", "value"], *([field, str(value)] for field, value in fields.items())],
        shown=shown,
    )


def _tiles(content: Content, found: Figures | None) -> list[tuple[str, str]]:
    """The main figures, each with what it is."""
    filled, slots = int(content.portable["filled"].sum()), content.config.slots
    tiles = [(f"{filled:,}", f"of {words.plural(slots, 'slot')} filled, {100 * filled / slots:.1f} %")]
    if found is not None:
        tiles.append((f"{len(found.values.values):,}", "value" if len(found.values.values) == 1 else "values"))
    tiles.append((f"{content.portable['step']:,}", "step: updates that wrote something"))
    if found is not None and found.accuracy is not None:
        tiles.append((words.share(found.accuracy), "of slots have a nearest slot of their own value"))
    return tiles


def _sections(content: Content, found: Figures) -> dict[str, Any]:
    """What the template shows of a memory that holds something."""
    return {
        "spread": words.spread_of_values(found),
        "values": _values(content, found),
        "ages": _bars(words.ages(found)),
        "hits": _bars(words.hits(found)),
        "hit_slots": _slots(content, found.hit_slots.tolist()),
        "rule": words.who_goes(content),
        "next": found.next and _slots(content, found.next.slots.tolist(), noise=found.next.noise.tolist()),
        "asked": words.asked(found),
        "left_out": None if found.accuracy is None else words.left_out(found.accuracy),
        "pairs": _pairs(content, found),
        "more_pairs": max(0, len(found.pairs) - 2 * SHOWN),
        "nearest_pairs": [
            {"similarity": f"{similarity:.4f}", "sides": [_side(content, slot) for slot in slots]}
            for *slots, similarity in found.nearest_pairs
        ],
        "examples": content.has_examples,
    }


def _values(content: Content, found: Figures) -> dict[str, Bars]:
    """Bars of all values, or, where these are many, of the most and of the least frequent."""
    values, counts = found.values
    rows = [(words.cut(content.label(int(value))), int(count)) for value, count in zip(values[:SHOWN], counts, strict=False)]
    if len(values) <= 2 * SHOWN:
        rest = zip(values[SHOWN:], counts[SHOWN:], strict=True)
        return {"All values": _bars([*rows, *((words.cut(content.label(int(value))), int(count)) for value, count in rest)])}
    last = zip(values[-SHOWN:], counts[-SHOWN:], strict=True)
    least = [(words.cut(content.label(int(value))), int(count)) for value, count in last]
    longest = int(counts[0])
    return {"The most frequent": _bars(rows, longest), "The least frequent": _bars(least, longest)}


def _bars(rows: list[tuple[str, int]], longest: int | None = None) -> Bars:
    most = longest or max(count for _, count in rows)
    return [(name, f"{count:,}", 100 * count / most) for name, count in rows]


def _slots(content: Content, slots: list[int], **columns: list[int]) -> Table:
    """A row for each slot, with columns of its own after its age."""
    portable = content.portable
    header = ["slot", "value", "hits", "age", *columns, *(["example"] if content.has_examples else [])]
    rows = [
        [
            f"{slot:,}",
            words.cut(content.label(int(portable["values"][slot]))),
            f"{portable['hits'][slot]:,}",
            f"{portable['ages'][slot]:,}",
            *(f"{column[place]:+}" for column in columns.values()),
            *([words.cut(content.example(slot))] if content.has_examples else []),
        ]
        for place, slot in enumerate(slots)
    ]
    return [header, *rows]


def _pairs(content: Content, found: Figures) -> Table:
    rows = [
        [
            *(words.cut(content.label(value)) for value in pair.values),
            f"{pair.confused:,}",
            f"{pair.near:,}",
            f"{pair.similarity:.3f}",
        ]
        for pair in found.pairs[: 2 * SHOWN]
    ]
    return [["value", "and", "confused", "near", "similarity"], *rows]


def _side(content: Content, slot: int) -> dict[str, str]:
    """One slot of a pair."""
    portable = content.portable
    return {
        "label": words.cut(content.label(int(portable["values"][slot]))),
        "slot": f"slot {slot:,}, age {portable['ages'][slot]:,}, {words.plural(int(portable['hits'][slot]), 'hit')}",
        "example": words.cut(content.example(slot)),
    }
