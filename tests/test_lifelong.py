"""The life-long stream on a tiny scale: the memory beats what forgets, and what it forgets itself is counted."""

from dataclasses import replace

import numpy as np
import pytest

import raremem
from raremem.benchmarks.online.classifiers import BufferClassifier
from raremem.benchmarks.online.stream import class_stream
from raremem.benchmarks.tasks import lifelong
from raremem.benchmarks.tasks.lifelong import answers_of_all, classes_of_pass, findings, make_stream

SLOTS = 40


@pytest.fixture(scope="module")
def shown():
    """40 classes, a prototype each; some absent for long."""
    generator = np.random.default_rng(0)
    prototypes = generator.normal(size=(40, 16)).astype(np.float32)
    labels = [generator.permutation(np.repeat(classes_of_pass(number, 40, 8), 8)) for number in range(15)]
    classes = np.concatenate(labels).astype(np.int32)
    rows = prototypes[classes] + 0.35 * generator.normal(size=(len(classes), 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return class_stream(classes), rows


def accuracy(stream, answers, name, rows=None):
    rows = stream.showing > 1 if rows is None else rows
    return 100 * (answers[name, SLOTS].given == stream.classes)[rows].mean()


def check(stream, answers):
    assert accuracy(stream, answers, "raremem") > accuracy(stream, answers, "FIFO") + 2
    assert accuracy(stream, answers, "raremem, least_hit") > accuracy(stream, answers, "FIFO") + 2
    long_ago = (stream.lag > 1000) & (stream.showing > 1)
    assert accuracy(stream, answers, "raremem, least_hit", long_ago) > accuracy(stream, answers, "raremem", long_ago) + 20


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_memory_beats_the_baselines(backend, shown):
    stream, rows = shown
    answers = answers_of_all(raremem.get_backend(backend), stream, rows, (SLOTS,), 0)
    check(stream, answers)
    found = findings(stream, answers, {"minutes": 0.0})
    assert found.headline[f"raremem, {SLOTS} slots, all but 1st, %"] == pytest.approx(
        accuracy(stream, answers, "raremem"), abs=1
    )
    assert len(found.plots()) == 1
    first = found.tables["Right answers by showing of the class, %"]
    assert [float(row[1]) for row in first[2:6]] == [0.0] * 4


def test_that_check_can_fail(shown, monkeypatch):
    stream, rows = shown

    class Forgetful(lifelong.RarememClassifier):
        def learn(self, rows, labels):
            self.state = self.backend.init(self.config)
            super().ask(rows)
            super().learn(rows, labels)

    monkeypatch.setattr(lifelong, "RarememClassifier", Forgetful)
    with pytest.raises(AssertionError):
        check(stream, answers_of_all(raremem.get_backend("numpy"), stream, rows, (SLOTS,), 0))


def test_every_class_comes_in_the_first_pass_and_rare_ones_stay_away():
    assert len(classes_of_pass(0, 659, 100)) == 659
    assert len(classes_of_pass(1, 659, 100)) == 259
    steps = 20 * sum(len(classes_of_pass(number, 659)) for number in range(lifelong.PASSES))
    assert steps >= 100_000


def test_passes_are_distorted_anew():
    images = np.random.default_rng(0).random((6, 4, 28, 28)).astype(np.float32)
    shown = []

    def embed(pictures):
        shown.append(pictures)
        return pictures.reshape(len(pictures), -1)

    stream, _ = make_stream(embed, images, seed=0, passes=2, rare_classes=1)
    assert len(stream) == 24 + 8
    assert np.array_equal(np.sort(shown[0].ravel()), np.sort(images.ravel()))
    assert not np.isin(shown[1].ravel(), images).all()


def test_a_reservoir_is_an_even_sample():
    places = np.zeros(40)
    for seed in range(300):
        store = BufferClassifier(10, 1, reservoir=True, seed=seed)
        store.learn(np.ones((40, 1), np.float32), np.arange(40, dtype=np.int32))
        places[store.labels] += 1
    assert np.abs(places / 300 - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 300)


def test_configs_differ_by_what_they_evict():
    config = raremem.MemoryConfig(slots=4, key_dim=2)
    assert replace(config, evict="least_hit") != config
