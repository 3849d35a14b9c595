"""Rows that are held out: what they find among the others, as they are and through a map that never saw them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raremem.adapters.sklearn.learned_map import learn
from raremem.adapters.sklearn.lookups import joined
from raremem.adapters.sklearn.store import ExampleStore
from raremem.state import Lookup

ENOUGH = 300
"""Rows to hold out."""


class HeldOut(NamedTuple):
    """What rows found, as they are and mapped, and their labels [n]."""

    plain: Lookup
    mapped: Lookup
    labels: NDArray[np.integer]


def held_out(
    rows: NDArray[np.float32],
    labels: NDArray[np.integer],
    generator: np.random.RandomState,
    filled: Callable[[NDArray[Any], NDArray[Any]], ExampleStore],
) -> HeldOut | None:
    """Hold rows out, some of each class, and ask a memory of the others for them, with a map of those and without one.

    Args:
        rows: [N, features], of length 1.
        labels: [N], whole numbers.
        generator: of what is drawn.
        filled: a memory with these keys and values.

    Returns:
        None: no class has a row to spare, or nothing can be learned of the others.
    """
    plain: list[Lookup] = []
    mapped: list[Lookup] = []
    asked: list[NDArray[np.integer]] = []
    for held in _folds(labels, generator):
        learned = learn(rows[~held], labels[~held], generator)
        if learned is None:
            return None
        for found, keys in ((plain, rows), (mapped, learned(rows))):
            found += filled(keys[~held], labels[~held]).answer(keys[held])
        asked.append(labels[held])
    return HeldOut(joined(plain), joined(mapped), np.concatenate(asked)) if asked else None


def _folds(labels: NDArray[np.integer], generator: np.random.RandomState) -> Iterator[NDArray[np.bool_]]:
    """Which rows [N] are held out: a fifth of each class, of one of four rows one; again until `ENOUGH` were, four times at
    most."""
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = np.maximum(counts // 5, counts > 3)
    folds = min(4, -(-ENOUGH // max(int(share.sum()), 1))) if share.any() else 0
    return ((place // np.maximum(share, 1)[labels] == fold) & (share[labels] > 0) for fold in range(folds))
