"""Which memory a lookup was made on, and whether that memory has changed since (rule 12).

A `Lineage` stands for one memory through all its states. A table of weak references has the lineage of every state, by its
keys, and of every lookup, by its slots. Arrays of traced code are not in the table. For those, the lookup's step and its
nearest slots are compared with the state.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import F32_ROUNDOFF, MemoryConfig
from .errors import StateError
from .primitives import Primitives
from .state import NO_SLOT, Lookup, MemoryState, quietly


@dataclass(eq=False)
class Lineage:
    """One memory through all its states, copies included. `updates` counts its updates and calls of `forget` outside traced
    code, and all other changes that are known of: what was loaded, or seen to be written by something else."""

    updates: int = 0


_lineages: dict[int, tuple[weakref.ref[Any], Lineage, int]] = {}
"""By the `id` of an array: the array, its lineage, and the number of updates that the lineage had when it was noted."""


def note(array: Any, lineage: Lineage | None, updates: int | None = None) -> None:
    """Note the lineage of an array, for as long as the array lives.

    Args:
        array: a state's keys, or a lookup's slots; None: nothing is noted.
        lineage: the memory; None: nothing is noted.
        updates: how many updates it had when the array was made; by default, as many as it has.
    """
    if lineage is None or array is None:
        return
    key = id(array)
    try:
        reference = weakref.ref(array, partial(_lineages.pop, key))  # called before another array can have this id
    except TypeError:  # some frameworks' arrays allow no weak reference
        return
    _lineages[key] = reference, lineage, lineage.updates if updates is None else updates


def pass_on(array: Any, other: Any) -> None:
    """Note for `other`, a copy of `array` or the slots of a lookup made on it, what was noted for `array`."""
    note(other, *_noted(array))


def pass_on_changed(array: Any, other: Any) -> None:
    """Note for `other` the lineage of `array`, one update later: lookups made before are no longer current."""
    lineage = None if array is None else lineage_of(array)
    if lineage is not None:
        lineage.updates += 1
        note(other, lineage)


def lineage_of(array: Any) -> Lineage | None:
    """The lineage that was noted for an array, or None."""
    return _noted(array)[0]


def _noted(array: Any) -> tuple[Lineage | None, int]:
    """The lineage that was noted for an array, and its number of updates then; None and 0 for an array that was not noted."""
    reference, lineage, updates = _lineages.get(id(array), (None, None, 0))
    return (lineage, updates) if reference is not None and reference() is array else (None, 0)


def is_current(p: Primitives, config: MemoryConfig, state: MemoryState, lookup: Lookup) -> bool:
    """Whether a lookup may be used on this state as it is; if not, its rows must be looked up again.

    Equal steps are not enough: another memory may have as many, a copy of this one too, and keys may have been written by hand.
    So changes are counted where the host knows of them, and the nearest slots of the lookup are compared with the state,
    wherever their content can be read without waiting for a device.

    Raises:
        StateError: the lookup was made on another memory.
    """
    (own, at), (of, updates) = _noted(p.identity(state.keys)), _noted(lookup.slots)
    known = own is not None and of is not None
    if (known and own is not of) or lookup.queries.shape[1] != config.key_dim:
        raise _another_memory()
    if lookup.step is None or (known and updates != at):
        return False
    made_at, accepted, now = p.peek(lookup.step), p.peek(lookup.accepted), p.peek(state.step)
    if made_at is None or accepted is None or now is None:
        return own is of
    if (made_at[accepted] != now).any():
        return False
    if _holds(p, state, lookup, accepted):
        return of is None or known
    if known or _found_what_is_empty(p, state, lookup, accepted):
        return False
    raise _another_memory()


@quietly
def _holds(p: Primitives, state: MemoryState, lookup: Lookup, accepted: NDArray[np.bool_]) -> bool:
    """Whether the nearest slots have the values and, within rounding, the similarities of the lookup.

    Both similarities are sums of key_dim products of two unit rows in f32. Each is off by at most key_dim units of roundoff,
    and some more for the norms.
    """
    slots, values, answered = p.peek(lookup.slots), p.peek(state.values), p.peek(lookup.values)
    similarities, queries, keys = p.peek(lookup.similarities), p.peek(lookup.queries), p.peek(state.keys)
    if slots is None or values is None or answered is None:
        return True
    rows = np.flatnonzero(accepted & (slots[:, 0] != NO_SLOT))
    nearest = slots[rows, 0]
    if len(rows) < np.count_nonzero(accepted) and (values != NO_SLOT).any():
        return False
    if (nearest >= len(values)).any() or not np.array_equal(values[nearest], answered[rows, 0]):
        return False
    if similarities is None or queries is None or keys is None:
        return True
    off = np.abs((keys[nearest] * queries[rows]).sum(1) - similarities[rows, 0])
    return bool((off <= 4 * (keys.shape[1] + 4) * F32_ROUNDOFF).all())


def _found_what_is_empty(p: Primitives, state: MemoryState, lookup: Lookup, accepted: NDArray[np.bool_]) -> bool:
    """Whether a nearest slot is empty, as it is in the same memory once it has forgotten it."""
    slots, values = p.peek(lookup.slots), p.peek(state.values)
    if slots is None or values is None:
        return False
    nearest = slots[accepted & (slots[:, 0] != NO_SLOT), 0]
    return bool((values[nearest[nearest < len(values)]] == NO_SLOT).any())


def _another_memory() -> StateError:
    return StateError(
        "the lookup was made on another memory; expected one that a query of this memory gave. "
        "Query this memory with the rows, and give update what it answers."
    )
