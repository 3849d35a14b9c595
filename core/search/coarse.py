"""A scan of all keys in low precision, and the bound on its error, which proves a short list complete."""

from __future__ import annotations

from typing import NamedTuple

from ..config import F32_ROUNDOFF
from ..primitives import Primitives
from ..state import Array


class CoarseKeys(NamedTuple):
    """The keys that a coarse scan compares with queries.

    Attributes:
        keys: [slots, key_dim], in f32 or in a low dtype.
        dtype: the dtype to compare in; keys of another dtype are cast chunk by chunk.
        roundoff: the unit roundoff of that dtype, or 0.0 for "float32".
    """

    keys: Array
    dtype: str
    roundoff: float


class CoarseScan(NamedTuple):
    """The result of a scan in low precision: for each query, the best similarity in each block of slots.

    A chunk of `size` slots has `size // width` blocks. Its first block has its first slot and every `size // width`-th slot
    after it, the next block starts at the next slot, and so on. The last chunk may be shorter. Slots after the last whole block
    are in no block.

    Attributes:
        maxima: [blocks, B], the largest coarse similarity in each block, or an upper bound on it.
        error: [B] f32, a bound on how far a coarse similarity, before it is rounded, is below the exact one.
        roundoff: the relative error of its rounding.
        width: slots in a block.
        size: slots in a chunk.
    """

    maxima: Array
    error: Array
    roundoff: float
    width: int
    size: int

    def of(self, rows: Array) -> CoarseScan:
        """The scan of some of the queries."""
        return self._replace(maxima=self.maxima[:, rows], error=self.error[rows])

    def most_beyond(self, p: Primitives, maxima: Array) -> Array:
        """An upper bound [B] on the exact similarity of slots outside the best blocks, whose maxima are given [B, n]."""
        lowest = p.xp.amin(maxima, axis=1)
        return lowest + self.roundoff * p.xp.abs(lowest) + self.error

    def slots_of(self, p: Primitives, blocks: Array, slots: int) -> Array:
        """The slots [B, m] of blocks [B, n], and the slots in no block, in a memory of so many slots."""
        whole = slots // self.width * self.width
        start = blocks // (self.size // self.width) * self.size
        stride = p.xp.where(start + self.size <= whole, self.size, whole - start) // self.width
        first = start + blocks % (self.size // self.width)
        ids = (first[:, :, None] + stride[:, :, None] * p.arange(self.width, blocks)).reshape(len(blocks), -1)
        return p.cast(and_rest(p, ids, whole, slots), "int32")


def and_rest(p: Primitives, columns: Array, start: int, stop: int) -> Array:
    """Columns [B, n] with `start`, ..., `stop - 1` appended to every row."""
    if start == stop:
        return columns
    rest = p.arange(stop - start, columns) + start
    return p.xp.concatenate([columns, p.xp.broadcast_to(rest, (len(columns), stop - start))], axis=1)


def error_of(p: Primitives, queries: Array, low: Array, roundoff: float) -> Array:
    """A bound [B] on how far a coarse similarity, before it is rounded, is below the exact one, for keys and queries of norm 1.

    With q~ and k~ rounded, |q.k - q~.k~| <= |q - q~| |k| + |q~| |k - k~|: the first is measured, the second is at most the
    roundoff. Both products are summed in f32, each with an error of at most key_dim units. The factor 1.01
    is for norms that are 1 but for rounding, and for the rounding of the bound itself.
    """
    lost = queries - low
    return 1.01 * (p.xp.sqrt(p.xp.sum(lost * lost, axis=1)) + roundoff + 2 * queries.shape[1] * F32_ROUNDOFF)
