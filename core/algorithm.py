"""The one vectorised algorithm: rules 1 to 8 of the specification, over the primitives of any backend.

Shapes are fixed and there is no branch on data, so that the same lines run eagerly, under `torch.compile` and under
`jax.jit`. Inputs are checked before they come here (`raremem.backend`).
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import NamedTuple

from .config import MAX_INT32, MemoryConfig
from .noise import age_noise
from .primitives import Primitives
from .scan import NOTHING, top_k
from .search import Search, nearest
from .state import MAX_HITS, NO_SLOT, Array, Lookup, MemoryState, UpdateReport

SMALLEST_NORM = 2.0**-100
"""Rule 1: a row whose largest magnitude is below this has no direction. Our choice: some compilers flush subnormal
numbers to zero, and above this bound that cannot be seen."""

LARGEST_NUMBER = (2 - 2.0**-23) * 2.0**127
"""Of f32."""

SMALLEST_SUM = 2.0**-10
"""Rule 4: if key and queries cancel to a norm below this, the key stays. Our choice: what is left of such a sum is mostly
rounding error, and zero has no direction at all."""

BLOCK = 64
"""Slots in a block, of which only the largest priority tells how far down to look."""

MERGED = 1024
"""Hits whose slots are compared with those of the whole batch at a time, so that no [B, B] matrix of a large batch is held."""

CHUNK = 2**18
"""Slots whose priority is worked out at a time: few enough to stay in a processor's cache."""

GATHERED = 2**21
"""Numbers of keys, too many for a processor's cache, that are not gathered if a product with all keys holds half as many."""

EMPTY_PRIORITY = MAX_INT32
TAKEN_PRIORITY = -(2**31)

AGES_BESIDE_HITS = 2**24
"""Rule 5: where slots are compared by hits first, an age stops 2 * age_noise + 1 below this."""


def query(
    p: Primitives,
    config: MemoryConfig,
    state: MemoryState,
    queries: Array,
    targets: Array | None,
    mask: Array,
    search: Search = nearest,
) -> Lookup:
    """Rules 1, 2, 3 and 8. queries [B, key_dim] of any float, targets [B] of any int or None, mask [B] bool."""
    xp = p.xp
    rows = p.cast(queries, "float32")
    largest = _largest_magnitude(p, rows)
    sound = _has_direction(largest)
    if targets is not None:
        sound = sound & (targets >= 0) & (targets <= MAX_INT32)
    accepted = sound & mask
    if targets is not None:
        targets = p.cast(xp.where(accepted, targets, 0), "int32")
    unit = normalize(p, rows, largest, accepted)

    constant = p.constant(unit)
    slots, target_slot = search(p, state, constant, targets, config.k)
    candidates = slots if target_slot is None else xp.concatenate([slots, target_slot], axis=1)
    scores = _similarities(p, state, unit, candidates)
    similarities = scores[:, : config.k]

    ranked = xp.where(slots != NO_SLOT, p.constant(similarities), NOTHING)
    order = p.sort_order(ranked, slots)
    # Presence goes by score, so that a compiler reads keys before an update by these slots writes them.
    present = accepted[:, None] & (p.take_along(ranked, order) > NOTHING)
    slots = xp.where(present, p.take_along(slots, order), NO_SLOT)
    similarities = xp.where(present, p.take_along(similarities, order), 0.0)
    values = xp.where(present, state.values[slots], NO_SLOT)

    loss = None
    if targets is not None and target_slot is not None:
        positive = xp.where(target_slot != NO_SLOT, scores[:, config.k :], 0.0)[:, 0]
        loss = _loss(p, config, similarities, values, targets, positive)
    return Lookup(
        values=values,
        slots=slots,
        similarities=similarities,
        weights=_softmax(p, config.softmax_temperature * similarities, present),
        found=present[:, 0],
        loss=loss,
        queries=constant,
        targets=targets,
        rejected=mask & ~sound,
        accepted=accepted,
        step=xp.where(accepted, state.step, 0),
    )


