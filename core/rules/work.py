"""How much of an update is worked out at a time. What is written does not depend on it; time and memory do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """The sizes that an update is cut by.

    Attributes:
        rows: rows of a batch whose slots are compared with those of the whole batch at a time, so that no [B, B] matrix of a
            large batch is held. None: all, in one program for batches of any size.
        slots: slots whose priority is worked out at a time, where shapes may depend on content: few enough to stay in a
            processor's cache.
        block: of so many slots only the largest priority tells how far down to look, there.
    """

    rows: int | None = 1024
    slots: int = 2**18
    block: int = 64


CUT = Work()
"""What processors were measured to be quickest with."""
AT_ONCE = Work(rows=None)
"""For a compiler that makes one program for batches of any size."""
