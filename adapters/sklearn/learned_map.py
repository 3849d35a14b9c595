"""A linear map of keys, trained through the memory's own loss (`loss="nll"`, rule 3), in NumPy.

Each row asks a memory of all other rows, all mapped. The gradient is written out, because the NumPy backend has none; a test
compares loss and gradient with PyTorch's, through `raremem.adapters.torch.Memory`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Labels = NDArray[Any]

STEPS = 150
RATE = 2e-3
"""Of Adam; it falls to 0 by a cosine."""
TEMPERATURE = 15.0
DROPOUT = 0.3
"""The share of a row's numbers that a step leaves out."""
TRANSFER = 0.7
"""How much of another row's difference to its class mean is added to a row, or taken from it."""
LEVEL = 0.3
"""The weight of the last coordinate: how much of the mean of all rows is in a row. Training removes it, as no class differs in
it; what belongs to no class differs in it most."""
ROWS = 2048
"""In a step; of more, whole classes are drawn."""
ROWS_OF_A_CLASS = 16
TINY = 1e-12


class LearnedMap(NamedTuple):
    """Unit rows are mapped to `rows @ weight + bias`.

    Attributes:
        weight: [features, features + 1] f32.
        bias: [features + 1] f32.
    """

    weight: Rows
    bias: Rows

    def __call__(self, rows: Rows) -> Rows:
        """Rows [B, features] of any length, mapped: [B, features + 1] f32."""
        return unit(rows) @ self.weight + self.bias


def unit(rows: Rows) -> Rows:
    """Rows scaled to length 1; those without direction are zero."""
    rows = rows / np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.float32(TINY))
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(TINY))


def learn(rows: Rows, labels: Labels, generator: np.random.RandomState) -> LearnedMap | None:
    """Train a map on labelled rows.

    Beyond rule 3 this is our choice: a start at the identity of centered rows, dropout, and rows that vary as the rows of all
    classes do about their means (chosen on CLINC150's validation set and Banking77's training set).

    Args:
        rows: [N, features] f32.
        labels: [N], whole numbers.
        generator: of what is drawn.

    Returns:
        The map; None if nothing can be learned: there is one class only, or no class has two rows.
    """
    classes, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2 or counts.max() < 2:
        return None
    rows = unit(rows)
    mean = rows.mean(axis=0)
    centered = rows - mean
    sums = np.zeros((len(classes), rows.shape[1]), np.float32)
    np.add.at(sums, labels, centered)
    spread = centered - (sums / counts[:, None].astype(np.float32))[labels]
    weight = np.eye(rows.shape[1], dtype=np.float32)
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for step in range(STEPS):
        drawn = _drawn(labels, counts, generator)
        shown = _varied(centered[drawn], spread, generator)
        gradient = loss_and_gradient(shown, labels[drawn], weight, TEMPERATURE)[1]
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        corrected = np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8
        rate = RATE * (1 + np.cos(np.pi * step / STEPS)) / 2
        weight = (weight - rate * (first / (1 - 0.9 ** (step + 1))) / corrected).astype(np.float32)
    return _with_level(weight, mean, rows)


def loss_and_gradient(rows: Rows, labels: Labels, weight: Rows, temperature: float) -> tuple[float, Rows]:
    """The mean nll of mapped rows [N, features], each asked of a memory of all others, and its gradient by `weight`.

    With E the powers exp(temperature * similarity) of all pairs, a row's loss is log(its sum of E) - log(its sum over its own
    class). E is symmetric, so each pair's gradient is E * (1/sum_i + 1/sum_j), less, within a class, the same with the sums
    over the class. A row that is alone in its class is not asked.
    """
    mapped = rows @ weight
    length = np.linalg.norm(mapped, axis=1, keepdims=True) + np.float32(TINY)
    keys = mapped / length
    order = np.argsort(labels, kind="stable")
    keys, labels = keys[order], labels[order]
    powers = keys @ keys.T
    powers -= 1
    powers *= temperature
    np.exp(powers, out=powers)
    np.fill_diagonal(powers, 0)
    total, own = powers.sum(axis=1), np.zeros(len(keys), np.float32)
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1], True])
    blocks = [slice(start, end) for start, end in pairwise(starts)]
    for block in blocks:
        own[block] = powers[block, block].sum(axis=1)
    asked = own > 0
    loss = np.log(total[asked]) - np.log(own[asked])
    inverse, inverse_own = (np.where(asked, 1 / np.where(asked, sums, 1), 0).astype(np.float32) for sums in (total, own))
    for block in blocks:
        within = inverse_own[block]
        powers[block, block] *= (inverse[block, None] + inverse[block]) - (within[:, None] + within)
        powers[block, : block.start] *= inverse[block, None] + inverse[: block.start]
        powers[block, block.stop :] *= inverse[block, None] + inverse[block.stop :]
    by_keys = np.empty_like(keys)
    by_keys[order] = (powers @ keys) * (temperature / max(asked.sum(), 1))
    keys = mapped / length
    by_mapped = (by_keys - (by_keys * keys).sum(axis=1, keepdims=True) * keys) / length
    return float(loss.mean()), rows.T @ by_mapped


def _drawn(labels: Labels, counts: Labels, generator: np.random.RandomState) -> Labels:
    """The rows of a step: all, or of more than `ROWS` those of some classes."""
    if len(labels) <= ROWS:
        return np.arange(len(labels))
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    order = order[place < ROWS_OF_A_CLASS]
    turn = generator.permutation(len(counts))[labels[order]]
    return order[np.argsort(turn, kind="stable")][:ROWS]


def _varied(rows: Rows, spread: Rows, generator: np.random.RandomState) -> Rows:
    """Rows with differences of others to their class means, and with numbers left out."""
    signs = generator.choice(np.array([-TRANSFER, TRANSFER], np.float32), size=(len(rows), 1))
    kept = (generator.random_sample(rows.shape) >= DROPOUT).astype(np.float32) / np.float32(1 - DROPOUT)
    return (rows + signs * spread[generator.randint(len(spread), size=len(rows))]) * kept


def _with_level(weight: Rows, mean: Rows, rows: Rows) -> LearnedMap:
    """The trained map of `rows - mean` as one of rows, with the coordinate of the mean."""
    direction = mean / max(float(np.linalg.norm(mean)), TINY)
    levels = rows @ direction
    scale = LEVEL * np.linalg.norm((rows - mean) @ weight, axis=1).mean() / max(float(np.sqrt((levels**2).mean())), TINY)
    bias = np.append(-mean @ weight, 0)
    return LearnedMap(np.column_stack([weight, scale * direction]).astype(np.float32), bias.astype(np.float32))
