"""Classes arrive: the map is trained on some intents, the others come one at a time, without a gradient step or a refit.

Midway some intents are forgotten, in a copy. And of a stream of known questions the share that is refused is measured.
"""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from raremem.benchmarks.tasks.intents.contenders import class_means, logistic_regression, memory
from raremem.benchmarks.tasks.intents.embeddings import Embedded, Part, draw

CURVE = 10
"""Arrivals between two points of the curve."""
FORGOTTEN = 10


def arriving(data: Embedded, shots: int, first: int, seed: int, backend: str) -> dict[str, Any]:
    """One draw: accuracies in % on the test questions of the intents known so far, and times in ms."""
    part = draw(data.train, shots, seed)
    order = np.random.default_rng([seed, 1]).permutation(np.unique(part.labels))
    begun = of_classes(part, order[:first])
    classifier = memory(backend, seed, projection="learned", unknown=0.05).fit(*begun)
    curve, times, forgetting = [[first, _accuracy(classifier, data.test, order[:first])]], [], {}
    for number, label in enumerate(order[first:], start=first + 1):
        rows = of_classes(part, [label])
        started = time.perf_counter()
        classifier.partial_fit(*rows)
        times.append(1000 * (time.perf_counter() - started))
        if number == (first + len(order)) // 2:
            forgetting = forget_some(classifier, data.test, order[:number], seed)
        if (number - first) % CURVE == 0 or number == len(order):
            curve.append([number, _accuracy(classifier, data.test, order[:number])])
    started = time.perf_counter()
    refitted = logistic_regression(part)
    refit = 1000 * (time.perf_counter() - started)
    return {
        "curve": curve,
        "after the last": curve[-1][1],
        "class means": _right(class_means(part)(data.test.rows)[0], data.test),
        "logistic regression, refitted": _right(refitted(data.test.rows)[0], data.test),
        "ms for a class to arrive": float(np.median(times)),
        "ms of a refit": refit,
        **forgetting,
        **stream(classifier, data, seed),
    }


def stream(classifier: Any, data: Embedded, seed: int, rows: int = 1000) -> dict[str, float]:
    """The share of known questions refused on a stream of updates, each asked for and then learned, in %."""
    order = np.random.default_rng([seed, 2]).permutation(len(data.val.rows))[:rows]
    refused = []
    for row, label in zip(data.val.rows[order], data.val.labels[order], strict=True):
        refused.append(bool(classifier.evidence(row[None])[0] < classifier.threshold_))
        classifier.partial_fit(row[None], label[None])
    known = classifier.evidence(data.test.rows) < classifier.threshold_
    unknown = classifier.evidence(data.unknown.rows) < classifier.threshold_
    return {
        "stream refused": 100 * float(np.mean(refused)),
        "test refused after the stream": 100 * float(known.mean()),
        "unknown refused after the stream": 100 * float(unknown.mean()),
    }


def forget_some(classifier: Any, test: Part, known: Any, seed: int) -> dict[str, int]:
    """Forget intents in a copy: answers of them, their keys' bytes in a file, and slots of others that changed."""
    copied = copy.deepcopy(classifier)
    gone = np.random.default_rng([seed, 3]).choice(known, FORGOTTEN, replace=False)
    before = classifier._store.backend.to_numpy(classifier._store.state)
    slots = np.isin(before["values"], classifier._numbers[np.searchsorted(classifier.classes_, gone)])
    count = copied.forget(gone)
    after = copied._store.backend.to_numpy(copied._store.state)
    with tempfile.TemporaryDirectory() as folder:
        copied.save(Path(folder) / "classifier.safetensors")
        content = (Path(folder) / "classifier.safetensors").read_bytes()
    names = ("keys", "values", "ages", "filled", "hits")
    return {
        "forgotten slots": count,
        "answers of forgotten intents": int(np.isin(copied.predict(test.rows), gone).sum()),
        "forgotten keys in the file": sum(key.tobytes() in content for key in before["keys"][slots]),
        "arrays of other slots that changed": sum(
            before[name][~slots].tobytes() != after[name][~slots].tobytes() for name in names
        ),
    }


def of_classes(part: Part, labels: Any) -> Part:
    """The rows of some classes."""
    mine = np.isin(part.labels, labels)
    return Part(part.rows[mine], part.labels[mine])


def _accuracy(classifier: Any, test: Part, known: Any) -> float:
    mine = of_classes(test, known)
    return _right(classifier.classes_[classifier.predict_proba(mine.rows).argmax(axis=1)], mine)


def _right(answers: Any, test: Part) -> float:
    return 100 * float((answers == test.labels).mean())