def update(
    p: Primitives, config: MemoryConfig, state: MemoryState, found: Lookup, targets: Array, mask: Array
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
    rows = xp.where(accepted)[0] if p.eager(accepted) else None
    if rows is None or len(rows) == len(accepted):
        return _store(p, config, state, batch, rejected)
    return _store_some(p, config, state, batch, rejected, rows)


class _Batch(NamedTuple):
    """Rows to write: unit queries [B, key_dim], targets, the nearest slot of each, and whether it is hit, or missed [B]."""

    queries: Array
    targets: Array
    slot: Array
    hit: Array
    miss: Array


def _store(
    p: Primitives, config: MemoryConfig, state: MemoryState, batch: _Batch, rejected: Array
) -> tuple[MemoryState, UpdateReport]:
    """Rules 4 to 8. A row that is neither hit nor missed leaves no trace."""
    xp = p.xp
    queries, targets, slot, hit, miss = batch
    merged, hits, leads = _merge_hits(p, state, queries, slot, hit)
    free, usable, filled = _free_slots(p, config, state, slot, hit)

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
    p: Primitives, config: MemoryConfig, state: MemoryState, batch: _Batch, rejected: Array, rows: Array
) -> tuple[MemoryState, UpdateReport]:
    """As `_store`, for the rows [n] that are hit or missed: what is masked costs nothing."""
    slots, written = p.xp.full_like(batch.slot, NO_SLOT), p.xp.full_like(batch.hit, False)
    if not len(rows):
        none = _count(p, written)
        return state, UpdateReport(slots, batch.hit, written, rejected, none, none)
    state, report = _store(p, config, state, _Batch(*(p.take_rows(column, rows) for column in batch)), rejected)
    slots[rows], written[rows] = report.slots, report.written
    return state, report._replace(slots=slots, hit=batch.hit, written=written)


def sound_rows(p: Primitives, queries: Array) -> Array:
    """Rule 1: which rows [B] are finite and have a direction."""
    return _has_direction(_largest_magnitude(p, p.cast(queries, "float32")))


def _largest_magnitude(p: Primitives, rows: Array) -> Array:
    """Of each row [B]; not a number where one in the row is not."""
    return p.xp.amax(p.xp.abs(p.constant(rows)), axis=1)


def _has_direction(largest: Array) -> Array:
    """Whether a row's largest magnitude [B] says that; a comparison with what is not a number is false."""
    return (largest >= SMALLEST_NORM) & (largest <= LARGEST_NUMBER)


def normalize(p: Primitives, rows: Array, largest: Array, accepted: Array) -> Array:
    """Rule 1: unit rows of f32 rows, zero (and closed to gradients) where not accepted.

    Rows are first scaled by a power of two, which is exact, so that no square overflows or vanishes.
    """
    xp = p.xp
    rows, largest = xp.where(accepted[:, None], rows, 1.0), xp.where(accepted, largest, 1.0)
    rows = rows / p.power_of_two(largest)[:, None]
    unit = rows / xp.sqrt(xp.sum(rows * rows, axis=1))[:, None]
    return xp.where(accepted[:, None], unit, 0.0)


def _similarities(p: Primitives, state: MemoryState, unit: Array, slots: Array) -> Array:
    """Rule 2: cosine similarity [B, n] of each row with its own candidate slots [B, n]; the way back for gradients.

    A gradient may be taken after the keys were written to (rule 11): it must find what it needs of them as it was.
    """
    keys, slots = p.constant(state.keys), p.xp.where(slots != NO_SLOT, slots, 0)
    gathered = unit.shape[0] * slots.shape[1] * keys.shape[1]
    if p.eager(keys) and gathered >= GATHERED and 2 * unit.shape[0] * len(state.values) <= gathered:
        return p.take_along(p.inner(unit, p.snapshot(keys, unit)), slots)
    return p.score(unit, p.gather_rows(keys, slots, unit))


def _softmax(p: Primitives, logits: Array, present: Array) -> Array:
    xp = p.xp
    top = p.constant(logits)[:, :1]
    powers = _powers(p, logits, top, present)
    total = xp.sum(powers, axis=1)[:, None]
    return powers / xp.where(present[:, :1], total, 1.0)


def _powers(p: Primitives, logits: Array, top: Array, present: Array) -> Array:
    """exp(logits - top) where present, else 0. What is absent may be far above `top`: exp must not see it, nor its gradient."""
    return p.xp.where(present, p.xp.exp(p.xp.where(present, logits - top, 0.0)), 0.0)


def _loss(p: Primitives, config: MemoryConfig, similarities: Array, values: Array, targets: Array, positive: Array) -> Array:
    """Rule 3. Where there is no negative, both loss and gradient are 0."""
    is_negative = (values != NO_SLOT) & (values != targets[:, None])
    if config.loss == "nll":
        loss = _negative_log_likelihood(p, config, similarities, values == targets[:, None], is_negative, positive)
    else:
        loss = _margin_hinge(p, config, similarities, is_negative, positive)
    return p.xp.where(p.xp.any(is_negative, axis=1), loss, 0.0)


