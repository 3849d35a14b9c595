"""Writing some rows of a batch in a fixed shape, as a compiler needs it: a row that does not write repeats the first that
does."""

from __future__ import annotations

from typing import NamedTuple

from ..primitives import Primitives
from ..state import Array


class Turns(NamedTuple):
    """Which row is written where.

    Attributes:
        rows: [B] i32, the row whose content is written.
        slots: [B] i32, where to; 0 if nobody writes.
        nobody: [] bool, whether no row writes: slot 0 is then given what it holds.
    """

    rows: Array
    slots: Array
    nobody: Array


def turns_of(p: Primitives, writes: Array, slot: Array) -> Turns:
    """Of the rows [B] that write, each to its slot [B]."""
    xp = p.xp
    first = p.cast(xp.argmax(p.cast(writes, "int32"), axis=0), "int32")
    rows, nobody = xp.where(writes, p.arange(writes.shape[0], slot), first), ~xp.any(writes)
    return Turns(rows, xp.where(nobody, 0, slot[rows]), nobody)


def content_of(p: Primitives, array: Array, turns: Turns, content: Array) -> Array:
    """What `array` holds at the slots of all turns afterwards [B]: the content [B] of the rows that write."""
    return p.xp.where(turns.nobody, array[:1], content[turns.rows])
