"""What scikit-learn's users expect of `MemoryClassifier`, and what it adds."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

import raremem
from raremem.adapters.sklearn import MemoryClassifier

BACKENDS = ["numpy", "torch", "jax"]


@parametrize_with_checks([MemoryClassifier(), MemoryClassifier(write="merge"), MemoryClassifier(projection="learned")])
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
    ours = MemoryClassifier(neighbors=5, temperature=20.0).fit(rows[:1200], labels[:1200]).predict(rows[1200:])
    peer = KNeighborsClassifier(5, metric="cosine", weights=lambda far: np.exp(-20 * far)).fit(rows[:1200], labels[:1200])
    assert (ours == peer.predict(rows[1200:])).all()


@pytest.mark.parametrize("learn", ["fit", "partial_fit"])
@pytest.mark.parametrize("parameters", [{}, {"temperature": 20.0}, {"unknown": 0.1}])
def test_rows_without_direction_alone_are_no_examples(learn, parameters):
    classifier = getattr(MemoryClassifier(**parameters), learn)(np.zeros((3, 2)), [0, 1, 2])
    assert len(classifier) == 0
    assert classifier.partial_fit(np.eye(2), [0, 1]).predict(np.eye(2)).tolist() == [0, 1]


@pytest.mark.filterwarnings("error")
def test_empty_slots_and_neighbors_that_point_away_are_no_overflow():
    rows = [[1.0, 0.0], [-1.0, 0.0]]
    assert MemoryClassifier(slots=100).fit(rows, [0, 1]).predict(rows).tolist() == [0, 1]
    classifier = MemoryClassifier(slots=100, temperature=320.0, unknown=0.05).fit([[1.0, 0.0], [0.9, 0.1]], [0, 1])
    assert classifier.evidence(rows).argmin() == 1


def test_as_many_neighbors_as_there_may_be():
    assert MemoryClassifier(neighbors=raremem.config.MAX_INT32).fit(np.eye(2), [0, 1]).predict(np.eye(2)).tolist() == [0, 1]


def test_classes_of_another_kind_are_refused_and_change_nothing():
    classifier = MemoryClassifier()
    with pytest.raises(ValueError, match="classes has labels of dtype <U1; expected them of the kind of the first"):
        classifier.partial_fit(np.eye(2), [0, 1], classes=["a", "b"])
    assert not hasattr(classifier, "classes_")
    classifier.partial_fit(np.eye(2), [0, 1], classes=[])
    with pytest.raises(ValueError, match="classes has labels"):
        classifier.partial_fit(np.eye(2), [0, 1], classes=["a", "b"])
    assert classifier.partial_fit(np.eye(2), [0, 1], classes=2).classes_.tolist() == [0, 1, 2]


def test_a_fit_that_is_refused_leaves_what_was_learned():
    classifier = MemoryClassifier().fit(np.eye(2), ["a", "b"])
    for wrong in ({"neighbors": 0}, {"slots": 0}, {"write": "never"}, {"temperature": -1.0}):
        with pytest.raises(raremem.ConfigError):
            classifier.set_params(**wrong).fit(np.eye(3)[:, :2] + 1, ["c", "d", "e"])
        assert classifier.set_params(**MemoryClassifier().get_params()).predict(np.eye(2)).tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("labels", "more"),
    [
        (np.array(["b", "a"]), np.array(["longer"])),
        (np.array(["b", "a"], object), np.array(["longer"], object)),
        (np.array([7, -3]), np.array([2**40])),
        (np.array([True, False]), None),
    ],
)
def test_any_labels_and_classes_that_arrive(labels, more, tmp_path):
    rows = np.eye(3)
    classifier = MemoryClassifier().fit(rows[:2], labels)
    assert classifier.predict(rows[:2]).tolist() == labels.tolist()
    if more is not None:
        classifier.partial_fit(rows[2:], more)
        labels = np.concatenate([labels, more])
        assert classifier.predict(rows).tolist() == labels.tolist()
        assert classifier.predict_proba(rows).argmax(axis=1).tolist() == np.argsort(np.argsort(labels)).tolist()
    assert classifier.classes_.tolist() == sorted(labels.tolist())
    classifier.save(tmp_path / "c.safetensors")
    again = MemoryClassifier.load(tmp_path / "c.safetensors")
    assert again.classes_.dtype == classifier.classes_.dtype
    assert again.predict(rows).tolist() == classifier.predict(rows).tolist()


def test_labels_of_another_kind_are_refused():
    classifier = MemoryClassifier().fit(np.eye(2), ["a", "b"])
    with pytest.raises(ValueError, match="expected them of the kind of the first"):
        classifier.partial_fit(np.eye(2), [1, 2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_forgotten_is_gone_and_the_rest_is_as_it_was(backend, tmp_path):
    rows, labels = clusters(np.random.default_rng(1))
    classifier = MemoryClassifier(backend=backend, neighbors=72).fit(rows, labels)
    rest = MemoryClassifier(backend=backend, neighbors=72).fit(rows[labels != 2], labels[labels != 2])
    state = classifier._store.backend.to_numpy(classifier._store.state)
    assert classifier.forget(2) == 12
    assert len(classifier) == 60
    assert classifier.classes_.tolist() == [0, 1, 3, 4, 5]
    np.testing.assert_allclose(classifier.predict_proba(rows), rest.predict_proba(rows), atol=1e-6)
    classifier.save(tmp_path / "c.safetensors")
    content = (tmp_path / "c.safetensors").read_bytes()
    assert [key.tobytes() in content for key in state["keys"]] == (labels != 2).tolist()
    assert (np.isin(np.arange(72), classifier.kneighbors(rows, 60).ids) == (labels != 2)).all()
    classifier.partial_fit(rows[:1], [9])
    assert classifier.predict(rows[:1])[0] in (9, labels[0])
    assert classifier.kneighbors(rows[:1], 2).ids[0].tolist().count(72) == 1
    assert classifier.forget(ids=[72]) == 1
    assert 9 not in classifier.classes_
    with pytest.raises(ValueError, match="expected some of `classes_`"):
        classifier.forget("nobody")


def test_a_file_that_is_none_is_one_line(tmp_path):
    classifier = MemoryClassifier().fit(np.eye(2), [0, 1])
    path = tmp_path / "c.safetensors"
    classifier.save(path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(raremem.CheckpointError, match="its checksum does not match its content"):
        MemoryClassifier.load(path)
    config = raremem.MemoryConfig(slots=2, key_dim=2)
    raremem.save(path, config, raremem.get_backend("numpy").init(config))
    with pytest.raises(raremem.CheckpointError, match=r"written by raremem.save or Memory.save"):
        MemoryClassifier.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(raremem.CheckpointError, match="no whole file of MemoryClassifier"):
        MemoryClassifier.load(path)
    with pytest.raises(FileNotFoundError):
        MemoryClassifier.load(tmp_path / "nowhere")


def test_a_slot_limit_evicts_and_merging_needs_fewer_slots():
    rows, labels = clusters(np.random.default_rng(2), rows=40)
    assert len(MemoryClassifier(slots=20).fit(rows, labels)) == 20
    assert len(MemoryClassifier().fit(rows, labels)) == 240
    merged = MemoryClassifier(write="merge", neighbors=1).fit(rows, labels)
    assert len(merged) < 120
    assert merged.score(rows, labels) > 0.8


@pytest.mark.parametrize(
    "wrong", [{"projection": "pca"}, {"unknown": 0.0}, {"unknown": 1}, {"write": "drop"}, {"neighbors": 0}]
)
def test_wrong_parameters_are_refused_by_fit(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MemoryClassifier(**wrong).fit(np.eye(2), [0, 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_it_holds(backend):
    classifier = MemoryClassifier(slots=4, backend=backend).fit([[1.0, 0.0], [0.0, 1.0]], ["right", "up"])
    classifier.forget("right")
    held = classifier.partial_fit([[-1.0, 0.0]], ["left"]).contents()
    assert held.config.slots == len(held.ids) == 4
    slots = np.flatnonzero(held.portable["filled"])
    found = {int(held.ids[slot]): held.labels[int(held.portable["values"][slot])] for slot in slots}
    assert found == {1: "up", 2: "left"}
    held.ids[:], held.portable["keys"][:] = 9, 0
    assert classifier.predict([[-0.9, 0.1]]) == ["left"]
    assert 9 not in classifier.contents().ids
