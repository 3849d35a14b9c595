"""What the field does, on the same network: every token kept (kNN-MT), its adaptive choice of k, a cache of the last tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raremem.benchmarks.tasks.translation.evidence import Floats, Neighbors, Whole
from raremem.benchmarks.tasks.translation.gate import mixed
from raremem.benchmarks.tasks.translation.source import Source, Words, tokens_of
from raremem.benchmarks.tasks.translation.systems import Answer, look
from raremem.benchmarks.training.translator.recipe import Reading
from raremem.benchmarks.training.translator.text import Store, StreamTranslator

HIDDEN = 32
RATE = 1e-2
BATCH = 256
SMALL = 1e-9


@dataclass
class KnnMt:
    """Every token kept, and its neighbors mixed in by a fixed share (Khandelwal et al., 2021).

    Attributes:
        store: a memory with `write="keep"`.
        share: of the neighbors.
        temperature: by which squared distances of unit states are divided.
    """

    store: Store
    share: float
    temperature: float

    def answer(self, source: Source, reading: Reading, last: Whole, before: Answer | None) -> Answer:
        """See `System.answer`."""
        neighbors = look(self.store, reading.states)
        weights = self.share * softened(neighbors, self.temperature)
        shares = np.concatenate([1 - weights.sum(1, keepdims=True), weights], axis=1).astype(np.float32)
        return Answer(mixed(reading.probabilities, shares, neighbors.values, neighbors.slots >= 0))

    def read(self, source: Source, reading: Reading, last: Whole, target: Words) -> None:
        """See `System.read`."""
        keep(self.store, reading, target)


def keep(store: Store, reading: Reading, target: Words) -> None:
    """Write every token of a sentence."""
    said = tokens_of(target)
    store.update(store.lookup(reading.states, said), said, np.ones(len(said), np.bool_))


def softened(neighbors: Neighbors, temperature: float | Floats) -> Floats:
    """The softmax [T, k] over minus the squared distances, divided by the temperature; 0 where nothing was found."""
    there = neighbors.slots >= 0
    scores = np.where(there, (2 * neighbors.similarities - 2) / temperature, -np.inf)
    first = np.where(there[:, :1], scores[:, :1], 0)
    weights = np.where(there, np.exp(scores - first), 0)
    return (weights / np.maximum(weights.sum(1, keepdims=True), SMALL)).astype(np.float32)


@dataclass
class Adaptive:
    """Every token kept, and how many neighbors are heard chosen by a small network (Zheng et al., 2021).

    The memory is that of a `KnnMt` beside it, which writes to it.

    It sees the neighbors' distances and how many different values the first of them have, and gives a share to the network's
    own answer and to each of the first 1, 2, 4, ... neighbors.
    """

    store: Store
    weights: dict[str, Floats]
    temperature: float

    def answer(self, source: Source, reading: Reading, last: Whole, before: Answer | None) -> Answer:
        """See `System.answer`."""
        neighbors = look(self.store, reading.states)
        choice = _choice(self.weights, adaptive_features(neighbors))[0]
        parts = prefixes(neighbors, self.temperature)
        weights = np.einsum("tc,tck->tk", choice[:, 1:], parts)
        shares = np.concatenate([1 - weights.sum(1, keepdims=True), weights], axis=1).astype(np.float32)
        return Answer(mixed(reading.probabilities, shares, neighbors.values, neighbors.slots >= 0))

    def read(self, source: Source, reading: Reading, last: Whole, target: Words) -> None:
        """The other has."""


def adaptive_features(neighbors: Neighbors) -> Floats:
    """Distances [T, k], and how many different values the first 1, 2, ... k neighbors have [T, k]."""
    there = neighbors.slots >= 0
    distances = np.where(there, 2 - 2 * neighbors.similarities, 4)
    earlier = np.tril(np.ones((there.shape[1],) * 2, np.bool_), -1)
    again = ((neighbors.values[:, :, None] == neighbors.values[:, None, :]) & earlier).any(2)
    return np.concatenate([distances, np.cumsum(there & ~again, axis=1)], axis=1).astype(np.float32)


def prefixes(neighbors: Neighbors, temperature: float) -> Floats:
    """The weights [T, choices, k] over the first 1, 2, 4, ... neighbors."""
    width = neighbors.slots.shape[1]
    counts = [2**power for power in range(width.bit_length())]
    parts = []
    for count in counts:
        slots = np.where(np.arange(width) < count, neighbors.slots, -1)
        parts.append(softened(neighbors._replace(slots=slots), temperature))
    return np.stack(parts, axis=1)


def _choice(weights: dict[str, Floats], features: Floats) -> tuple[Floats, Floats, Floats]:
    scaled = (features - weights["mean"]) / weights["deviation"]
    hidden = np.maximum(scaled @ weights["in"] + weights["in_bias"], 0)
    scores = hidden @ weights["out"] + weights["out_bias"]
    choice = np.exp(scores - scores.max(1, keepdims=True))
    return choice / choice.sum(1, keepdims=True), hidden, scaled


def learn_adaptive(
    neighbors: Neighbors, own: Floats, said: Whole, temperature: float, seed: int, passes: int = 8
) -> dict[str, Floats]:
    """The weights of the small network, trained as published: by the likelihood of the tokens that came.

    Args:
        neighbors: of T tokens.
        own: [T] the probability of the token that came, by the network.
        said: [T] those tokens.
        temperature: see `KnnMt`.
        seed: of the first weights and the order.
        passes: over all tokens.
    """
    generator = np.random.default_rng([seed, 4])
    features = adaptive_features(neighbors)
    right = (neighbors.values == said[:, None]) & (neighbors.slots >= 0)
    gains = np.concatenate([own[:, None], np.einsum("tck,tk->tc", prefixes(neighbors, temperature), right)], axis=1)
    inputs, outputs = features.shape[1], gains.shape[1]
    weights = {
        "mean": features.mean(0),
        "deviation": features.std(0) + np.float32(1e-3),
        "in": (generator.normal(size=(inputs, HIDDEN)) / np.sqrt(inputs)).astype(np.float32),
        "in_bias": np.zeros(HIDDEN, np.float32),
        "out": np.zeros((HIDDEN, outputs), np.float32),
        "out_bias": np.zeros(outputs, np.float32),
    }
    speed = {name: np.zeros_like(array) for name, array in weights.items()}
    size = {name: np.zeros_like(array) for name, array in weights.items()}
    for _ in range(passes):
        order = generator.permutation(len(own))
        for start in range(0, len(own), BATCH):
            rows = order[start : start + BATCH]
            slopes = _slopes(weights, features[rows], gains[rows])
            for name, slope in slopes.items():
                speed[name] = 0.9 * speed[name] + 0.1 * slope
                size[name] = 0.99 * size[name] + 0.01 * slope**2
                weights[name] = weights[name] - (RATE / 10 * speed[name] / (np.sqrt(size[name]) + 1e-6)).astype(np.float32)
    return weights


def _slopes(weights: dict[str, Floats], features: Floats, gains: Floats) -> dict[str, Floats]:
    """The gradient of minus the mean log-likelihood."""
    choice, hidden, scaled = _choice(weights, features)
    scores = choice * (1 - gains / np.maximum((choice * gains).sum(1, keepdims=True), SMALL)) / len(gains)
    back = (scores @ weights["out"].T) * (hidden > 0)
    return {"in": scaled.T @ back, "in_bias": back.sum(0), "out": hidden.T @ scores, "out_bias": scores.sum(0)}


class Cache:
    """The last tokens, compared by their states (Grave et al., 2017).

    Args:
        size: tokens that are kept.
        share: of the cache.
        sharpness: factor on the cosine similarity.
    """

    def __init__(self, size: int, share: float, sharpness: float) -> None:
        self.size, self.share, self.sharpness = size, share, sharpness
        self.keys, self.values = np.zeros((0, 0), np.float32), np.zeros(0, np.int32)

    def answer(self, source: Source, reading: Reading, last: Whole, before: Answer | None) -> Answer:
        """See `System.answer`."""
        if not len(self.values):
            return Answer(reading.probabilities)
        weights = np.exp(self.sharpness * (_unit(reading.states) @ self.keys.T - 1))
        weights *= self.share / weights.sum(1, keepdims=True)
        mixed = (1 - self.share) * reading.probabilities
        np.add.at(mixed, (np.arange(len(mixed))[:, None], self.values[None]), weights)
        return Answer(mixed)

    def read(self, source: Source, reading: Reading, last: Whole, target: Words) -> None:
        """See `System.read`."""
        rows, said = _unit(reading.states), tokens_of(target)
        self.keys = np.concatenate([self.keys.reshape(-1, rows.shape[1]), rows])[-self.size :]
        self.values = np.concatenate([self.values, said])[-self.size :]


def _unit(rows: Floats) -> Floats:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), SMALL)


class Tuned:
    """The network itself, trained by a gradient step on each sentence after it was translated.

    Args:
        translator: which `answer` is asked about; `run_stream` must be given the same.
    """

    def __init__(self, translator: StreamTranslator) -> None:
        self.translator = translator

    def answer(self, source: Source, reading: Reading, last: Whole, before: Answer | None) -> Answer:
        """See `System.answer`."""
        return Answer(reading.probabilities)

    def read(self, source: Source, reading: Reading, last: Whole, target: Words) -> None:
        """See `System.read`."""
        said = tokens_of(target)
        self.translator.learn(source.tokens[None], last[None], said[None], np.zeros((1, len(said)), np.bool_))
