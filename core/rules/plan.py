"""The sizes that an update is cut by. What is written does not depend on them; time and memory do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UpdatePlan:
    """The sizes that an update is cut by. The defaults were measured to be fastest.

    Attributes:
        rows: rows of a batch whose slots are compared with those of the whole batch at a time, so that no [B, B] matrix of a
            large batch is held. None: all rows, in one program for batches of any size.
        slots: slots whose priority is computed at a time, where shapes may depend on content: few enough to stay in a
            processor's cache.
        block: slots in a block, where shapes may depend on content. The largest priority of each block gives a lower bound on
            the priorities of the slots to evict.
    """

    rows: int | None = 1024
    slots: int = 2**18
    block: int = 64


USUAL = UpdatePlan()
ANY_BATCH = UpdatePlan(rows=None)
"""For a compiler that makes one program for batches of any size."""
