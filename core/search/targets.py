"""Rule 3's positive: the best slot that holds each target, where shapes may depend on content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..index import Slots
from ..primitives import Primitives
from ..score_order import NOTHING
from ..state import NO_SLOT, Array, MemoryState
from .contract import scores_of


@dataclass(frozen=True)
class TargetPlan:
    """The sizes that the search of positives is cut by. Answers do not depend on them.

    Attributes:
        gathered_at_once: numbers of gathered keys, or similarities, held at a time.
        gather_cost: gathering and scoring a slot for one row costs as much as so many slots in a product with all rows.
    """

    gathered_at_once: int = 2**21
    gather_cost: int = 16


Having = Callable[[Slots], Slots]
"""A function of values [n], ascending, that returns all slots with one of them, ascending, and perhaps some other slots."""


def slots_having(p: Primitives, state: MemoryState) -> Having:
    """`Having` of a state."""
    values = p.peek(state.values)
    assert values is not None, "eager"
    return lambda wanted: np.flatnonzero(np.isin(values, wanted)).astype(np.int32)


def best_with_target(
    p: Primitives, state: MemoryState, queries: Array, targets: Array, slots: Array, beyond: Callable[[Array], Array]
) -> Array:
    """The best slot [B, 1] with each target: the first neighbor that has it, or else the best of all slots that have it.

    `beyond` is the search of all slots: of some rows [n] it returns the best slot [n] with their targets.
    """
    xp = p.xp
    right = (state.values[slots] == targets[:, None]) & (slots != NO_SLOT)
    among = xp.any(right, axis=1)
    best = xp.where(among, p.take_along(slots, p.cast(right, "int32").argmax(1)[:, None])[:, 0], NO_SLOT)
    asking = xp.where(~among & xp.any(queries != 0, axis=1))[0]
    if len(asking):
        best[asking] = beyond(asking)
    return best[:, None]


def best_of_having(
    p: Primitives, state: MemoryState, queries: Array, targets: Array, having: Having, plan: TargetPlan, rows: Array
) -> Array:
    """The best slot [n] with the target of each of these rows [n]; ties to the lowest slot."""
    queries, targets = queries[rows], targets[rows]
    values, wanted = p.peek(state.values), p.peek(targets)
    assert values is not None, "eager"
    assert wanted is not None, "eager"
    slots = having(np.unique(wanted))
    by_value = slots[np.argsort(values[slots], kind="stable")]
    first = np.searchsorted(values[by_value], wanted)
    count = np.searchsorted(values[by_value], wanted, "right") - first
    if plan.gather_cost * count.sum() > len(wanted) * len(slots):
        return _best_by_product(p, state, queries, targets, p.asarray(slots, targets), plan)
    return _best_by_row(p, state, queries, by_value, first, count, plan)


def _best_by_row(
    p: Primitives,
    state: MemoryState,
    queries: Array,
    by_value: Slots,
    first: NDArray[np.intp],
    count: NDArray[np.intp],
    plan: TargetPlan,
) -> Array:
    """`best_of_having`, each row scored with its own slots, `by_value[first : first + count]`. Rows with similar counts go
    together."""
    best = np.full(len(first), NO_SLOT, np.int32)
    order = np.argsort(count, kind="stable")
    order = order[np.searchsorted(count[order], 1) :]
    while len(order):
        most = int(count[order[-1]])
        rows = order[-max(1, plan.gathered_at_once // (most * queries.shape[1])) :]
        order = order[: -len(rows)]
        column = np.arange(most)
        places = np.where(column < count[rows, None], first[rows, None] + column, -1)
        own = np.where(places >= 0, by_value[places], NO_SLOT).astype(np.int32)
        asking = p.asarray(rows, queries)
        scores = scores_of(p, state, queries[asking], p.asarray(own, state.values))
        best[rows] = own[np.arange(len(rows)), p.peek(scores.argmax(1))]
    return p.asarray(best, state.values)


def _best_by_product(
    p: Primitives, state: MemoryState, queries: Array, targets: Array, slots: Array, plan: TargetPlan
) -> Array:
    """`best_of_having` by products of all rows with the slots [n] that have one of the targets."""
    xp = p.xp
    best = xp.full_like(targets, NO_SLOT)
    score = xp.full_like(queries[:, 0], NOTHING)
    size = max(1, plan.gathered_at_once // max(queries.shape))
    for start in range(0, len(slots), size):
        some = slots[start : start + size]
        scores = p.inner(queries, state.keys[some])
        scores = xp.where(state.values[some][None, :] == targets[:, None], scores, NOTHING)
        column = scores.argmax(1)
        highest = p.take_along(scores, column[:, None])[:, 0]
        best, score = xp.where(highest > score, some[column], best), xp.where(highest > score, highest, score)
    return best
