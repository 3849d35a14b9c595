"""Lookups in NumPy: of several batches as one, at another temperature, and without a slot."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from raremem.state import Lookup


def joined(found: Iterable[Lookup]) -> Lookup:
    """Lookups of batches, one at least, as one of all rows. No memory takes it for an update."""
    batches = list(found)
    names = ("values", "slots", "similarities", "weights", "found")
    return batches[0]._replace(**{name: np.concatenate([getattr(each, name) for each in batches]) for name in names})


def reweighted(found: Lookup, temperature: float) -> Lookup:
    """The lookup [B] with the weights (rule 2) of another temperature."""
    closer = (found.similarities - found.similarities[:, :1]) * np.float32(temperature)
    powers = np.exp(np.where(found.values < 0, -np.inf, closer))
    return found._replace(weights=powers / np.maximum(powers.sum(axis=1, keepdims=True), np.float32(1e-30)))


def without(found: Lookup, slots: NDArray[np.int32], temperature: float) -> Lookup:
    """What would have been found if each row's own slot [B] were empty: a neighbor less."""
    own = found.slots == slots[:, None]
    order = np.argsort(own, axis=1, kind="stable")[:, : max(found.slots.shape[1] - 1, 1)]
    last = np.take_along_axis(own, order, axis=1)
    values, kept, similarities = (
        np.where(last, empty, np.take_along_axis(array, order, axis=1)).astype(array.dtype)
        for array, empty in ((found.values, -1), (found.slots, -1), (found.similarities, 0))
    )
    remaining = (values >= 0).any(axis=1)
    return reweighted(found._replace(values=values, slots=kept, similarities=similarities, found=remaining), temperature)
