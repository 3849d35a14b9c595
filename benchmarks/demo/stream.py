"""The stream: new characters, one at a time, each asked for and then learned, by the memory and by three baselines.

No one knows how often a class will come, or when. On the first showing of a class nobody can be right.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import raremem
from raremem.backend import Backend
from raremem.benchmarks.online.classifiers import Rows, RowStore, SoftmaxHead, Store, showings_and_lags
from raremem.benchmarks.progress import progress


@dataclass(frozen=True)
class Stream:
    """What is shown: for each step the class, which showing of it this is (from 1), and how long ago the last one was."""

    classes: NDArray[np.int32]
    examples: NDArray[np.int32]
    showing: NDArray[np.int32]
    lag: NDArray[np.int32]


def shuffled_stream(seed: int, classes: int, examples: int) -> Stream:
    """All examples of all classes, in random order."""
    order = np.random.default_rng([seed, 2]).permutation(classes * examples)
    shown, example = (order // examples).astype(np.int32), (order % examples).astype(np.int32)
    return Stream(shown, example, *showings_and_lags(shown))


@dataclass
class Recall:
    """What the memory did at a step, for the gallery: the steps at which its neighbors were last written."""

    step: int
    answer: int
    neighbor_steps: list[int]
    labels: list[int]
    similarities: list[float]
    ages: list[int]


@dataclass
class Answers:
    """The answers [steps] of the memory and of each baseline, by name; -1 where there was none."""

    by_method: dict[str, NDArray[np.int32]]
    recalls: list[Recall] = field(default_factory=list)


def run_stream(
    backend: Backend, config: raremem.MemoryConfig, stream: Stream, embeddings: Rows, pixels: Rows, keep: int
) -> Answers:
    """Show the stream to everyone. embeddings [steps, key_dim] and pixels [steps, 784] are what each step shows.

    The last `keep` steps are kept for the gallery.
    """
    classes = int(stream.classes.max()) + 1
    names = ("raremem", "softmax head", "FIFO memory", "pixel neighbors")
    answers = Answers({name: np.full(len(stream.classes), -1, np.int32) for name in names})
    memory = _Memory(backend, config)
    head = SoftmaxHead(classes, config.key_dim)
    fifo, nearest_pixels = RowStore(config.slots, config.key_dim), RowStore(config.slots, pixels.shape[1])
    unit_pixels = pixels / np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-6)
    for step in progress(range(len(stream.classes)), "stream"):
        label = int(stream.classes[step])
        recall = memory.ask_and_learn(embeddings[step], label, step)
        if step >= len(stream.classes) - keep:
            answers.recalls.append(recall)
        shown = (
            recall.answer,
            _ask_and_learn(head, embeddings[step], label),
            _ask_and_learn(fifo, embeddings[step], label),
            _ask_and_learn(nearest_pixels, unit_pixels[step], label),
        )
        for name, answer in zip(names, shown, strict=True):
            answers.by_method[name][step] = answer
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


def _ask_and_learn(store: Store, row: Rows, label: int) -> int:
    answer = int(store.ask(row[None])[0])
    store.learn(row[None], np.array([label], np.int32))
    return answer
