"""What a `MemoryClassifier` tells of its examples."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from raremem.config import MemoryConfig
from raremem.state import PortableState

Array = NDArray[Any]


class Neighbors(NamedTuple):
    """The examples that explain answers.

    Attributes:
        ids: [B, k] i64: how many examples had come before this one, in `fit` and `partial_fit` together; -1: none.
        labels: [B, k], their labels; where there is no neighbor it is not to be read.
        similarities: [B, k] f32, cosines, the largest first.
    """

    ids: Array
    labels: Array
    similarities: Array


class Contents(NamedTuple):
    """What a classifier holds.

    Attributes:
        config: of its memory.
        portable: its memory, in portable form.
        ids: [slots] i64, which example is in each slot, as `Neighbors.ids` counts them; -1: none.
        labels: the label of each value of the memory.
        grows: it is given more slots instead of evicting.
    """

    config: MemoryConfig
    portable: PortableState
    ids: Array
    labels: dict[int, Any]
    grows: bool
