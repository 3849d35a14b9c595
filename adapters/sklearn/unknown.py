"""What tells a known row from an unknown one: the evidence for its likeliest class, and a threshold that holds on a stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from raremem.adapters.sklearn.lookups import reweighted
from raremem.state import Lookup

WINDOW = 500
"""Rows that a threshold is worked out from."""
PACE = 0.01
"""How fast the level follows what is really refused."""


def evidence(found: Lookup, temperature: float, classes: int) -> NDArray[np.float32]:
    """The log of the summed powers exp(temperature * similarity) of each row's likeliest class [B]; -inf: nothing was found.

    It is the log of the numerator of rule 15's largest score. So a row that lies between two classes is not unknown; one that
    lies far from all is.
    """
    logits = np.where(found.values < 0, -np.inf, np.float32(temperature) * found.similarities)
    top = np.where(found.found, logits[:, 0], 0)
    with np.errstate(divide="ignore"):
        total = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
        return (np.log(reweighted(found, temperature).scores(classes).max(axis=1)) + total).astype(np.float32)


class ConformalThreshold:
    """A threshold that a given share of known rows falls below, also on a stream that changes.

    It is the quantile of the latest rows' evidence (split conformal prediction; Vovk et al., 2005). A memory that grows is more
    sure of every row, so the latest rows are not quite like the next. The quantile's level therefore follows the share that was
    really refused (adaptive conformal inference; Gibbs and Candès, 2021): over N rows that share is within about
    1 / (`PACE` * N) of what was asked, whatever the stream.

    Args:
        share: of known rows that may be refused, in (0, 1).
    """

    def __init__(self, share: float) -> None:
        self.share = self.level = share
        self.window: deque[float] = deque(maxlen=WINDOW)

    def add(self, scores: Iterable[float]) -> None:
        """Take the evidence of known rows that had not been learned when it was asked for. The oldest leave the window."""
        value = self.value
        for score in scores:
            self.level += PACE * (self.share - (score < value))
            self.window.append(float(score))
        self.level = min(max(self.level, 0.0), 1.0)

    def replace(self, scores: Sequence[float] | NDArray[np.floating], length: int | None = None) -> None:
        """Start anew from these, all of them; with a window of a given length, or of at least `WINDOW` rows."""
        self.level = self.share
        self.window = deque(map(float, scores), maxlen=max(WINDOW, len(scores)) if length is None else length)

    @property
    def value(self) -> float:
        """Refuse what has less evidence; -inf while there are too few rows for any."""
        rank = min(int(self.level * (len(self.window) + 1)), len(self.window))
        return float(np.partition(np.asarray(self.window), rank - 1)[rank - 1]) if rank else -np.inf
