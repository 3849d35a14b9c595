"""What scikit-learn's users expect of `MemoryClassifier`, and what it adds."""

import json
import sys

import numpy as np
import pytest
import safetensors.numpy
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

import raremem
from raremem.adapters.sklearn import MemoryClassifier, files

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
    ("parameters", "rows", "labels", "message"),
    [
        ({}, np.eye(3), [0.5, 1.5, 2.5], "Unknown label type"),
        ({}, np.full((3, 3), np.nan), ["c", "d", "e"], "NaN"),
        ({"backend": "nobody"}, np.eye(3)[:, :2] + 1, ["c", "d", "e"], "no backend"),
        ({"random_state": "none"}, np.eye(3), ["c", "d", "e"], "cannot be used to seed"),
    ],
)
def test_a_fit_of_what_is_refused_leaves_what_was_learned(parameters, rows, labels, message):
    classifier = MemoryClassifier().fit(np.eye(2), ["a", "b"])
    with pytest.raises(ValueError, match=message):
        classifier.set_params(**parameters).fit(rows, labels)
    classifier.set_params(**MemoryClassifier().get_params())
    assert classifier.partial_fit(-np.eye(2), ["a", "b"]).predict(np.eye(2)).tolist() == ["a", "b"]
    assert classifier.classes_.tolist() == ["a", "b"]
    new = MemoryClassifier(**parameters)
    with pytest.raises(ValueError, match=message):
        new.partial_fit(rows, labels)
    with pytest.raises(NotFittedError):
        len(new)


def test_an_interrupted_fit_leaves_what_was_learned(monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    classifier, rows, labels = (
        MemoryClassifier().fit(np.eye(2), ["a", "b"]),
        np.eye(16),
        np.array(["c", "d"])[np.arange(16) % 2],
    )
    with monkeypatch.context() as patch:
        patch.setattr("raremem.adapters.sklearn.classifier.learn", interrupted)
        patch.setattr("raremem.adapters.sklearn.held_out.learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            classifier.set_params(projection="learned").fit(rows, labels)
    assert classifier.predict(np.eye(2)).tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("labels", "wrong", "message"),
    [
        (np.arange(21), {"labels": "9"}, "labels has labels of dtype <U1"),
        (np.arange(21).astype(str), {"labels": 9}, "labels has labels of dtype int64"),
        (np.arange(21), {"labels": np.arange(21) > 15}, "labels has labels of dtype bool"),
        (np.arange(21), {"ids": np.arange(21) > 15}, "ids is of dtype bool"),
        (np.arange(21), {"ids": "9"}, "ids is of dtype <U1"),
    ],
)
def test_what_only_looks_like_labels_or_ids_is_not_forgotten(labels, wrong, message):
    classifier = MemoryClassifier().fit(np.eye(21), labels)
    with pytest.raises(ValueError, match=message):
        classifier.forget(**wrong)
    assert len(classifier) == len(classifier.classes_) == 21
    assert classifier.forget([], ids=[]) == 0


BIG = 2**53
"""From here on f64 leaves whole numbers out."""


@pytest.mark.parametrize(
    ("labels", "more", "expected"),
    [
        (np.array([BIG, BIG + 1]), np.array([1.0]), [BIG, BIG + 1, 1]),
        (np.array([BIG, BIG + 1]), np.array([1], np.uint64), [BIG, BIG + 1, 1]),
        (np.array([2**63, 2**63 + 1], np.uint64), np.array([1]), [2**63, 2**63 + 1, 1]),
        (np.array([1.0, 2.0]), np.array([3], np.uint8), [1, 2, 3]),
        (np.array([1, 2], np.uint8), np.array([-1]), [1, 2, -1]),
        (np.array(["a", "b"]), np.array(["longer"], object), ["a", "b", "longer"]),
        (np.array([1.0, 2.0]), np.array([BIG + 1]), None),
        (np.array([1, 2**63 + 1], np.uint64), np.array([-1]), None),
    ],
)
def test_labels_that_arrive_in_another_dtype_are_told_apart(labels, more, expected):
    classifier = MemoryClassifier().fit(np.eye(3)[:2], labels)
    if expected is None:
        with pytest.raises(ValueError, match="are not told apart as float64; expected them in the dtype of the first"):
            classifier.partial_fit(np.eye(3)[2:], more)
        assert len(classifier) == 2
        expected = labels.tolist()
    else:
        classifier.partial_fit(np.eye(3)[2:], more)
    assert classifier.predict(np.eye(3)[: len(expected)]).tolist() == expected
    assert classifier.classes_.tolist() == sorted(expected)


@pytest.mark.parametrize("other", [None, 1, b"b"])
def test_texts_and_something_else_are_refused(other):
    mixed = np.array(["a", other], object)
    with pytest.raises(ValueError, match=f"y has {type(other).__name__} in an array of objects; expected texts alone"):
        MemoryClassifier().fit(np.eye(2), mixed)
    classifier = MemoryClassifier().fit(np.eye(2), ["a", "b"])
    with pytest.raises(ValueError, match="expected texts alone"):
        classifier.partial_fit(np.eye(2), mixed)
    with pytest.raises(ValueError, match="expected texts alone"):
        classifier.partial_fit(np.eye(2), ["a", "b"], classes=mixed)
    assert classifier.classes_.tolist() == ["a", "b"]


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
        classifier.forget(77)


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


def rewritten(path, change):
    """Write a classifier's file anew, with another header and the right checksum."""
    with safetensors.safe_open(path, framework="numpy") as file:
        header = json.loads(json.loads(file.metadata()[files.HEADER])[1])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header)
    text = json.dumps(header)
    path.write_bytes(safetensors.numpy.save(arrays, {files.HEADER: json.dumps([files._checksum(text, arrays), text])}))


