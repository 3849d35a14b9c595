"""Omniglot by the paper's protocol: one network, trained through the memory, tested on characters it was never trained on.

Trained on the 964 background characters, each also turned by 90, 180 and 270 degrees; tested on the 659 evaluation
characters as they are: 5-way and 20-way, 1-shot and 5-shot. The last 100 background characters are held out of training, and
the curve over training time is measured on them; the test characters are looked at once, at the end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import raremem
from raremem.benchmarks.characters import Images, load_omniglot
from raremem.benchmarks.embedding.recipe import Learner, Recipe, episodes, make_learner
from raremem.benchmarks.pages import Table, fact_list, html_table, inline_svg, page
from raremem.benchmarks.progress import progress
from raremem.benchmarks.training import Snapshot, resume, snapshot

SETTINGS = ((5, 1), (5, 5), (20, 1), (20, 5))
"""(way, shots)"""
PUBLISHED = {"paper (Kaiser et al., ICLR 2017)": (98.4, 99.6, 95.0, 98.6)}
HELD_OUT = 100
MEASUREMENTS = 20
WARM_UP = 5
TRIAL = 25


@dataclass(frozen=True)
class Accuracy:
    """Accuracy in % of one setting, and half the width of its 95 % interval over episodes."""

    way: int
    shots: int
    percent: float
    half_interval: float

    def __str__(self) -> str:
        return f"{self.percent:.2f} ± {self.half_interval:.2f}"


def few_shot(backend: raremem.Backend, embedded: NDArray[np.float32], way: int, shots: int, count: int, seed: int) -> Accuracy:
    """Accuracy over `count` episodes on embedded characters [class, example, key_dim].

    In each episode an empty memory is shown `shots` examples of each of `way` classes, one after the other, and then asked for
    one more example of each; its answer is the value of the nearest neighbor.
    """
    config = raremem.MemoryConfig(slots=way * shots, key_dim=embedded.shape[2], neighbors=1)
    generator = np.random.default_rng([seed, way, shots])
    labels = np.arange(way, dtype=np.int32)
    right = np.empty(count)
    for episode in range(count):
        classes = generator.choice(len(embedded), way, replace=False)
        examples = np.stack([generator.permutation(embedded.shape[1])[: shots + 1] for _ in classes])
        rows = embedded[classes[:, None], examples]
        state = backend.init(config)
        for shot in range(shots):
            state, _ = backend.update(config, state, rows[:, shot], labels)
        answers = np.asarray(backend.query(config, state, rows[:, shots]).values)[:, 0]
        right[episode] = (answers == labels).mean()
    return Accuracy(way, shots, 100 * right.mean(), 100 * 1.96 * right.std(ddof=1) / np.sqrt(count))


def measure(backend: raremem.Backend, learner: Learner, images: Images, count: int, seed: int) -> list[Accuracy]:
    """All four settings on characters [class, example, 28, 28]."""
    embedded = learner.embed(images.reshape(-1, *images.shape[2:])).reshape(*images.shape[:2], -1)
    return [few_shot(backend, embedded, way, shots, count, seed) for way, shots in SETTINGS]


@dataclass
class Outcome:
    """What a run gives: the settings, the curve on held-out characters, the test figures, and the minutes of training."""

    recipe: Recipe
    curve: list[dict[str, Any]]
    test: list[Accuracy]
    minutes: float

    def table(self) -> Table:
        """Our figures beside the published ones."""
        return [
            ["", *(f"{way}-way {shots}-shot" for way, shots in SETTINGS)],
            ["raremem", *map(str, self.test)],
            *([source, *(f"{percent:.2f}" for percent in figures)] for source, figures in PUBLISHED.items()),
        ]

    def html(self, facts: dict[str, str]) -> str:
        """The page of the report."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.subplots()
        for place, (way, shots) in enumerate(SETTINGS):
            points = [(point["minutes"], point["accuracy"][place]) for point in self.curve]
            axes.plot(*zip(*points, strict=True), marker="o", label=f"{way}-way {shots}-shot")
        axes.set(xlabel="minutes of training", ylabel="accuracy on held-out characters, %")
        axes.grid(alpha=0.3)
        axes.legend()
        return page(
            "raremem: Omniglot",
            f"{fact_list(facts)}{html_table(self.table())}<p>Accuracy in % on the test characters, with 95 % intervals over "
            f"episodes; {self.minutes:.1f} minutes of training.</p>{inline_svg(figure)}",
        )


def run(backend: str, data: Path, out: Path, minutes: float, seed: int = 0, test_episodes: int = 1000) -> Outcome:
    """Train for about `minutes`, then test. A run that was stopped goes on from its last snapshot in `out`.

    Args:
        backend: "torch" or "jax".
        data: a folder with Omniglot.
        out: the folder for snapshots and results.
        minutes: of training, from which the number of episodes is worked out by a short trial.
        seed: of everything that is random.
        test_episodes: episodes of each setting at the end.

    Raises:
        DataError: `data` is not Omniglot.
        MissingPackageError: the framework or the extra `bench` is not installed.
    """
    omniglot = load_omniglot(data)
    train, held_out = omniglot.train[:-HELD_OUT], omniglot.train[-HELD_OUT:]
    last = resume(out / f"omniglot-{backend}.safetensors")
    steps = last.steps if last else _steps_in(backend, train, minutes, seed)
    recipe = _recipe(steps, seed)
    learner = make_learner(backend, recipe)
    if last:
        learner.from_numpy(last.content)
        print(f"going on from episode {last.done} of {last.steps}")
    done, spent, curve = (last.done, last.seconds, last.curve) if last else (0, 0.0, [])

    numpy_backend = raremem.get_backend("numpy")
    every = max(1, steps // MEASUREMENTS)
    upcoming = episodes(recipe, train, done)
    started = time.perf_counter()
    for step in progress(range(done, steps), "training"):
        loss = learner.learn(*next(upcoming))
        if (step + 1) % every == 0:
            spent += time.perf_counter() - started
            figures = measure(numpy_backend, learner, held_out, 200, seed)
            percents = [accuracy.percent for accuracy in figures]
            curve.append({"minutes": spent / 60, "episodes": step + 1, "loss": loss, "accuracy": percents})
            snapshot(out / f"omniglot-{backend}.safetensors", Snapshot(step + 1, steps, spent, curve, learner.to_numpy()))
            started = time.perf_counter()
    spent += time.perf_counter() - started
    test = measure(raremem.get_backend(backend), learner, omniglot.test, test_episodes, seed)
    return Outcome(recipe, curve, test, spent / 60)


def _recipe(steps: int, seed: int) -> Recipe:
    return Recipe(steps=steps, classes=48, channels=(1, 64, 64, 64), distorted=True, seed=seed)


def _steps_in(backend: str, train: Images, minutes: float, seed: int) -> int:
    """How many episodes fit in these minutes, by a short trial."""
    recipe = _recipe(WARM_UP + TRIAL, seed)
    learner = make_learner(backend, recipe)
    started = 0.0
    for step, episode in enumerate(episodes(recipe, train)):
        if step == WARM_UP:
            started = time.perf_counter()
        learner.learn(*episode)
    return max(MEASUREMENTS, int(60 * minutes * TRIAL / (time.perf_counter() - started)))
