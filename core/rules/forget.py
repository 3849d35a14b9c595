"""Rule 14: which slots are forgotten, and how they become as if they had never been filled."""

from __future__ import annotations

import numpy as np

from ..config import MAX_INT32, MemoryConfig
from ..primitives import Primitives
from ..state import NO_SLOT, Array, ForgetReport, MemoryState
from ..validation import dtype_name
from .scatter import content_of, scatter_of

COMPARED = 64
"""How many of the named values are compared with those of all slots at a time."""


def forget(
    p: Primitives,
    config: MemoryConfig,
    state: MemoryState,
    slots: Array | None,
    values: Array | None,
    older_than: Array | None,
) -> tuple[MemoryState, ForgetReport]:
    """Empty the slots that are named; see `named`. The given state is consumed: its arrays may be written to."""
    forgotten = named(p, state, slots, values, older_than)
    count = p.cast(p.xp.sum(p.cast(forgotten, "int32"), axis=0), "int32")
    return _emptied(p, config, state, forgotten), ForgetReport(forgotten, count)


def named(p: Primitives, state: MemoryState, slots: Array | None, values: Array | None, older_than: Array | None) -> Array:
    """Which slots [slots] are filled and named: by any of these.

    Args:
        p, state: of the memory.
        slots: a mask [slots] bool, or numbers [n] i32, of which those that are no slot name none.
        values: [n] i32.
        older_than: [] i32; an age above it.
    """
    xp = p.xp
    filled = state.values != NO_SLOT
    is_named = state.values == NO_SLOT
    if slots is not None:
        is_named = is_named | (slots if dtype_name(slots) == "bool" else _numbered(p, state, slots))
    if values is not None:
        for start in range(0, values.shape[0], COMPARED):
            is_named = is_named | xp.any(state.values[:, None] == values[start : start + COMPARED][None, :], axis=1)
    if older_than is not None:
        ages = state.step - state.last_used
        is_named = is_named | (xp.where(ages >= 0, ages, MAX_INT32) > older_than)
    return filled & is_named


def _numbered(p: Primitives, state: MemoryState, numbers: Array) -> Array:
    """Which slots [slots] are among some numbers [n]."""
    none, ones = p.xp.zeros_like(state.values), p.xp.full_like(numbers, 1)
    scatter = scatter_of(p, (numbers >= 0) & (numbers < none.shape[0]), numbers)
    return p.put_rows(none, scatter.slots, content_of(p, none, scatter, ones)) != 0


def _emptied(p: Primitives, config: MemoryConfig, state: MemoryState, forgotten: Array) -> MemoryState:
    """The state with these slots [slots] emptied. Where arrays are immutable or content is not seen, all are made anew."""
    xp = p.xp
    seen = p.peek(forgotten, wait=True) if p.in_place else None
    if seen is not None:
        slots = p.asarray(np.flatnonzero(seen).astype(np.int32), state.values)
        none = xp.zeros_like(slots)
        keys = xp.broadcast_to(p.cast(none, "float32")[:, None], (slots.shape[0], config.key_dim))
        return p.write(state, slots, MemoryState(keys, none + NO_SLOT, none, none, state.step))
    left = ~forgotten
    padding = state.keys.shape[0] - config.slots  # rows after the last slot, over several devices
    keys_left = xp.concatenate([left, p.arange(padding, state.values) >= 0]) if padding else left
    content = MemoryState(
        keys=xp.where(keys_left[:, None], state.keys, 0.0),
        values=xp.where(left, state.values, NO_SLOT),
        last_used=xp.where(left, state.last_used, 0),
        hits=xp.where(left, state.hits, 0),
        step=state.step,
    )
    return p.write(state, p.arange(config.slots, state.values), content) if p.in_place else content
