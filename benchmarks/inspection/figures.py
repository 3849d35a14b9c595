"""All figures of a page, worked out once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from raremem.benchmarks.inspection.confusion import Nearest, Pair, nearest, nearest_pairs, pairs
from raremem.benchmarks.inspection.content import Content
from raremem.benchmarks.inspection.measures import Bin, Next, Slots, Values, by_value, doubling, most_hit, next_to_go

SHOWN = 10
"""Rows of a table, of those that could have a row for each slot or value."""


@dataclass(frozen=True)
class Accuracy:
    """How many of some slots have a nearest slot of their own value: leave one out.

    Attributes:
        right: how many do.
        asked: of how many.
        repeated: how many of these have a value that another slot has too: others cannot be right.
        is_sample: whether there are filled slots that were not asked.
    """

    right: int
    asked: int
    repeated: int
    is_sample: bool

    @property
    def share(self) -> float:
        """Of those asked."""
        return self.right / self.asked

    @property
    def share_of_repeated(self) -> float:
        """Of those that can be right."""
        return self.right / self.repeated if self.repeated else math.nan

    @property
    def error(self) -> float:
        """By how much the share may be off, 19 times of 20; 0 if all were asked. (Agresti and Coull, 1998: two more that are
        right, and two that are wrong, so that it is no 0 where all were right.)"""
        share = (self.right + 2) / (self.asked + 4)
        return 1.96 * math.sqrt(share * (1 - share) / (self.asked + 4)) if self.is_sample else 0.0


@dataclass(frozen=True)
class Figures:
    """What is in a memory that holds something.

    Attributes:
        values: by how many slots have them.
        ages: a histogram over filled slots, in updates.
        hits: another.
        hit_slots: those hit most.
        next: those that would go next; None: it grows.
        nearest: the nearest of each slot that was asked.
        accuracy: of these; None where a slot has no other.
        pairs: values that are near.
        nearest_pairs: slots of different values that are nearest.
    """

    values: Values
    ages: list[Bin]
    hits: list[Bin]
    hit_slots: Slots
    next: Next | None
    nearest: Nearest
    accuracy: Accuracy | None
    pairs: list[Pair]
    nearest_pairs: list[tuple[int, int, float]]


def figures(content: Content) -> Figures:
    """Work out the figures of a memory in which a slot is filled."""
    filled, values = content.portable["filled"], content.portable["values"]
    found, counted = nearest(content), by_value(values[filled])
    return Figures(
        values=counted,
        ages=doubling(content.portable["ages"][filled]),
        hits=doubling(content.portable["hits"][filled]),
        hit_slots=most_hit(content, SHOWN),
        next=None if content.grows else next_to_go(content, SHOWN),
        nearest=found,
        accuracy=accuracy(content, found, counted) if found.filled > 1 else None,
        pairs=pairs(found, values),
        nearest_pairs=nearest_pairs(found, SHOWN),
    )


def accuracy(content: Content, found: Nearest, counted: Values) -> Accuracy:
    """How many slots that were asked have a nearest slot of their own value, of two filled slots or more."""
    values = content.portable["values"]
    own = values[found.asked]
    repeated = np.isin(own, counted.values[counted.slots > 1])
    right = values[found.nearest] == own
    return Accuracy(int(right.sum()), len(own), int(repeated.sum()), len(own) < found.filled)
