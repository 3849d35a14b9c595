"""Rules 1 and 2, and 8 for a query: rows are normalised or rejected, their neighbors scored, put in order and weighed."""

from __future__ import annotations

from ..config import MAX_FLOAT32, MAX_INT32, MemoryConfig
from ..primitives import Primitives
from ..score_order import NOTHING
from ..search.contract import Searcher
from ..state import NO_SLOT, Array, Lookup, MemoryState
from .loss import loss_of, softmax

SMALLEST_NORM = 2.0**-100
"""Rule 1: a row whose largest magnitude is below this has no direction. Our choice: some compilers flush subnormal
numbers to zero, and above this bound that cannot be seen."""


def query(
    p: Primitives,
    config: MemoryConfig,
    state: MemoryState,
    queries: Array,
    targets: Array | None,
    mask: Array,
    searcher: Searcher,
) -> Lookup:
    """Rules 1, 2, 3 and 8. queries [B, key_dim] of any float, targets [B] of any int or None, mask [B] bool."""
    xp = p.xp
    unit, targets, sound, accepted = normalize(p, queries, targets, mask)
    constant = p.constant(unit)
    k = config.k
    slots, target_slots = searcher.find(p, state, constant, targets, k)
    candidates = slots if target_slots is None else xp.concatenate([slots, target_slots], axis=1)
    scores = p.score_rows(unit, p.constant(state.keys), xp.where(candidates != NO_SLOT, candidates, 0))
    similarities = scores[:, :k]

    ranked = xp.where(slots != NO_SLOT, p.constant(similarities), NOTHING)
    order = p.sort_order(ranked, slots)
    # Presence goes by score, so that a compiler reads keys before an update by these slots writes them.
    present = accepted[:, None] & (p.take_along(ranked, order) > NOTHING)
    slots = xp.where(present, p.take_along(slots, order), NO_SLOT)
    similarities = xp.where(present, p.take_along(similarities, order), 0.0)
    values = xp.where(present, state.values[slots], NO_SLOT)

    loss = None
    if targets is not None and target_slots is not None:
        positive = xp.where(target_slots[:, 0] != NO_SLOT, scores[:, k], 0.0)
        loss = loss_of(p, config, similarities, values, targets, positive)
    return Lookup(
        values=values,
        slots=slots,
        similarities=similarities,
        weights=softmax(p, config.softmax_temperature * similarities, present),
        found=present[:, 0],
        loss=loss,
        queries=constant,
        targets=targets,
        rejected=mask & ~sound,
        accepted=accepted,
        step=xp.where(accepted, state.step, 0),
    )


def sound_rows(p: Primitives, queries: Array) -> Array:
    """Rule 1: which rows [B] are finite and have a direction."""
    return _magnitude(p, p.cast(queries, "float32"))[1]


def _magnitude(p: Primitives, rows: Array) -> tuple[Array, Array]:
    """The largest magnitude [B] in each row, and whether the row is sound [B]. A comparison with NaN is false."""
    largest = p.xp.amax(p.xp.abs(p.constant(rows)), axis=1)
    return largest, (largest >= SMALLEST_NORM) & (largest <= MAX_FLOAT32)


def normalize(p: Primitives, queries: Array, targets: Array | None, mask: Array) -> tuple[Array, Array | None, Array, Array]:
    """Rule 1: unit rows, and which rows are rejected.

    Rows are first scaled by a power of two, which is exact, so that no square overflows or vanishes.

    Returns:
        Unit rows [B, key_dim] f32, zero (and closed to gradients) where not accepted; targets [B] i32 or None, 0 where not
        accepted; which rows are sound [B], in direction and target; which are accepted [B]: sound, and not masked.
    """
    xp = p.xp
    rows = p.cast(queries, "float32")
    largest, sound = _magnitude(p, rows)
    if targets is not None:
        sound = sound & (targets >= 0) & (targets <= MAX_INT32)
    accepted = sound & mask
    if targets is not None:
        targets = p.cast(xp.where(accepted, targets, 0), "int32")
    rows, largest = xp.where(accepted[:, None], rows, 1.0), xp.where(accepted, largest, 1.0)
    rows = rows / p.power_of_two(largest)[:, None]
    unit = rows / xp.sqrt(xp.sum(rows * rows, axis=1))[:, None]
    return xp.where(accepted[:, None], unit, 0.0), targets, sound, accepted
