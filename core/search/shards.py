"""The search of a memory that is spread over ranks or devices: any searcher over each part, and the best of all parts."""

from __future__ import annotations

from abc import abstractmethod

from ..primitives import Primitives
from ..state import NO_SLOT, Array, MemoryState
from .contract import Found, Searcher, scores_of


class Shards(Searcher):
    """Each rank or device searches its own part, and the best of all parts are merged.

    Args:
        part_search: the search of a part.
    """

    mode = "sharded"

    def __init__(self, part_search: Searcher) -> None:
        self.part_search, self.alone = part_search, part_search.alone

    @abstractmethod
    def gather(self, state: MemoryState, scores: Array, slots: Array, k: int) -> tuple[Array, Array]:
        """Gather scores and slots [B, n], n at most k, from all parts: [B, m], at least k in each row."""

    def find_in_part(
        self,
        p: Primitives,
        state: MemoryState,
        part: MemoryState,
        first: Array | int,
        queries: Array,
        targets: Array | None,
        k: int,
    ) -> Found:
        """As `find`, on this rank or device. Its `part` of the state begins with the slot `first`."""
        count = min(k, len(part.values))
        nothing = p.cast(queries[:, :0], "int32")
        found = self.part_search.find(p, part, queries, targets, count) if count else Found(nothing, nothing)

        def of_all(places: Array, k: int) -> Array:
            slots = p.xp.where(places != NO_SLOT, places + first, NO_SLOT)
            scores, slots = self.gather(state, scores_of(p, part, queries, places), slots, k)
            return p.take_along(slots, p.sort_order(scores, slots, k))

        return Found(of_all(found.slots, k), None if targets is None else of_all(found.target_slots, 1))
