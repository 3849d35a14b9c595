"""The specification of the memory for one row at a time, to be read beside the paper: plain loops, nothing clever.

It shares no algorithm with `raremem.rules` and `raremem.search`; the two are two readings of one text. Each function cites its
rule. Numbers are f64 inside and rounded to f32 where the specification stores or returns f32. `raremem.reference.oracle` makes
a memory of these functions.

    rule 1  queries are normalised; a row without a direction is rejected
    rule 2  lookup: the k most similar filled slots
    rule 3  the margin loss, or the negative log-likelihood
    rule 4  hit: the key moves towards the query
    rule 5  miss: the row takes the oldest slot
    rule 7  noise on the age
    rule 15 the scores of classes
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.config import MemoryConfig

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Slot:
    """One filled slot: a row of K, V and A (paper, section 2)."""

    key: Vector
    value: int
    age: int
    hits: int


@dataclass(frozen=True)
class OracleState:
    """The memory: a slot, or None where it is empty, and how many updates wrote anything."""

    slots: tuple[Slot | None, ...]
    key_dim: int
    step: int
    memory: int = field(default_factory=itertools.count(1).__next__)
    """Rule 12: which memory this is a state of. What an update leaves is a state of the same."""


@dataclass(frozen=True)
class Neighbor:
    """A slot as a query sees it."""

    slot: int
    value: int
    similarity: np.float32


def normalize(row: NDArray[Any]) -> Vector | None:
    """Rule 1: the unit vector of a row in f32, or None if it is rejected.

    Below a largest magnitude of 2**-100 a row has no direction (our choice).
    """
    with np.errstate(over="ignore"):
        single = row.astype(np.float32)
    if not np.all(np.isfinite(single)) or np.max(np.abs(single)) < 2.0**-100:
        return None
    exact = single.astype(np.float64)
    return (exact / math.sqrt(float(exact @ exact))).astype(np.float32)


def similarity(query: Vector, key: Vector) -> np.float32:
    """Rule 2: the cosine of two unit vectors."""
    return np.float32(query.astype(np.float64) @ key.astype(np.float64))


def nearest_first(query: Vector, state: OracleState) -> list[Neighbor]:
    """Rule 2: every filled slot, most similar first, ties to the lowest slot."""
    filled = [
        Neighbor(number, slot.value, similarity(query, slot.key)) for number, slot in enumerate(state.slots) if slot is not None
    ]
    return sorted(filled, key=lambda neighbor: (-neighbor.similarity, neighbor.slot))


def softmax(config: MemoryConfig, neighbors: list[Neighbor]) -> list[float]:
    """Rule 2: the weights of the neighbors (paper, section 2: softmax of d_i * t)."""
    if not neighbors:
        return []
    top = max(float(neighbor.similarity) for neighbor in neighbors)
    powers = [math.exp(config.softmax_temperature * (float(neighbor.similarity) - top)) for neighbor in neighbors]
    return [power / sum(powers) for power in powers]


def positive_and_negative(
    config: MemoryConfig, everyone: list[Neighbor], target: int
) -> tuple[Neighbor | None, Neighbor | None]:
    """Rule 3: n_p and n_b of the paper's section 2.1."""
    neighbors = everyone[: config.k]
    positives = [neighbor for neighbor in neighbors if neighbor.value == target]
    if not positives:
        positives = [neighbor for neighbor in everyone if neighbor.value == target]
    negatives = [neighbor for neighbor in neighbors if neighbor.value != target]
    return (positives[0] if positives else None), (negatives[0] if negatives else None)


def hinge(config: MemoryConfig, positive: Neighbor | None, negative: Neighbor | None) -> float:
    """Rule 3: s_neg - s_pos + margin, or minus infinity if there is no negative."""
    if negative is None:
        return -math.inf
    return float(negative.similarity) - (float(positive.similarity) if positive else 0.0) + config.margin


def loss_of(config: MemoryConfig, everyone: list[Neighbor], target: int) -> float:
    """Rule 3: the loss of one row."""
    positive, negative = positive_and_negative(config, everyone, target)
    if config.loss == "margin":
        return max(0.0, hinge(config, positive, negative))
    if negative is None:
        return 0.0
    everyone, right = contenders(config, everyone, target)
    return log_sum_exp(config, everyone) - log_sum_exp(config, right)


def contenders(config: MemoryConfig, everyone: list[Neighbor], target: int) -> tuple[list[Neighbor], list[Neighbor]]:
    """Rule 3: who is in the softmax of the likelihood, and which of them have the target.

    The k neighbors; and if none of them has the target, the positive too: the best slot that has it, or, where there is none,
    a slot -1 of similarity 0.
    """
    neighbors = everyone[: config.k]
    if all(neighbor.value != target for neighbor in neighbors):
        positive, _ = positive_and_negative(config, everyone, target)
        neighbors = [*neighbors, positive or Neighbor(-1, target, np.float32(0))]
    return neighbors, [neighbor for neighbor in neighbors if neighbor.value == target]


def log_sum_exp(config: MemoryConfig, neighbors: list[Neighbor]) -> float:
    """Rule 3: log of the sum of exp(t * similarity)."""
    top = max(float(neighbor.similarity) for neighbor in neighbors)
    powers = [math.exp(config.softmax_temperature * (float(neighbor.similarity) - top)) for neighbor in neighbors]
    return config.softmax_temperature * top + math.log(math.fsum(powers))


