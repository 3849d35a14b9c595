"""What a search answers (rule 2), and what it is told of writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from ..primitives import Primitives
from ..score_order import NOTHING
from ..state import NO_SLOT, Array, MemoryState


class Found(NamedTuple):
    """The answer of a search.

    Attributes:
        slots: [B, k] i32, those of the most similar keys, best first; of equal scores the lowest slot comes first. -1 where
            there is no slot. What stands for a query of zeros means nothing.
        target_slots: [B, 1] i32, the most similar slot that holds the target, or -1; None without targets.
    """

    slots: Array
    target_slots: Array | None


class Searcher(ABC):
    """Finds the slots nearest to unit queries. Nothing here is differentiable: the answer is slots, which the caller scores.

    What a searcher keeps beside a memory (an index, keys in low precision) is told of every update outside traced code, by
    `before_update` and `after_update`. If an update fails, what was taken is gone, and is made again when it is needed.
    """

    mode: str | None = None
    """What it makes of a backend's mode: "index" or "sharded"."""
    alone: bool = False
    """Whether a search changes what the searcher keeps, so that no other call on the memory may meet it."""

    @abstractmethod
    def find(self, p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int) -> Found:
        """The k slots most similar to each of unit queries [B, key_dim], and the best slot with each target [B] i32."""

    def before_update(self, p: Primitives, state: MemoryState) -> Any:
        """What is kept beside this state, or None. An update is about to be made: it is kept no longer."""
        return None

    def after_update(self, p: Primitives, state: MemoryState, slots: Array, taken: Any) -> None:  # noqa: B027
        """Keep what was taken, or None, beside this state: an update wrote to its slots [n] i32, and nothing else did."""


def scores_of(p: Primitives, state: MemoryState, queries: Array, slots: Array) -> Array:
    """Scores [B, n] of each query with its own slots [B, n]; `NOTHING` where there is no slot, or nothing in it."""
    there = slots != NO_SLOT
    rows = p.xp.where(there, slots, 0)
    scores = p.score_rows(queries, state.keys, rows)
    return p.xp.where(there & (state.values[rows] != NO_SLOT), scores, NOTHING)
