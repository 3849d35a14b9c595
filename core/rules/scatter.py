"""Writing some rows of a batch to slots, in a fixed shape, as compilers need it.

All rows of the batch are written. A row that has nothing to write repeats the first row that has.
"""

from __future__ import annotations

from typing import NamedTuple

from ..primitives import Primitives
from ..state import Array


class Scatter(NamedTuple):
    """Which row is written to which slot.

    Attributes:
        rows: [B] i32, the row whose content is written.
        slots: [B] i32, where to; 0 if nobody writes.
        nobody: [] bool, whether no row writes: slot 0 is then given what it holds.
    """

    rows: Array
    slots: Array
    nobody: Array


def scatter_of(p: Primitives, writes: Array, slot: Array) -> Scatter:
    """The scatter of the rows for which `writes` [B] is True, each to its own `slot` [B]."""
    xp = p.xp
    first = p.cast(xp.argmax(p.cast(writes, "int32"), axis=0), "int32")
    rows, nobody = xp.where(writes, p.arange(writes.shape[0], slot), first), ~xp.any(writes)
    return Scatter(rows, xp.where(nobody, 0, slot[rows]), nobody)


def content_of(p: Primitives, array: Array, scatter: Scatter, content: Array) -> Array:
    """What to write [B, ...] to `array` at `scatter.slots`: rows of `content` [B, ...], or what slot 0 holds already."""
    return p.xp.where(scatter.nobody, array[:1], content[scatter.rows])
