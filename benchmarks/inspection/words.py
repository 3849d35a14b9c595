"""What figures say, in words: for the page and for the terminal alike."""

from __future__ import annotations

import numpy as np

from raremem.benchmarks.inspection.confusion import SEED
from raremem.benchmarks.inspection.content import Content
from raremem.benchmarks.inspection.figures import Accuracy, Figures
from raremem.benchmarks.inspection.measures import Bin
from raremem.command.lines import as_line
from raremem.config import MAX_INT32
from raremem.state import MAX_HITS

LONGEST = 160
"""Characters of a text that are shown."""


def cut(text: str, most: int = LONGEST) -> str:
    """A text in one line, not longer than that."""
    line = as_line(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def plural(count: int, what: str) -> str:
    """So many of a thing, whose plural has an s."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def range_of(bin_: Bin, most: int) -> str:
    """The numbers of a bin; one that holds `most`, where a count stops, is open."""
    if bin_.last >= most:
        return f"{bin_.first:,} or more"
    return f"{bin_.first:,}" if bin_.first == bin_.last else f"{bin_.first:,} to {bin_.last:,}"


def bins(histogram: list[Bin], most: int) -> list[tuple[str, int]]:
    """The name and the count of each bin."""
    return [(range_of(each, most), each.slots) for each in histogram]


def ages(found: Figures) -> list[tuple[str, int]]:
    """The histogram of ages."""
    return bins(found.ages, MAX_INT32)


def hits(found: Figures) -> list[tuple[str, int]]:
    """The histogram of hits."""
    return bins(found.hits, MAX_HITS)


def fullness(content: Content) -> str:
    """How many slots are filled."""
    filled, slots = int(content.portable["filled"].sum()), content.config.slots
    return f"{filled:,} of {plural(slots, 'slot')} filled ({100 * filled / slots:.1f} %)"


def spread_of_values(found: Figures) -> str:
    """How many values there are, and how many slots they have."""
    slots = found.values.slots
    least, most = int(slots.min()), int(slots.max())
    span = f"{most:,} each" if least == most else f"{least:,} to {most:,} (median {np.median(slots):g})"
    single = {0: "none has", 1: "1 has"}.get(found.values.single, f"{found.values.single:,} have")
    return f"{plural(len(slots), 'value')}; slots of a value: {span}; {single} one slot only"


def rule(content: Content) -> str:
    """What the config says of who goes first."""
    config = content.config
    whole = f"a whole number in [-{config.age_noise}, {config.age_noise}], drawn anew for each slot at every step"
    noise = f"noise ({whole})" if config.age_noise else "no noise"
    if config.evict == "least_hit":
        return f"the slots hit least, of equals that of the largest age plus {noise}"
    return f"the slot of the largest age plus {noise}"


def who_goes(content: Content) -> str:
    """When the slots that would go next do go."""
    if content.grows:
        return "Nothing: the classifier takes as many examples as come (slots=None)."
    empty = int((~content.portable["filled"]).sum())
    first = f"First {plural(empty, 'empty slot')} {'is' if empty == 1 else 'are'} taken, then " if empty else ""
    text = f"{first}{rule(content)}, as one update of new rows would take them (evict={content.config.evict})."
    return text[0].upper() + text[1:]


def asked(found: Figures) -> str:
    """Which slots were asked for their nearest."""
    nearest = found.nearest
    if len(nearest.asked) == nearest.filled:
        return f"all {plural(nearest.filled, 'filled slot')}"
    return f"{len(nearest.asked):,} of {nearest.filled:,} filled slots, drawn with seed {SEED}, each asked of all others"


def share(accuracy: Accuracy) -> str:
    """The share of slots whose nearest has their value, in %."""
    error = f" ± {100 * accuracy.error:.1f}" if accuracy.is_sample else ""
    return f"{100 * accuracy.share:.1f}{error} %"


def left_out(accuracy: Accuracy) -> str:
    """What leaving one out says."""
    text = f"{share(accuracy)} of the slots asked have a nearest slot of their own value"
    if accuracy.repeated == accuracy.asked:
        return f"{text}."
    if accuracy.repeated:
        text = f"{text}, and {100 * accuracy.share_of_repeated:.1f} % of those whose value has another slot"
    return f"{text}. {accuracy.asked - accuracy.repeated:,} cannot: their value has one slot only."
