"""What `MemoryClassifier` chooses by what it is shown: a temperature, whether a map helps, and what is unknown."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits

import raremem
from raremem.adapters.sklearn import MemoryClassifier, learned_map, temperatures
from raremem.rules.loss import loss_of

BACKENDS = ["numpy", "torch", "jax"]


def clusters(generator, classes=6, rows=12, dim=16, spread=0.6):
    """Rows about a direction for each class, and their labels, in a mixed order."""
    centers = generator.normal(size=(classes, dim))
    labels = generator.permutation(np.repeat(np.arange(classes), rows))
    return centers[labels] + spread * generator.normal(size=(len(labels), dim)), labels


class Stream:
    """Known rows and unknown ones, of classes about directions of their own."""

    def __init__(self, seed, classes=30, dim=32):
        self.generator = np.random.default_rng(seed)
        self.centers = self.generator.normal(size=(classes, dim))

    def draw(self, count, drift=0.0):
        labels = self.generator.integers(len(self.centers), size=count)
        return self.centers[labels] + (0.8 + drift) * self.generator.normal(size=(count, self.centers.shape[1])), labels


def test_the_temperature_has_a_loss_close_to_the_least_of_examples_each_left_out():
    rows, labels = clusters(np.random.default_rng(11), classes=4, rows=6, dim=5, spread=0.8)

    def loss(temperature):
        every = np.arange(len(rows))
        lost = []
        for row in every:
            others = MemoryClassifier(temperature=temperature).fit(rows[every != row], labels[every != row])
            lost.append(-np.log(0.99 * others.predict_proba(rows[row : row + 1])[0, labels[row]] + 0.01))
        return np.mean(lost)

    losses = {temperature: loss(temperature) for temperature in temperatures.CHOICES}
    chosen = MemoryClassifier().fit(rows, labels).temperature_
    least = min(losses.values())
    close = [temperature for temperature, lost in losses.items() if lost <= max(1.05 * least, least + 0.01)]
    assert chosen == min(close, key=lambda temperature: abs(np.log(temperature / 20)))
    assert chosen not in (20, min(losses, key=losses.get))
    assert all(abs(lost / least - 1.05) > 0.001 for lost in losses.values())
    assert MemoryClassifier(temperature=7.0).fit(rows, labels).temperature_ == 7


@pytest.mark.parametrize(("write", "mixed", "by_class"), [("keep", 0.97, 0.97), ("merge", 0.955, 0.855)])
def test_raw_pixels_are_answered_well_however_they_come(write, mixed, by_class):
    """At a temperature of 20, merged: 0.942, and 0.828 class by class."""
    rows, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(rows))
    rows, labels = rows[order], labels[order]
    at_once = MemoryClassifier(write=write).fit(rows[:1000], labels[:1000])
    little_by_little = MemoryClassifier(write=write)
    class_by_class = MemoryClassifier(write=write)
    for start in range(0, 1000, 10):
        little_by_little.partial_fit(rows[start : start + 10], labels[start : start + 10])
    for label in range(10):
        mine = labels[:1000] == label
        class_by_class.partial_fit(rows[:1000][mine], labels[:1000][mine])
    for classifier, least in ((at_once, mixed), (little_by_little, mixed), (class_by_class, by_class)):
        assert classifier.score(rows[1000:], labels[1000:]) > least


def test_a_new_temperature_moves_the_threshold_and_a_given_one_does_not_move():
    rows, labels = clusters(np.random.default_rng(2), classes=8, rows=20, spread=0.3)
    rows += 3  # now all point one way, as pixels do
    chosen, given = MemoryClassifier(unknown=0.1), MemoryClassifier(unknown=0.1, temperature=20.0)
    seen = set()
    for start in range(0, len(rows), 5):
        for classifier in (chosen, given):
            classifier.partial_fit(rows[start : start + 5], labels[start : start + 5])
        seen.add(chosen.temperature_)
        refused = chosen.evidence(rows[: start + 5]) < chosen.threshold_
        assert refused.mean() < 0.5
    assert len(seen) > 1
    assert given.temperature_ == 20


@pytest.mark.parametrize("backend", BACKENDS)
def test_rounding_chooses_no_temperature(backend):
    """Where all neighbors have one label every temperature has the same loss, but for the rounding of a sum of weights."""
    for seed in range(5):
        rows = np.random.default_rng(seed).normal(size=(50, 16))
        assert MemoryClassifier(backend=backend).fit(rows, ["a"] * 50).temperature_ == temperatures.DEFAULT


def test_what_was_forgotten_does_not_hold_the_temperature():
    rows, labels = clusters(np.random.default_rng(3), rows=100, spread=0.5)
    rows += 3  # now all point one way, as pixels do
    others, of_others = clusters(np.random.default_rng(4), rows=20, spread=2.0)
    fresh, classifier = MemoryClassifier().fit(others, of_others), MemoryClassifier().fit(rows, labels)
    assert classifier.temperature_ > 2 * fresh.temperature_
    classifier.forget(classifier.classes_)
    assert classifier.partial_fit(others, of_others).temperature_ == fresh.temperature_


def test_a_life_of_partial_fit_begins_with_a_threshold_whichever_temperature_is_chosen():
    chosen = set()
    for mean in (0, 3):
        rows, labels = clusters(np.random.default_rng(2), classes=30, rows=20, spread=0.3)
        rows += mean
        classifier = MemoryClassifier(unknown=0.05).partial_fit(rows, labels)
        assert classifier.threshold_ == MemoryClassifier(unknown=0.05).fit(rows, labels).threshold_ > -np.inf
        chosen.add(classifier.temperature_)
    assert temperatures.DEFAULT in chosen
    assert len(chosen) == 2


def test_the_map_is_trained_by_the_memorys_own_loss():
    """Its loss is that of a memory of all other rows, and its gradient that of rule 3, by the query and by the keys."""
    import torch

    generator = np.random.default_rng(3)
    rows, labels = clusters(generator, classes=3, rows=3, dim=5)
    rows, labels = np.r_[rows, generator.normal(size=(1, 5))].astype(np.float32), np.r_[labels, 3].astype(np.int32)
    weight = torch.tensor(generator.normal(size=(5, 4)), dtype=torch.float32, requires_grad=True)
    keys = torch.nn.functional.normalize(torch.tensor(rows) @ weight)
    config = raremem.MemoryConfig(slots=9, key_dim=4, neighbors=9, loss="nll", softmax_temperature=7.0, write="keep")
    backend = raremem.get_backend("torch")
    of_memories, of_rule = [], []
    for row in range(9):  # the last is alone in its class, and is not asked
        others, target = np.delete(np.arange(10), row), torch.tensor(labels[row : row + 1])
        state, _ = backend.update(config, backend.init(config), keys[others].detach(), torch.tensor(labels[others]))
        found = backend.query(config, state, keys[row : row + 1].detach(), target)
        of_memories.append(float(found.loss[0]))
        similarities = (keys[row] @ keys[others].T)[found.slots]
        positive = similarities.where(found.values == target, torch.tensor(-1.0)).amax(dim=1)
        of_rule.append(loss_of(backend.primitives, config, similarities, found.values, target, positive)[0])
    torch.stack(of_rule).mean().backward()
    loss, gradient = learned_map.loss_and_gradient(rows, labels, weight.detach().numpy(), 7.0)
    assert loss == pytest.approx(np.mean(of_memories), rel=1e-5)
    np.testing.assert_allclose(gradient, weight.grad.numpy(), rtol=1e-4, atol=1e-5)


def rotated(generator, classes, rows, dim=24, noise_dims=18):
    """Classes differ in a few directions; in the others there is much that all share."""
    rows_, labels = clusters(generator, classes, rows, dim - noise_dims, spread=0.3)
    turn = np.linalg.qr(generator.normal(size=(dim, dim)))[0]
    return np.c_[rows_, 2.0 * generator.normal(size=(len(rows_), noise_dims))] @ turn, labels


def test_a_map_is_learned_where_it_helps_and_only_there(monkeypatch):
    generator = np.random.default_rng(0)
    rows, labels = rotated(generator, classes=10, rows=20)
    mapped = MemoryClassifier(projection="learned", random_state=0).fit(rows[:100], labels[:100])
    plain = MemoryClassifier().fit(rows[:100], labels[:100])
    assert mapped.map_ is not None
    assert mapped.score(rows[100:], labels[100:]) > plain.score(rows[100:], labels[100:]) + 0.1
    bad = learned_map.LearnedMap(np.ones((24, 25), np.float32), np.zeros(25, np.float32))  # all rows are alike
    monkeypatch.setattr("raremem.adapters.sklearn.held_out.learn", lambda *arguments: bad)
    easy, kinds = np.eye(10, 24)[np.arange(100) % 10] + 0.1 * generator.normal(size=(100, 24)), np.arange(100) % 10
    plain = MemoryClassifier().fit(easy, kinds)
    assert plain.score(easy, kinds) == 1
    for seed in range(5):
        refused = MemoryClassifier(projection="learned", random_state=seed).fit(easy, kinds)
        assert refused.map_ is None
        assert (refused.predict_proba(easy) == plain.predict_proba(easy)).all()
    monkeypatch.undo()
    assert MemoryClassifier(projection="learned").fit(rows[:4], np.arange(4)).map_ is None
    assert MemoryClassifier(projection="learned").fit(rows[:4], np.zeros(4, int)).map_ is None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("projection", [None, "learned"])
def test_every_way_to_keep_a_classifier(backend, projection, tmp_path):
    rows, labels = rotated(np.random.default_rng(0), classes=10, rows=20)
    first = {"projection": projection, "unknown": 0.1, "backend": backend, "random_state": 0}
    classifier = MemoryClassifier(**first).fit(rows[:100], labels[:100]).partial_fit(rows[100:110], labels[100:110])
    classifier.save(tmp_path / "c.safetensors")
    other, lives = MemoryClassifier.load(tmp_path / "c.safetensors", backend="numpy"), []
    for again in (pickle.loads(pickle.dumps(classifier)), MemoryClassifier.load(tmp_path / "c.safetensors"), other):
        assert (again.predict(rows) == classifier.predict(rows)).all()
        assert again.threshold_ == classifier.threshold_
        before, after = again.kneighbors(rows[:9]), classifier.kneighbors(rows[:9])
        assert (before.ids == after.ids).all()
        assert again.temperature_ == classifier.temperature_
        again.partial_fit(rows[110:], labels[110:] + 5)
        assert len(again) == 200
        assert again.classes_.tolist() == list(range(15))
        lives.append((again.temperature_, again.threshold_))
    assert clone(classifier).get_params() == classifier.get_params()
    assert len(classifier) == 110
    classifier.partial_fit(rows[110:], labels[110:] + 5)
    assert lives == [(classifier.temperature_, classifier.threshold_)] * 3


def test_classes_that_are_announced_are_not_known_before_they_have_an_example():
    stream = Stream(7)
    classifiers = [MemoryClassifier(unknown=0.05, neighbors=5, temperature=40.0) for _ in range(2)]
    rows, labels = stream.draw(1000)
    for classifier, announced in zip(classifiers, (None, np.arange(30)), strict=True):
        classifier.partial_fit(rows[labels < 3], labels[labels < 3], classes=announced)
        for label in range(3, 30):
            classifier.partial_fit(rows[labels == label], labels[labels == label])
    assert classifiers[0].threshold_ == classifiers[1].threshold_


@pytest.mark.parametrize("projection", [None, "learned"])
@pytest.mark.parametrize("drift", [0.0, 0.4])
def test_the_share_refused_holds_over_hundreds_of_updates(projection, drift):
    stream, refused, unknown = Stream(4), [], np.random.default_rng(5).normal(size=(300, 32))
    classifier = MemoryClassifier(unknown=0.05, projection=projection, random_state=0).fit(*stream.draw(300))
    for _ in range(800):
        row, label = stream.draw(1, drift)
        refused.append(classifier.predict(row)[0] == -1)
        classifier.partial_fit(row, label)
    assert 0.03 <= np.mean(refused) <= 0.07
    assert 0.03 <= np.mean(refused[400:]) <= 0.07
    assert (classifier.predict(unknown) == -1).mean() > 0.5


def test_rows_that_calibrate_are_refused_as_often_as_was_asked():
    stream = Stream(6)
    classifier = MemoryClassifier(unknown=0.05).fit(*stream.draw(300))
    rows, _ = stream.draw(2000)
    classifier.calibrate(rows)
    assert (classifier.predict(rows) == -1).mean() == pytest.approx(0.05, abs=0.001)
    assert (classifier.predict(stream.draw(2000)[0]) == -1).mean() == pytest.approx(0.05, abs=0.02)
    assert classifier.predict(np.zeros((1, 32)))[0] == -1
    with pytest.raises(ValueError, match=r"say unknown=0\.05"):
        MemoryClassifier().fit(rows, rows[:, 0] > 0).calibrate(rows)


def test_the_label_of_the_unknown():
    rows, labels = np.eye(2), ["a", "b"]
    far = -np.ones((1, 2))
    assert MemoryClassifier(unknown=0.5).fit(rows, labels).calibrate(rows).predict(far).tolist() == ["unknown"]
    other = MemoryClassifier(unknown=0.5, unknown_label="nobody knows").fit(rows, labels).calibrate(rows)
    assert other.predict(far).tolist() == ["nobody knows"]
    with pytest.raises(ValueError, match="expected another"):
        MemoryClassifier(unknown=0.5, unknown_label="a").fit(rows, labels).predict(rows)


@pytest.mark.parametrize(
    ("labels", "label", "expected"),
    [
        (["a", "b"], -1, "expected one of texts, as `classes_` are"),
        ([0, 1], "none", "expected one of numbers, as `classes_` are"),
        (np.array(["a", "b"], object), -1, -1),
        (np.array([0, 1], np.uint64), -1, -1),
        (np.array([2**63 + 1, 1], np.uint64), -1, "are not told apart"),
        (np.array([2**63, 1], np.uint64), 7, 7),
        ([True, False], None, -1),
    ],
)
def test_the_label_of_the_unknown_leaves_the_others_what_they_are(labels, label, expected):
    classifier = MemoryClassifier(unknown=0.5, unknown_label=label).fit(np.eye(2), labels).calibrate(np.eye(2))
    asked = np.r_[np.eye(2), -np.ones((1, 2))]
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            classifier.predict(asked)
    else:
        assert classifier.predict(asked).tolist() == [*labels, expected]
