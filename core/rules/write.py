"""Rules 4, 6, 8 and 13: a hit moves the key of its slot, a miss takes a slot of its own, and the step is counted.

With `write="keep"` a hit takes a slot of its own too. Shapes are fixed: a row that does not write repeats one that does
(`Scatter`).
"""

from __future__ import annotations

from typing import NamedTuple

from ..config import MAX_INT32, MemoryConfig
from ..primitives import Primitives
from ..state import MAX_HITS, NO_SLOT, Array, Lookup, MemoryState, UpdateReport
from .eviction import free_slots
from .plan import USUAL, UpdatePlan
from .scatter import content_of, scatter_of

SMALLEST_SUM = 2.0**-10
"""Rule 4: if key and queries cancel to a norm below this, the key stays. Our choice: what is left of such a sum is mostly
rounding error, and zero has no direction at all."""


def update(
    p: Primitives,
    config: MemoryConfig,
    state: MemoryState,
    lookup: Lookup,
    targets: Array,
    mask: Array,
    plan: UpdatePlan = USUAL,
) -> tuple[MemoryState, UpdateReport]:
    """Rules 4 to 8 and 13, on a lookup of the same state. The given state is consumed: its arrays may be written to.

    Traced code cannot tell a lookup that came too late; there a row is a hit only if its slot still holds its value (rule 12).
    """
    xp = p.xp
    in_range = (targets >= 0) & (targets <= MAX_INT32)
    targets = p.cast(xp.where(in_range, targets, 0), "int32")
    accepted = lookup.accepted & in_range & mask
    rejected = _count(p, (lookup.rejected | (lookup.accepted & ~in_range)) & mask)
    slot = lookup.slots[:, 0]
    still = state.values[xp.where(slot != NO_SLOT, slot, 0)] == targets
    hit = accepted & (slot != NO_SLOT) & (lookup.values[:, 0] == targets) & still
    batch = _Batch(lookup.queries, targets, slot, hit, accepted if config.write == "keep" else accepted & ~hit)
    rows = xp.where(accepted)[0] if p.eager else None
    if rows is None or len(rows) == len(accepted):
        return _store(p, config, state, batch, rejected, plan)
    return _store_some(p, config, state, batch, rejected, rows, plan)


class _Batch(NamedTuple):
    """Rows to write: unit queries [B, key_dim], targets, the nearest slot of each, whether the row hits it, and whether it asks
    for a slot of its own [B]."""

    queries: Array
    targets: Array
    slot: Array
    hit: Array
    asks: Array


def _store(
    p: Primitives, config: MemoryConfig, state: MemoryState, batch: _Batch, rejected: Array, plan: UpdatePlan
) -> tuple[MemoryState, UpdateReport]:
    """Rules 4 to 8 and 13. A row that neither hits nor asks for a slot leaves no trace."""
    xp = p.xp
    asks, kept = batch.asks, config.write == "keep"
    free, usable, filled = free_slots(p, config, state, batch.slot, batch.hit, plan)

    place = p.cast(xp.cumsum(p.cast(asks, "int32"), axis=0), "int32") - 1
    place_in_reach = xp.where(asks & (place < free.shape[0]), place, 0)
    placed = asks & (place < free.shape[0]) & usable[place_in_reach]
    taken = xp.where(placed, free[place_in_reach], NO_SLOT)

    state = (_keep if kept else _merge)(p, state, batch, placed, taken, plan)
    report = UpdateReport(
        slots=taken if kept else xp.where(batch.hit, batch.slot, taken),
        hit=batch.hit,
        written=placed if kept else batch.hit | placed,
        rejected=rejected,
        dropped=_count(p, asks & ~placed),
        evicted=_count(p, placed & filled[place_in_reach]),
    )
    return state, report


def _merge(p: Primitives, state: MemoryState, batch: _Batch, placed: Array, taken: Array, plan: UpdatePlan) -> MemoryState:
    """Rule 4: a hit moves the key of its slot. A miss that is `placed` is written to the slot that it has `taken` [B]."""
    xp = p.xp
    queries, targets, slot, hit, _ = batch
    hits, leads, sums = _of_slots_hit(p, state, batch, plan)
    keys = xp.where(hit[:, None], _moved(p, state.keys[xp.where(hit, slot, 0)], sums), queries)
    return _write(p, state, leads | placed, xp.where(hit, slot, taken), keys, targets, xp.where(hit, hits, 0))


