"""The interface of a search (rule 2), and how it learns of writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from ..primitives import Primitives
from ..score_order import NOTHING
from ..state import NO_SLOT, Array, MemoryState


class Found(NamedTuple):
    """The answer of a search.

    Attributes:
        slots: [B, k] i32, the slots of the most similar keys, best first, ties to the lowest slot; -1 where there is no slot.
            The entries of a query of zeros mean nothing.
        target_slots: [B, 1] i32, the most similar slot that holds the target, or -1; None without targets.
    """

    slots: Array
    target_slots: Array | None


class Searcher(ABC):
    """Finds the slots nearest to unit queries. Nothing here is differentiable: the answer is slots, which the caller scores.

    A searcher may have a cache for a memory: an index, or a copy of its keys in low precision. Outside traced code
    `before_update` and `after_update` are called around every update, so that the cache follows the memory. If the update fails
    between them, the cache is lost, and is made again when it is needed.
    """

    mode: str | None = None
    """The mode of a backend with this searcher, "index" or "sharded"; None: the searcher does not change it."""
    alone: bool = False
    """Whether a search changes the cache, so that no other call on the memory may run at the same time."""

    @abstractmethod
    def find(self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int) -> Found:
        """The k slots most similar to each of unit queries [B, key_dim], and the best slot with each target [B] i32."""

    def before_update(self, p: Primitives, state: MemoryState) -> Any:
        """Give up the cache for this state, which is about to be updated. Returns it, or None if there is none."""
        return None

    def after_update(self, p: Primitives, state: MemoryState, slots: Array, taken: Any) -> None:  # noqa: B027
        """Take back the cache that `before_update` returned, now for this state: only its slots [n] i32 were written to."""


def scores_of(p: Primitives, state: MemoryState, queries: Array, slots: Array) -> Array:
    """Scores [B, n] of each query with its own slots [B, n]; `NOTHING` where there is no slot, or the slot is empty."""
    there = slots != NO_SLOT
    rows = p.xp.where(there, slots, 0)
    scores = p.score_rows(queries, state.keys, rows)
    return p.xp.where(there & (state.values[rows] != NO_SLOT), scores, NOTHING)