def pulls(config: MemoryConfig, everyone: list[Neighbor], target: int) -> list[tuple[int, float]]:
    """Rule 3: the derivative of the loss by the similarity of each slot that it depends on."""
    positive, negative = positive_and_negative(config, everyone, target)
    if negative is None:
        return []
    if config.loss == "margin":
        ends = [(negative, 1.0), (positive, -1.0)] if hinge(config, positive, negative) > 0 else []
        return [(neighbor.slot, sign) for neighbor, sign in ends if neighbor is not None]
    terms = []
    for sign, neighbors in zip((1.0, -1.0), contenders(config, everyone, target), strict=True):
        for neighbor, weight in zip(neighbors, softmax(config, neighbors), strict=True):
            if neighbor.slot >= 0:
                terms.append((neighbor.slot, sign * config.softmax_temperature * weight))
    return terms


def loss_gradient(config: MemoryConfig, state: OracleState, row: NDArray[Any], target: int) -> NDArray[np.float64]:
    """Rule 3's gradient by the row."""
    unit = normalize(row)
    return gradient(state, row, [] if unit is None else pulls(config, nearest_first(unit, state), target))


def pulls_of_similarities(neighbors: list[Neighbor], factors: NDArray[np.float64]) -> list[tuple[int, float]]:
    """Rule 2: the derivative, by the similarity of each neighbor, of the sum of similarities times factors [k]."""
    return [(neighbor.slot, float(factor)) for neighbor, factor in zip(neighbors, factors, strict=False)]


def pulls_of_weights(config: MemoryConfig, neighbors: list[Neighbor], factors: NDArray[np.float64]) -> list[tuple[int, float]]:
    """Rule 2: the same of the sum of weights times factors [k], through the softmax."""
    weights = softmax(config, neighbors)
    mean = math.fsum(weight * float(factor) for weight, factor in zip(weights, factors, strict=False))
    return [
        (neighbor.slot, config.softmax_temperature * weight * (float(factor) - mean))
        for neighbor, weight, factor in zip(neighbors, weights, factors, strict=False)
    ]


def recall(config: MemoryConfig, neighbors: list[Neighbor], embedding: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of the rows of the neighbors' values by their weights."""
    total = np.zeros(embedding.shape[1])
    for neighbor, weight in zip(neighbors, softmax(config, neighbors), strict=True):
        total += weight * embedding[neighbor.value].astype(np.float64)
    return total


def scores(config: MemoryConfig, neighbors: list[Neighbor], classes: int) -> NDArray[np.float64]:
    """Rule 15: for each class the sum of the weights of the neighbors with that value; other values count for none."""
    total = np.zeros(classes)
    for neighbor, weight in zip(neighbors, softmax(config, neighbors), strict=True):
        if neighbor.value < classes:
            total[neighbor.value] += weight
    return total


def gradient(state: OracleState, row: NDArray[Any], strengths: list[tuple[int, float]]) -> NDArray[np.float64]:
    """By the row, through rule 1, of what has these derivatives by similarities: (I - u u^T) (the sum of pull * key) / |row|.

    0 for a row without a direction. Keys are constants.
    """
    if normalize(row) is None:
        return np.zeros(row.shape)
    pull = np.zeros(row.shape)
    for number, strength in strengths:
        slot = state.slots[number]
        assert slot is not None
        pull += strength * slot.key
    exact = row.astype(np.float64)
    norm = float(np.linalg.norm(exact))
    return (pull - (exact @ pull) / norm**2 * exact) / norm


def merge(key: Vector, queries: list[Vector]) -> Vector:
    """Rule 4: normalise(key + the sum of the queries that hit it); the old key if they cancel (our choice: below 2**-10)."""
    total = key.astype(np.float64) + sum(query.astype(np.float64) for query in queries)
    norm = math.sqrt(float(total @ total))
    return key if norm < 2.0**-10 else (total / norm).astype(np.float32)


def noise(config: MemoryConfig, step: int, slot: int) -> int:
    """Rule 7: a whole number in [-age_noise, age_noise], from arithmetic modulo 2**32."""

    def mix(bits: int) -> int:
        bits = (bits ^ (bits >> 16)) * 0x85EBCA6B % 2**32
        bits = (bits ^ (bits >> 13)) * 0xC2B2AE35 % 2**32
        return bits ^ (bits >> 16)

    start = slot ^ ((config.seed * 0x7FEB352D + 0x9E3779B1) % 2**32)
    return mix(mix(start) ^ step) % 2**31 % (2 * config.age_noise + 1) - config.age_noise


def slots_for_misses(config: MemoryConfig, state: OracleState, refreshed: set[int]) -> list[int]:
    """Rule 5: the slots that misses may take, in order: the empty ones, then the oldest, none that a hit refreshed.

    Oldest is by age + noise. So that both go together in 32 bits an age stops short of that; where those hit least go first,
    7 of the bits are their hits, and it stops earlier.
    """
    empty = [number for number, slot in enumerate(state.slots) if slot is None]
    by_hits = config.evict == "least_hit"
    limit = 2**24 - 2 - 2 * config.age_noise if by_hits else 2**31 - 2 - config.age_noise
    filled = [
        (slot.hits if by_hits else 0, -(min(slot.age, limit) + noise(config, state.step, number)), number)
        for number, slot in enumerate(state.slots)
        if slot is not None and number not in refreshed
    ]
    return empty + [number for _, _, number in sorted(filled)]