def _keep(p: Primitives, state: MemoryState, batch: _Batch, placed: Array, taken: Array, plan: UpdatePlan) -> MemoryState:
    """Rule 13: a hit counts for its slot and leaves the key. A `placed` row is written to the slot it has `taken` [B]."""
    xp = p.xp
    queries, targets, slot, hit, _ = batch
    hits, leads, _ = _of_slots_hit(p, state, batch._replace(queries=None), plan)
    keys = xp.concatenate([state.keys[xp.where(hit, slot, 0)], queries])
    twice, hits = xp.concatenate([targets, targets]), xp.concatenate([hits, xp.zeros_like(hits)])
    return _write(p, state, xp.concatenate([leads, placed]), xp.concatenate([slot, taken]), keys, twice, hits)


def _store_some(
    p: Primitives, config: MemoryConfig, state: MemoryState, batch: _Batch, rejected: Array, rows: Array, plan: UpdatePlan
) -> tuple[MemoryState, UpdateReport]:
    """`_store` for the accepted rows [n] alone, so that masked rows cost nothing."""
    slots, written = p.xp.full_like(batch.slot, NO_SLOT), p.xp.full_like(batch.hit, False)
    if not len(rows):
        none = _count(p, written)
        return state, UpdateReport(slots, batch.hit, written, rejected, none, none)
    state, report = _store(p, config, state, _Batch(*(column[rows] for column in batch)), rejected, plan)
    slots[rows], written[rows] = report.slots, report.written
    return state, report._replace(slots=slots, hit=batch.hit, written=written)


def _of_slots_hit(p: Primitives, state: MemoryState, batch: _Batch, plan: UpdatePlan) -> tuple[Array, Array, Array | None]:
    """Rule 4, for each row that hits: its slot's count of hits [B], whether it is the row that writes for the slot [B], and the
    sum [B, key_dim] of the rows that hit the slot; None if the batch has no queries."""
    xp, slot, hit, rows = p.xp, batch.slot, batch.hit, batch.hit.shape[0]
    ids = p.arange(rows, slot)
    whose = xp.where(hit, slot, -1 - ids)
    if plan.rows is None or not isinstance(rows, int) or rows <= plan.rows:
        counts, first, *sums = _together(p, batch.queries, whose, whose)
    else:
        starts = range(0, rows, plan.rows)
        parts = [_together(p, batch.queries, whose[start : start + plan.rows], whose) for start in starts]
        counts, first, *sums = (xp.concatenate(part) for part in zip(*parts, strict=True))
    own = xp.where(hit, slot, 0)
    hits = state.hits[own] + counts
    return xp.where(hits < MAX_HITS, hits, MAX_HITS), hit & (first == ids), sums[0] if sums else None


def _together(p: Primitives, unit: Array | None, some: Array, whose: Array) -> tuple[Array, ...]:
    """For some rows [n]: how many rows hit the same slot, the first of them, and, if `unit` is given, their sum [n, key_dim].

    The sum is a product with the [n, B] matrix of which rows hit the same slot. Its order of summation is fixed; that of a
    scatter-add on a GPU is not.
    """
    xp = p.xp
    together = p.cast(some[:, None] == whose[None, :], "float32")
    counts = p.cast(xp.sum(together, axis=1), "int32")
    first = p.cast(xp.argmax(together, axis=1), "int32")
    return (counts, first) if unit is None else (counts, first, p.inner(together, unit.T))


def _moved(p: Primitives, old: Array, sums: Array) -> Array:
    """Rule 4: the new keys [B, key_dim], from the old keys and the sums of the rows that hit them."""
    xp = p.xp
    total = old + sums
    norm = xp.sqrt(xp.sum(total * total, axis=1))
    sound = norm >= SMALLEST_SUM
    return xp.where(sound[:, None], total / xp.where(sound, norm, 1.0)[:, None], old)


def _write(
    p: Primitives, state: MemoryState, writes: Array, slot: Array, keys: Array, values: Array, hits: Array
) -> MemoryState:
    """Rules 4, 5 and 6: write the rows for which `writes` is True, each to its slot, and count the step if any is written."""
    scatter = scatter_of(p, writes, slot)
    step = state.step + p.cast(~scatter.nobody, "int32")
    content = MemoryState(
        keys=content_of(p, state.keys, scatter, keys),
        values=content_of(p, state.values, scatter, values),
        last_used=content_of(p, state.last_used, scatter, p.xp.zeros_like(slot) + step),
        hits=content_of(p, state.hits, scatter, hits),
        step=step,
    )
    return p.write(state, scatter.slots, content)


def _count(p: Primitives, rows: Array) -> Array:
    return p.cast(p.xp.sum(rows, axis=0), "int32")
