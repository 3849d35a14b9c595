"""The summary for a terminal."""

from __future__ import annotations

import math
import textwrap

from raremem.benchmarks.inspection import words
from raremem.benchmarks.inspection.content import Content
from raremem.benchmarks.inspection.figures import Figures
from raremem.benchmarks.inspection.measures import Next
from raremem.benchmarks.report.tables import as_text
from raremem.benchmarks.task import Table
from raremem.command.lines import as_line

ROWS = 5
"""Of a table."""
WIDTH = 40
"""Characters of a label or of an example."""
LINE = 100
"""Characters of a line of prose."""
BAR = 30
"""Characters of the longest bar."""


def summary(name: str, content: Content, found: Figures | None) -> str:
    """What is in a memory, as lines.

    Args:
        name: of the file.
        content: what it holds.
        found: the figures of it; None: nothing is stored.
    """
    config = content.config
    about = [
        f"{as_line(name)}: {content.kind}",
        f"{words.fullness(content)}, keys of {words.plural(config.key_dim, 'number')}, step {content.portable['step']:,}",
        f"write={config.write}, evict={config.evict}, age_noise={config.age_noise}, neighbors={config.neighbors:,}",
    ]
    about += [f"{name}: {fact}" for name, fact in content.facts.items()]
    if found is None:
        return "\n".join([*about, "nothing is stored yet"])
    values = [_filled(words.spread_of_values(found)), as_text(_values(content, found))]
    ages, hits = (["ages, in updates", *_bars(words.ages(found))], ["hits", *_bars(words.hits(found))])
    go = ["next to go", _filled(words.who_goes(content)), *([as_text(_next(content, found.next))] if found.next else [])]
    return "\n\n".join("\n".join(part) for part in (about, values, ages, hits, go, _confusion(content, found)))


def _filled(text: str) -> str:
    return textwrap.fill(text, LINE, break_long_words=False, break_on_hyphens=False)


def _values(content: Content, found: Figures) -> Table:
    values, counts = found.values
    places = range(len(values)) if len(values) <= 2 * ROWS else [*range(ROWS), None, *range(len(values) - ROWS, len(values))]
    cells = [["..."] * 2 if place is None else [_label(content, int(values[place])), f"{counts[place]:,}"] for place in places]
    return [["value", "slots"], *cells]


def _bars(histogram: list[tuple[str, int]]) -> list[str]:
    most = max(count for _, count in histogram)
    name, digits = max(len(bin_) for bin_, _ in histogram), len(f"{most:,}")
    return [f"{bin_:{name}}  {count:{digits},}  {'#' * math.ceil(BAR * count / most)}".rstrip() for bin_, count in histogram]


def _next(content: Content, to_go: Next) -> Table:
    portable = content.portable
    table = [["slot", "value", "hits", "age", "noise"]]
    for slot, noise in zip(to_go.slots[:ROWS].tolist(), to_go.noise[:ROWS].tolist(), strict=True):
        hits, age = (f"{portable[name][slot]:,}" for name in ("hits", "ages"))
        table.append([f"{slot:,}", _label(content, int(portable["values"][slot])), hits, age, f"{noise:+}"])
    return table


def _confusion(content: Content, found: Figures) -> list[str]:
    if found.accuracy is None:
        return ["one slot is filled: it has no other to be confused with"]
    lines = [f"confused, of {words.asked(found)}", _filled(words.left_out(found.accuracy))]
    if not found.pairs:
        return [*lines, "there is one value: it has no other to be confused with"]
    table = [["value", "and", "confused", "near", "similarity"]]
    for pair in found.pairs[:ROWS]:
        labels = [_label(content, value) for value in pair.values]
        table.append([*labels, f"{pair.confused:,}", f"{pair.near:,}", f"{pair.similarity:.3f}"])
    return [*lines, as_text(table)]


def _label(content: Content, value: int) -> str:
    return words.cut(content.label(value), WIDTH)
