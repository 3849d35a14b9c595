"""The order of scores: the highest first, 0.0 and -0.0 alike, and of equal scores the lowest slot.

These functions combine a score and its slot to one whole number. No two are equal, so no sort need be stable. They take arrays
of any framework that has i64, and `<<`, `>>`, `^` and `&` of whole numbers.
"""

from __future__ import annotations

from .config import MAX_INT32
from .state import Array

NOTHING = -(2.0**127)
"""The score of an empty place: below that of any key. It is finite, since some programs trap on infinities, and so large that
adding a similarity does not change it."""


def ordered(bits: Array) -> Array:
    """Whole numbers (i32) in the order of the f32 with these bits. Below zero the bits of the magnitude are flipped, and -0.0
    becomes 0.0."""
    sign = bits >> 31
    return (bits ^ (sign & MAX_INT32)) - sign


def ordinal(scores: Array, slots: Array) -> Array:
    """One i64 for each score and slot: the largest comes first.

    Args:
        scores: whole numbers, i64: `ordered` bits of f32, or priorities in the range of i32.
        slots: i32 or i64 in the range of i32, -1 or above; beside a score of -2**31, 0 or above.
    """
    return (scores << 32) + (slots ^ MAX_INT32)
