"""What scikit-learn's users expect of `MemoryClassifier`, and what it adds."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from raremem.adapters.sklearn import MemoryClassifier

BACKENDS = ["numpy", "torch", "jax"]


@parametrize_with_checks(
    [MemoryClassifier(), MemoryClassifier(write="merge"), MemoryClassifier(projection="learned", unknown=0.05)]
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def clusters(generator, classes=6, rows=12, dim=16, spread=0.6):
    """Rows about a direction for each class, and their labels, in a mixed order."""
    centers = generator.normal(size=(classes, dim))
    labels = generator.permutation(np.repeat(np.arange(classes), rows))
    return centers[labels] + spread * generator.normal(size=(len(labels), dim)), labels


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("temperature", [0.0, 20.0])
def test_keep_answers_as_k_nearest_neighbors_do(backend, temperature):
    rows, labels = clusters(np.random.default_rng(0))
    classifier = MemoryClassifier(neighbors=5, temperature=temperature, backend=backend).fit(rows[:50], labels[:50])
    peer = KNeighborsClassifier(5, metric="cosine", weights=lambda far: np.exp(-temperature * far)).fit(rows[:50], labels[:50])
    np.testing.assert_allclose(classifier.predict_proba(rows[50:]), peer.predict_proba(rows[50:]), atol=1e-5)
    found = classifier.kneighbors(rows[50:], 3)
    distances, ids = peer.kneighbors(rows[50:], 3)
    assert (found.ids == ids).all()
    assert (found.labels == labels[ids]).all()
    np.testing.assert_allclose(found.similarities, 1 - distances, atol=1e-5)


def test_digits_are_answered_as_k_nearest_neighbors_do():
    rows, labels = load_digits(return_X_y=True)
    ours = MemoryClassifier(neighbors=5).fit(rows[:1200], labels[:1200]).predict(rows[1200:])
    peer = KNeighborsClassifier(5, metric="cosine", weights=lambda far: np.exp(-20 * far)).fit(rows[:1200], labels[:1200])
    assert (ours == peer.predict(rows[1200:])).all()
