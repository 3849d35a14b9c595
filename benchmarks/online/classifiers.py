"""Classifiers that learn from a stream: the memory, and its baselines."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

import raremem
from raremem.benchmarks.online.stream import Labels

Rows = NDArray[np.float32]

HEAD_TEMPERATURE = 10.0
HEAD_RATE = 0.3


class OnlineClassifier(Protocol):
    """Classifies each batch of a stream before it learns the batch's classes."""

    def ask(self, rows: Rows) -> Labels:
        """The class of each row, -1 for no answer."""

    def learn(self, rows: Rows, labels: Labels) -> None:
        """Learn the classes of the rows that `ask` was given last."""


class RarememClassifier:
    """A memory of raremem."""

    def __init__(self, backend: raremem.Backend, config: raremem.MemoryConfig) -> None:
        self.backend, self.config, self.state = backend, config, backend.init(config)

    def ask(self, rows: Rows) -> Labels:
        """See `OnlineClassifier.ask`."""
        self.found = self.backend.query(self.config, self.state, rows)
        return np.asarray(self.found.values)[:, 0]

    def learn(self, rows: Rows, labels: Labels) -> None:
        """See `OnlineClassifier.learn`."""
        self.state, _ = self.backend.update(self.config, self.state, rows, labels, None, self.found)

    def holds(self, labels: Labels) -> NDArray[np.bool_]:
        """Which classes have a slot."""
        return np.isin(labels, np.asarray(self.state.values))


class BufferClassifier:
    """The nearest row in a buffer of the last `slots` rows (FIFO), or of a uniform sample of all rows (a reservoir)."""

    def __init__(self, slots: int, dim: int, reservoir: bool = False, seed: int = 0) -> None:
        self.rows, self.labels, self.seen = np.zeros((slots, dim), np.float32), np.full(slots, -1, np.int32), 0
        self.generator = np.random.default_rng([seed, 5]) if reservoir else None

    def ask(self, rows: Rows) -> Labels:
        """See `OnlineClassifier.ask`."""
        filled = min(self.seen, len(self.rows))
        if not filled:
            return np.full(len(rows), -1, np.int32)
        return self.labels[(rows @ self.rows[:filled].T).argmax(axis=1)]

    def learn(self, rows: Rows, labels: Labels) -> None:
        """See `OnlineClassifier.learn`."""
        for row, label in zip(rows, labels, strict=True):
            place = self.seen % len(self.rows)
            if self.generator is not None and self.seen >= len(self.rows):
                place = int(self.generator.integers(self.seen + 1))
            if place < len(self.rows):
                self.rows[place], self.labels[place] = row, label
            self.seen += 1


class SoftmaxHead:
    """A linear softmax classifier. It knows the number of classes, and takes a gradient step for each row."""

    def __init__(self, classes: int, dim: int) -> None:
        self.weights = np.zeros((classes, dim), np.float32)

    def ask(self, rows: Rows) -> Labels:
        """See `OnlineClassifier.ask`."""
        return (rows @ self.weights.T).argmax(axis=1).astype(np.int32)

    def learn(self, rows: Rows, labels: Labels) -> None:
        """See `OnlineClassifier.learn`."""
        for row, label in zip(rows, labels, strict=True):
            logits = HEAD_TEMPERATURE * (self.weights @ row)
            error = np.exp(logits - logits.max())
            error /= error.sum()
            error[label] -= 1
            self.weights -= HEAD_RATE * HEAD_TEMPERATURE * np.outer(error, row)
