"""Questions and updates a second, beside scikit-learn's nearest neighbors and faiss's flat index."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable

import numpy as np

from raremem.benchmarks.tasks.intents.contenders import memory

DIM = 128
NEIGHBORS = 10
BATCH = 64
CLASSES = 150


def rates(rows: int, seconds: float, seed: int, backend: str) -> dict[str, float]:
    """With so many rows kept: questions a second in batches of 64, and updates a second, one row each.

    An update of scikit-learn's KNeighborsClassifier is a fit of all rows; faiss's adds a row (IndexFlatIP).
    """
    generator = np.random.default_rng([seed, 6])
    keys = generator.normal(size=(rows, DIM)).astype(np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    labels = generator.integers(CLASSES, size=rows)
    asked = keys[generator.integers(rows, size=BATCH)] + 0.1 * generator.normal(size=(BATCH, DIM)).astype(np.float32)
    classifier = memory(backend, seed, neighbors=NEIGHBORS, slots=rows + rows // 10 + 1000).fit(keys, labels)
    found = {
        "raremem, questions": BATCH * _a_second(lambda: classifier.predict(asked), seconds),
        "raremem, updates": _a_second(lambda: classifier.partial_fit(asked[:1], labels[:1]), seconds),
    }
    from sklearn.neighbors import KNeighborsClassifier

    peer = KNeighborsClassifier(NEIGHBORS, metric="cosine", algorithm="brute").fit(keys, labels)
    found["scikit-learn, questions"] = BATCH * _a_second(lambda: peer.predict(asked), seconds)
    found["scikit-learn, updates"] = _a_second(lambda: peer.fit(keys, labels), seconds)
    if importlib.util.find_spec("faiss") is not None:
        import faiss

        index = faiss.IndexFlatIP(DIM)
        index.add(keys)
        found["faiss, questions"] = BATCH * _a_second(lambda: index.search(asked, NEIGHBORS), seconds)
        found["faiss, updates"] = _a_second(lambda: index.add(asked[:1]), seconds)
    return found


def _a_second(call: Callable[[], object], seconds: float) -> float:
    """How many calls a second there are, measured for about so long: by the median time of a call."""
    call()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
        if len(times) >= 1000:
            break
    return 1 / float(np.median(times))