def _margin_hinge(p: Primitives, config: MemoryConfig, similarities: Array, is_negative: Array, positive: Array) -> Array:
    """The margin loss; where the hinge is closed, both loss and gradient are 0."""
    first = p.cast(p.xp.argmax(p.cast(is_negative, "int32"), axis=1), "int32")[:, None]
    hinge = p.take_along(similarities, first)[:, 0] - positive + config.margin
    return p.xp.where(p.constant(hinge) > 0, hinge, 0.0)


def _negative_log_likelihood(
    p: Primitives, config: MemoryConfig, similarities: Array, is_positive: Array, is_negative: Array, positive: Array
) -> Array:
    """-log of the softmax weight on the target; if no neighbor has it, the positive stands beside them as one more.

    Both sums are taken relative to their largest power, so neither overflows or vanishes at any temperature.
    """
    xp = p.xp
    logits, best = config.softmax_temperature * similarities, config.softmax_temperature * positive
    nearest, highest = p.constant(logits)[:, 0], p.constant(best)
    top = xp.where(nearest > highest, nearest, highest)
    alone = ~xp.any(is_positive, axis=1)
    powers = _powers(p, logits, top[:, None], is_positive | is_negative)
    everyone = xp.sum(powers, axis=1) + xp.where(alone, xp.exp(best - top), 0.0)
    right = xp.sum(_powers(p, logits, highest[:, None], is_positive), axis=1)
    right = xp.where(alone, xp.exp(best - highest), right)
    return (xp.log(everyone) + top) - (xp.log(right) + highest)


def _merge_hits(p: Primitives, state: MemoryState, unit: Array, slot: Array, hit: Array) -> tuple[Array, Array, Array]:
    """Rule 4: the new key [B, key_dim] and hits [B] of the slot that each row hit, and which row [B] writes for its slot.

    Rows are summed by a product with the [B, B] matrix of "hit the same slot": a fixed order of summation, where a
    scatter-add on a GPU has none.
    """
    xp, batch = p.xp, hit.shape[0]
    own, ids = xp.where(hit, slot, 0), p.arange(batch, slot)
    whose = xp.where(hit, slot, -1 - ids)
    if not p.blocks() or not isinstance(batch, int) or batch <= MERGED:
        sums, counts, first = _together(p, unit, whose, whose)
    else:
        parts = [_together(p, unit, whose[start : start + MERGED], whose) for start in range(0, batch, MERGED)]
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
    return p.sums(together, unit), counts, p.cast(xp.argmax(together, axis=1), "int32")


def _free_slots(p: Primitives, config: MemoryConfig, state: MemoryState, slot: Array, hit: Array) -> tuple[Array, Array, Array]:
    """Rule 5: the slots [n] for this batch's misses in order, which of them may be used, and which are filled."""
    xp, batch = p.xp, slot.shape[0]
    symbolic = p.blocks() and not isinstance(batch, int)  # in an exported program: then all slots, in order
    count = config.slots if symbolic else min(batch, config.slots)
    if p.eager(slot) and config.slots >= 2 * BLOCK * count:
        slots, priority = _contenders(p, config, state, count)
        place = xp.searchsorted(slots, xp.where(hit, slot, 0))
        place = xp.where(place < len(slots), place, 0)
        hit = hit & (slots[place] == slot)
    else:
        slots, place = p.arange(config.slots, slot), slot
        priority = _eviction_priority(p, config, state, lambda array: array)
    priority = _put(p, priority, _turns(p, hit, place), slot * 0 + TAKEN_PRIORITY)
    noisy = (priority != EMPTY_PRIORITY) & (priority != TAKEN_PRIORITY)
    priority = priority + xp.where(noisy, age_noise(p, config, state.step, slots), 0)
    best, column = top_k(p, priority[:, None], count, lowest=TAKEN_PRIORITY)
    return slots[column[0]], best[0] != TAKEN_PRIORITY, best[0] != EMPTY_PRIORITY