def test_parameters_set_after_fit_are_not_what_was_fitted(tmp_path):
    rows, labels = clusters(np.random.default_rng(3))
    path = tmp_path / "c.safetensors"
    limited = {"unknown": 0.2, "slots": 72}, {"unknown": None, "slots": None}
    for fitted, later in (limited, ({}, {"unknown": 0.1, "slots": 9})):
        classifier = MemoryClassifier(**fitted, random_state=np.int64(3)).fit(rows, labels).set_params(**later)
        classifier.save(path)
        again = MemoryClassifier.load(path)
        assert again.get_params() == classifier.get_params()
        for each in (classifier, again):
            each.partial_fit(-rows, labels)
        assert len(again) == len(classifier) == (144 if fitted == {} else 72)
        assert again.threshold_ == classifier.threshold_
        assert again.contents().grows == classifier.contents().grows == (fitted == {})


def test_a_classifier_of_schema_2_is_read(tmp_path):
    rows, labels = clusters(np.random.default_rng(3))
    classifier, path = MemoryClassifier(unknown=0.2).fit(rows, labels), tmp_path / "c.safetensors"
    classifier.save(path)

    def older(header):
        header["schema"] = 2
        del header["grows"], header["window"][2]

    rewritten(path, older)
    again = MemoryClassifier.load(path).partial_fit(-rows, labels)
    assert len(again) == 144
    assert again.threshold_ == classifier.partial_fit(-rows, labels).threshold_


def test_a_backend_that_cannot_be_is_no_fault_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    MemoryClassifier(backend="torch").fit(np.eye(2), [0, 1]).save(path)
    with pytest.raises(raremem.UnknownBackendError, match="no backend 'nobody'"):
        MemoryClassifier.load(path, backend="nobody")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(raremem.MissingPackageError, match=r"raremem\[torch\]"):
        MemoryClassifier.load(path)


def test_a_file_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "of_a_stranger.py").write_text("from raremem.adapters.numpy import backend\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "c.safetensors"
    MemoryClassifier().fit(np.eye(2), [0, 1]).save(path)
    rewritten(path, lambda header: header["parameters"].update(backend="of_a_stranger:backend"))
    with pytest.raises(raremem.CheckpointError, match=r"none of raremem's; expected load\(path, backend=...\)"):
        MemoryClassifier.load(path)
    assert "of_a_stranger" not in sys.modules
    assert MemoryClassifier.load(path, backend="of_a_stranger:backend").predict(np.eye(2)).tolist() == [0, 1]


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
