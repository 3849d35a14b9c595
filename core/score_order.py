"""The order of scores: the highest first, 0.0 and -0.0 alike, and of equal scores the lowest slot.

A table that sorts whole numbers makes one of each score and slot by these functions, so that no two are equal and no sort need
be stable. They take arrays of any framework with i64 whose `<<`, `>>`, `^` and `&` work on whole numbers.
"""

from __future__ import annotations

from .config import MAX_INT32
from .state import Array

NOTHING = -(2.0**127)
"""The score of a slot that is not there: below that of any key, and no infinity, which some programs trap. It is so large that
a similarity added to it is lost in rounding."""


def ordered(bits: Array) -> Array:
    """Whole numbers in the order of the f32 with these bits (i32): bits of magnitude are flipped below zero, and -0.0 is
    0.0."""
    sign = bits >> 31
    return (bits ^ (sign & MAX_INT32)) - sign


def ordinal(scores: Array, slots: Array) -> Array:
    """One i64 for each score and slot: the largest comes first.

    Args:
        scores: whole numbers, i64: `ordered` bits of f32, or priorities in the range of i32.
        slots: i32 or i64 in the range of i32, -1 or above; beside a score of -2**31, 0 or above.
    """
    return (scores << 32) + (slots ^ MAX_INT32)
