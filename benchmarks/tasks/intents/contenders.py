"""The memory, and what scikit-learn's users take instead. All answer with labels, and with how well they know a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.tasks.intents.embeddings import Part, Rows

Answer = tuple[NDArray[Any], NDArray[Any]]
"""The labels [N], and how well each row is known [N]."""
Asked = Callable[[Rows], Answer]
Contender = Callable[[Part], Asked]
"""Learns rows, and gives what answers."""

OURS = "raremem, learned map, every row kept"
AS_IS = "raremem as is, one by one, nearest neighbor"
MEANS = "class means"
REGRESSION = "logistic regression"
LDA = "shrinkage LDA"


def contenders(backend: str, seed: int) -> dict[str, Contender]:
    """By name."""
    return {
        AS_IS: lambda part: ask_memory(memory(backend, seed, write="merge", neighbors=1).fit(*part)),
        "raremem, every row kept": lambda part: ask_memory(memory(backend, seed).fit(*part)),
        MEANS: class_means,
        "logistic regression, C=1": lambda part: logistic_regression(part, 1.0),
        REGRESSION: logistic_regression,
        LDA: shrinkage_lda,
        OURS: lambda part: ask_memory(memory(backend, seed, projection="learned").fit(*part)),
    }


def memory(backend: str, seed: int, **parameters: Any) -> Any:
    """A `MemoryClassifier`."""
    from raremem.adapters.sklearn import MemoryClassifier

    return MemoryClassifier(backend=backend, random_state=seed, **parameters)


def ask_memory(classifier: Any) -> Asked:
    """Of a fitted `MemoryClassifier`."""
    return lambda rows: (classifier.predict(rows), classifier.evidence(rows))


def class_means(part: Part) -> Asked:
    """The mean of each class by cosine. (scikit-learn's NearestCentroid, of rows of length 1 and means of length 1.)"""
    labels = np.unique(part.labels)
    means = np.stack([part.rows[part.labels == label].mean(axis=0) for label in labels])
    means /= np.linalg.norm(means, axis=1, keepdims=True)

    def ask(rows: Rows) -> Answer:
        similarities = rows @ means.T
        return labels[similarities.argmax(axis=1)], similarities.max(axis=1)

    return ask


def logistic_regression(part: Part, c: float = 100.0) -> Asked:
    """scikit-learn's. C=100 is best on CLINC150's validation set (of 1, 10, 30 and 100); 1 is the default."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, max_iter=500).fit(*part)

    def ask(rows: Rows) -> Answer:
        shares = model.predict_proba(rows)
        return model.classes_[shares.argmax(axis=1)], shares.max(axis=1)

    return ask


def shrinkage_lda(part: Part) -> Asked:
    """scikit-learn's, with the shrinkage of Ledoit and Wolf; known by the largest log likelihood."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(*part)

    def ask(rows: Rows) -> Answer:
        scores = model.decision_function(rows)
        return model.classes_[scores.argmax(axis=1)], scores.max(axis=1)

    return ask