def _contenders(p: Primitives, config: MemoryConfig, state: MemoryState, count: int) -> tuple[Array, Array]:
    """The slots that may be among the `count` to go first once noise has moved each, ascending, and their priorities.

    The count-th largest of the maxima of blocks is not above the count-th largest of all; what is further below it than noise
    can make up for is out. Slots that are hit are among them still: each was hit by a row that then needs no other.
    """
    xp, lowest = p.xp, TAKEN_PRIORITY
    best: list[Array] = []
    found: list[tuple[Array, Array]] = []
    for start in range(0, config.slots, CHUNK):
        priority = _eviction_priority(p, config, state, itemgetter(slice(start, start + CHUNK)))
        blocks = len(priority) // BLOCK
        maxima = xp.concatenate([*best, xp.amax(priority[: blocks * BLOCK].reshape(BLOCK, blocks), axis=0)])[None, :]
        if maxima.shape[1] >= count:
            maxima = p.take_along(maxima, p.largest(maxima, count))
            lowest = max(int(xp.amin(maxima)) - 2 * config.age_noise, TAKEN_PRIORITY)
        places = xp.where(priority >= lowest)[0]
        best = [maxima[0]]
        found.append((places + start, priority[places]))
    slots, priority = (xp.concatenate(column) for column in zip(*found, strict=True))
    still = priority >= lowest
    return p.cast(slots[still], "int32"), priority[still]


def _eviction_priority(p: Primitives, config: MemoryConfig, state: MemoryState, some: Callable[[Array], Array]) -> Array:
    """Rule 5: a whole number for each of some slots, largest for the one to go first: by age, or before that by hits.

    Noise comes later: bounds leave room for it, so that it never reaches the priorities of slots that are empty or taken.
    """
    by_hits = config.evict == "least_hit"
    ages, values = state.step - some(state.last_used), some(state.values)
    oldest = AGES_BESIDE_HITS - 2 - 2 * config.age_noise if by_hits else MAX_INT32 - 1 - config.age_noise
    if not by_hits and p.eager(ages) and _all_ordinary(p, ages, values, oldest):
        return ages
    priority = p.xp.where((ages >= 0) & (ages < oldest), ages, oldest)
    if by_hits:
        priority = (MAX_HITS - some(state.hits)) * AGES_BESIDE_HITS + priority + config.age_noise
    return p.xp.where(values == NO_SLOT, EMPTY_PRIORITY, priority)


def _all_ordinary(p: Primitives, ages: Array, values: Array, oldest: int) -> bool:
    """Whether no slot is empty and no age beyond its bounds. Seen sooner than provided for."""
    return bool((p.xp.amin(values) != NO_SLOT) & (p.xp.amin(ages) >= 0) & (p.xp.amax(ages) < oldest))


def _write(
    p: Primitives, state: MemoryState, writes: Array, slot: Array, keys: Array, values: Array, hits: Array
) -> MemoryState:
    """Rules 4, 5 and 6: the rows that write, each to its slot, and the step if anything was written."""
    turns = _turns(p, writes, slot)
    step = state.step + p.cast(~turns.nobody, "int32")
    content = MemoryState(
        keys=_content(p, state.keys, turns, keys),
        values=_content(p, state.values, turns, values),
        last_used=_content(p, state.last_used, turns, slot * 0 + step),
        hits=_content(p, state.hits, turns, hits),
        step=step,
    )
    return p.write(state, turns.slots, content)


class _Turns(NamedTuple):
    """Who writes where, in a fixed shape: a row that does not write repeats the first one that does.

    Attributes:
        rows: [B] i32, the row whose content is written.
        slots: [B] i32, where to; 0 if nobody writes.
        nobody: [] bool, whether no row writes: slot 0 is then given what it holds.
    """

    rows: Array
    slots: Array
    nobody: Array


def _turns(p: Primitives, writes: Array, slot: Array) -> _Turns:
    """Of the rows [B] that write, each to its slot [B]."""
    xp = p.xp
    first = p.cast(xp.argmax(p.cast(writes, "int32"), axis=0), "int32")
    rows, nobody = xp.where(writes, p.arange(writes.shape[0], slot), first), ~xp.any(writes)
    return _Turns(rows, xp.where(nobody, 0, slot[rows]), nobody)


def _put(p: Primitives, array: Array, turns: _Turns, content: Array) -> Array:
    """`array[slot] = content` for the rows that write."""
    return p.put_rows(array, turns.slots, _content(p, array, turns, content))


def _content(p: Primitives, array: Array, turns: _Turns, content: Array) -> Array:
    """What `array` holds at the slots of all turns afterwards [B]: the content of the rows that write."""
    return p.xp.where(turns.nobody, array[:1], content[turns.rows])


def _count(p: Primitives, rows: Array) -> Array:
    return p.cast(p.xp.sum(p.cast(rows, "int32"), axis=0), "int32")
