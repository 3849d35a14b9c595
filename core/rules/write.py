"""Rules 4, 6 and 8: a hit moves the key that it hit, a miss takes a slot of its own, and time passes.

Where each row is written is worked out in a fixed shape: a row that does not write repeats one that does (`Turns`).
"""

from __future__ import annotations

from typing import NamedTuple

from ..config import MAX_INT32, MemoryConfig
from ..primitives import Primitives
from ..state import MAX_HITS, NO_SLOT, Array, Lookup, MemoryState, UpdateReport
from .eviction import free_slots
from .turns import content_of, turns_of
from .work import CUT, Work

SMALLEST_SUM = 2.0**-10
"""Rule 4: if key and queries cancel to a norm below this, the key stays. Our choice: what is left of such a sum is mostly
rounding error, and zero has no direction at all."""


def update(
    p: Primitives,
    config: MemoryConfig,
    state: MemoryState,
    found: Lookup,
    targets: Array,
    mask: Array,
    work: Work = CUT,
) -> tuple[MemoryState, UpdateReport]:
    """Rules 4 to 8, on a lookup of the same state. The given state is consumed: its arrays may be written to.

    Traced code cannot tell a lookup that came too late; there a row is a hit only if its slot still holds its value (rule 12).
    """
    xp = p.xp
    in_range = (targets >= 0) & (targets <= MAX_INT32)
    targets = p.cast(xp.where(in_range, targets, 0), "int32")
    accepted = found.accepted & in_range & mask
    rejected = _count(p, (found.rejected | (found.accepted & ~in_range)) & mask)
    slot = found.slots[:, 0]
    still = state.values[xp.where(slot != NO_SLOT, slot, 0)] == targets
    hit = accepted & (slot != NO_SLOT) & (found.values[:, 0] == targets) & still
    batch = _Batch(found.queries, targets, slot, hit, accepted & ~hit)
    rows = xp.where(accepted)[0] if p.eager else None
    if rows is None or len(rows) == len(accepted):
        return _store(p, config, state, batch, rejected, work)
    return _store_some(p, config, state, batch, rejected, rows, work)


class _Batch(NamedTuple):
    """Rows to write: unit queries [B, key_dim], targets, the nearest slot of each, and whether it is hit, or missed [B]."""

    queries: Array
    targets: Array
    slot: Array
    hit: Array
    miss: Array


def _store(
    p: Primitives, config: MemoryConfig, state: MemoryState, batch: _Batch, rejected: Array, work: Work
) -> tuple[MemoryState, UpdateReport]:
    """Rules 4 to 8. A row that is neither hit nor missed leaves no trace."""
    xp = p.xp
    queries, targets, slot, hit, miss = batch
    merged, hits, leads = _merge_hits(p, state, queries, slot, hit, work)
    free, usable, filled = free_slots(p, config, state, slot, hit, work)

    rank = p.cast(xp.cumsum(p.cast(miss, "int32"), axis=0), "int32") - 1
    rank_in_reach = xp.where(miss & (rank < free.shape[0]), rank, 0)
    placed = miss & (rank < free.shape[0]) & usable[rank_in_reach]
    slot = xp.where(hit, slot, xp.where(placed, free[rank_in_reach], NO_SLOT))

    keys = xp.where(hit[:, None], merged, queries)
    state = _write(p, state, leads | placed, slot, keys, targets, xp.where(hit, hits, 0))
    report = UpdateReport(
        slots=slot,
        hit=hit,
        written=hit | placed,
        rejected=rejected,
        dropped=_count(p, miss & ~placed),
        evicted=_count(p, placed & filled[rank_in_reach]),
    )
    return state, report


def _store_some(
    p: Primitives, config: MemoryConfig, state: MemoryState, batch: _Batch, rejected: Array, rows: Array, work: Work
) -> tuple[MemoryState, UpdateReport]:
    """As `_store`, for the rows [n] that are hit or missed: what is masked costs nothing."""
    slots, written = p.xp.full_like(batch.slot, NO_SLOT), p.xp.full_like(batch.hit, False)
    if not len(rows):
        none = _count(p, written)
        return state, UpdateReport(slots, batch.hit, written, rejected, none, none)
    state, report = _store(p, config, state, _Batch(*(column[rows] for column in batch)), rejected, work)
    slots[rows], written[rows] = report.slots, report.written
    return state, report._replace(slots=slots, hit=batch.hit, written=written)


def _merge_hits(
    p: Primitives, state: MemoryState, unit: Array, slot: Array, hit: Array, work: Work
) -> tuple[Array, Array, Array]:
    """Rule 4: the new key [B, key_dim] and hits [B] of the slot that each row hit, and which row [B] writes for its slot.

    Rows are summed by a product with the [B, B] matrix of "hit the same slot": a fixed order of summation, where a
    scatter-add on a GPU has none.
    """
    xp, batch = p.xp, hit.shape[0]
    own, ids = xp.where(hit, slot, 0), p.arange(batch, slot)
    whose = xp.where(hit, slot, -1 - ids)
    if work.rows is None or not isinstance(batch, int) or batch <= work.rows:
        sums, counts, first = _together(p, unit, whose, whose)
    else:
        parts = [_together(p, unit, whose[start : start + work.rows], whose) for start in range(0, batch, work.rows)]
        sums, counts, first = (xp.concatenate(part) for part in zip(*parts, strict=True))
    old = state.keys[own]
    total = old + sums
    norm = xp.sqrt(xp.sum(total * total, axis=1))
    sound = norm >= SMALLEST_SUM
    merged = xp.where(sound[:, None], total / xp.where(sound, norm, 1.0)[:, None], old)
    hits = state.hits[own] + counts
    return merged, xp.where(hits < MAX_HITS, hits, MAX_HITS), hit & (first == ids)


def _together(p: Primitives, unit: Array, some: Array, whose: Array) -> tuple[Array, Array, Array]:
    """Of some rows [n]: the sum [n, key_dim] of all rows that are of the same slot, how many, and the first of these."""
    xp = p.xp
    together = p.cast(some[:, None] == whose[None, :], "float32")
    counts = p.cast(xp.sum(together, axis=1), "int32")
    return p.inner(together, unit.T), counts, p.cast(xp.argmax(together, axis=1), "int32")


def _write(
    p: Primitives, state: MemoryState, writes: Array, slot: Array, keys: Array, values: Array, hits: Array
) -> MemoryState:
    """Rules 4, 5 and 6: the rows that write, each to its slot, and the step if anything was written."""
    turns = turns_of(p, writes, slot)
    step = state.step + p.cast(~turns.nobody, "int32")
    content = MemoryState(
        keys=content_of(p, state.keys, turns, keys),
        values=content_of(p, state.values, turns, values),
        last_used=content_of(p, state.last_used, turns, p.xp.zeros_like(slot) + step),
        hits=content_of(p, state.hits, turns, hits),
        step=step,
    )
    return p.write(state, turns.slots, content)


def _count(p: Primitives, rows: Array) -> Array:
    return p.cast(p.xp.sum(p.cast(rows, "int32"), axis=0), "int32")
