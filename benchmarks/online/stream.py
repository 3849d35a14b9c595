"""A stream of classes, with how often and how long ago each one came before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]


@dataclass(frozen=True)
class ClassStream:
    """For each step [steps] the class, which showing of it this is (from 1), and the steps since the last one (or 0)."""

    classes: Labels
    showing: Labels
    lag: Labels

    def __len__(self) -> int:
        return len(self.classes)


def class_stream(classes: Labels) -> ClassStream:
    """The stream of these classes [steps], with its showings counted."""
    showing, lag = np.zeros(len(classes), np.int32), np.zeros(len(classes), np.int32)
    count, last = np.zeros(classes.max() + 1, np.int32), np.zeros(classes.max() + 1, np.int32)
    for step, label in enumerate(classes):
        count[label] += 1
        showing[step] = count[label]
        lag[step] = step - last[label] if count[label] > 1 else 0
        last[label] = step
    return ClassStream(classes, showing, lag)


def lag_groups(stream: ClassStream, lags: tuple[tuple[int, int | None], ...]) -> dict[str, NDArray[np.bool_]]:
    """For each range of lags, both ends included, a mask [steps] of the steps whose class last came so long ago."""
    groups = {}
    for low, high in lags:
        name = f"over {low - 1:,}" if high is None else f"{low:,}-{high:,}"
        groups[name] = (stream.showing > 1) & (stream.lag >= low) & (stream.lag <= (len(stream) if high is None else high))
    return groups
