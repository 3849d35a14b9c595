"""Rule 5: which slots the misses of a batch take. Empty ones first, then those with the largest age and noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..config import MAX_INT32, MemoryConfig
from ..primitives import Primitives
from ..search.blocks import best_of_columns
from ..state import MAX_HITS, NO_SLOT, Array, MemoryState
from .noise import age_noise
from .plan import UpdatePlan
from .scatter import content_of, scatter_of

EMPTY_PRIORITY = MAX_INT32
TAKEN_PRIORITY = -(2**31)

AGES_BESIDE_HITS = 2**24
"""With `evict="least_hit"`, the factor on hits in a priority. Ages are clamped to 2 * age_noise + 1 below it."""


def free_slots(
    p: Primitives, config: MemoryConfig, state: MemoryState, slot: Array, hit: Array, plan: UpdatePlan
) -> tuple[Array, Array, Array]:
    """The slots [n] that the misses of a batch take, in order; which of them may be taken; and which are filled.

    Args:
        p, config, state: of the memory.
        slot: [B] i32, the nearest slot of each row.
        hit: [B] bool, whether the row hit it: then it is not evicted.
        plan: the sizes that the work is cut by.
    """
    xp, batch = p.xp, slot.shape[0]
    symbolic = plan.rows is not None and not isinstance(batch, int)  # in an exported program: then all slots, in order
    count = config.slots if symbolic else min(batch, config.slots)
    reach = 2 * count if config.write == "keep" else count  # where a row that hits needs another slot too
    if p.eager and config.slots >= 2 * plan.block * reach:
        slots, priority = _contenders(p, config, partial(_priority, p, config, state), reach, plan)
        place = xp.searchsorted(slots, xp.where(hit, slot, 0))
        place = xp.where(place < len(slots), place, 0)
        hit = hit & (slots[place] == slot)
    else:
        slots, place = p.arange(config.slots, slot), slot
        priority = _priority(p, config, state, slice(None))
    scatter = scatter_of(p, hit, place)
    taken = p.xp.full_like(slot, TAKEN_PRIORITY)
    priority = p.put_rows(priority, scatter.slots, content_of(p, priority, scatter, taken))
    noisy = (priority != EMPTY_PRIORITY) & (priority != TAKEN_PRIORITY)
    priority = priority + xp.where(noisy, age_noise(p, config, state.step, slots), 0)
    if plan.rows is None or p.eager:
        best, column = p.top_k(priority[None, :], count)
    else:
        best, column = best_of_columns(p, priority[:, None], count, lowest=TAKEN_PRIORITY)
    return slots[column[0]], best[0] != TAKEN_PRIORITY, best[0] != EMPTY_PRIORITY


def _priority(p: Primitives, config: MemoryConfig, state: MemoryState, some: slice) -> Array:
    """The priority, i32, of some slots: the slot with the largest is evicted first. By age, or by hits and then by age.

    Noise is added later. Priorities are clamped so that with noise none reaches that of an empty slot or of one just hit.
    """
    by_hits = config.evict == "least_hit"
    ages, values = state.step - state.last_used[some], state.values[some]
    oldest = AGES_BESIDE_HITS - 2 - 2 * config.age_noise if by_hits else MAX_INT32 - 1 - config.age_noise
    if not by_hits and p.eager and _all_ordinary(p, ages, values, oldest):
        return ages
    priority = p.xp.where((ages >= 0) & (ages < oldest), ages, oldest)
    if by_hits:
        priority = (MAX_HITS - state.hits[some]) * AGES_BESIDE_HITS + priority + config.age_noise
    return p.xp.where(values == NO_SLOT, EMPTY_PRIORITY, priority)


def _all_ordinary(p: Primitives, ages: Array, values: Array, oldest: int) -> bool:
    """Whether no slot is empty and no age out of bounds: then ages are the priorities. Testing costs less than clamping."""
    return bool((p.xp.amin(values) != NO_SLOT) & (p.xp.amin(ages) >= 0) & (p.xp.amax(ages) < oldest))


def _contenders(
    p: Primitives, config: MemoryConfig, priority_of: Callable[[slice], Array], count: int, plan: UpdatePlan
) -> tuple[Array, Array]:
    """The slots, ascending, that may be among the `count` with the largest priority once noise is added; and their priorities.

    The count-th largest block maximum is at most the count-th largest priority. A slot is left out if it is below that by more
    than noise can add. Slots just hit are not left out: `count` leaves room for them.
    """
    xp, lowest = p.xp, TAKEN_PRIORITY
    best: list[Array] = []
    found: list[tuple[Array, Array]] = []
    for start in range(0, config.slots, plan.slots):
        priority = priority_of(slice(start, start + plan.slots))
        blocks = len(priority) // plan.block
        maxima = xp.concatenate([*best, xp.amax(priority[: blocks * plan.block].reshape(plan.block, blocks), axis=0)])[None, :]
        if maxima.shape[1] >= count:
            maxima = p.top_k(maxima, count)[0]
            lowest = max(int(xp.amin(maxima)) - 2 * config.age_noise, TAKEN_PRIORITY)
        places = xp.where(priority >= lowest)[0]
        best = [maxima[0]]
        found.append((places + start, priority[places]))
    slots, priority = (xp.concatenate(column) for column in zip(*found, strict=True))
    still = priority >= lowest
    return p.cast(slots[still], "int32"), priority[still]
