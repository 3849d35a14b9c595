"""The demo's stream: the memory and three baselines classify new characters one at a time, and learn each one after it.

No one knows how often a class will come, or when. On the first showing of a class nobody can be right.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import raremem
from raremem.backend import Backend
from raremem.benchmarks.online.classifiers import BufferClassifier, OnlineClassifier, Rows, SoftmaxHead
from raremem.benchmarks.online.stream import ClassStream, Labels, class_stream
from raremem.benchmarks.progress import progress


def shuffled_stream(seed: int, classes: int, examples: int) -> tuple[ClassStream, Labels]:
    """All examples of all classes in random order, and which example [steps] of its class each step shows."""
    order = np.random.default_rng([seed, 2]).permutation(classes * examples)
    return class_stream((order // examples).astype(np.int32)), (order % examples).astype(np.int32)


@dataclass
class Recall:
    """The memory's answer at a step, and the neighbors behind it, with the steps at which they were last written."""

    step: int
    answer: int
    neighbor_steps: list[int]
    labels: list[int]
    similarities: list[float]
    ages: list[int]


@dataclass
class DemoAnswers:
    """The answers [steps] of the memory and of each baseline, by name; -1 where there was none."""

    by_method: dict[str, NDArray[np.int32]]
    recalls: list[Recall] = field(default_factory=list)


def run_stream(
    backend: Backend, config: raremem.MemoryConfig, stream: ClassStream, embeddings: Rows, pixels: Rows, keep: int
) -> DemoAnswers:
    """Show the stream to the memory and to the baselines, as embeddings [steps, key_dim] and pixels [steps, 784].

    The last `keep` steps are kept for the gallery.
    """
    unit_pixels = pixels / np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-6)
    baselines: dict[str, tuple[OnlineClassifier, Rows]] = {
        "softmax head": (SoftmaxHead(int(stream.classes.max()) + 1, config.key_dim), embeddings),
        "FIFO memory": (BufferClassifier(config.slots, config.key_dim), embeddings),
        "pixel neighbors": (BufferClassifier(config.slots, pixels.shape[1]), unit_pixels),
    }
    memory = _Memory(backend, config)
    answers = DemoAnswers({name: np.full(len(stream), -1, np.int32) for name in ("raremem", *baselines)})
    for step in progress(range(len(stream)), "stream"):
        label = int(stream.classes[step])
        recall = memory.ask_and_learn(embeddings[step], label, step)
        if step >= len(stream) - keep:
            answers.recalls.append(recall)
        answers.by_method["raremem"][step] = recall.answer
        for name, (classifier, rows) in baselines.items():
            answers.by_method[name][step] = classifier.ask(rows[step : step + 1])[0]
            classifier.learn(rows[step : step + 1], stream.classes[step : step + 1])
    return answers


class _Memory:
    """raremem, through the functional interface that every backend has."""

    def __init__(self, backend: Backend, config: raremem.MemoryConfig) -> None:
        self.backend, self.config, self.state = backend, config, backend.init(config)
        self.written_at = np.zeros(config.slots, np.int64)

    def ask_and_learn(self, row: Rows, label: int, step: int) -> Recall:
        query, target = row[None], np.array([label], np.int32)
        found = self.backend.query(self.config, self.state, query, target)
        values, slots, similarities = (np.asarray(column[0]) for column in (found.values, found.slots, found.similarities))
        there = slots >= 0
        steps = self.written_at[slots[there]]
        recall = Recall(
            step,
            int(values[0]),
            steps.tolist(),
            values[there].tolist(),
            similarities[there].tolist(),
            (step - steps).tolist(),
        )
        self.state, report = self.backend.update(self.config, self.state, query, target, None, found)
        self.written_at[int(report.slots[0])] = step
        return recall
