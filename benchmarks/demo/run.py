"""The demo from beginning to end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import raremem
from raremem.benchmarks.data.characters import Characters, draw_characters, need_classes
from raremem.benchmarks.data.omniglot import load_omniglot
from raremem.benchmarks.demo.report import accuracy_by_lag, accuracy_by_showing, as_html
from raremem.benchmarks.demo.stream import DemoAnswers, run_stream, shuffled_stream
from raremem.benchmarks.online.stream import ClassStream
from raremem.benchmarks.packages import need
from raremem.benchmarks.progress import progress
from raremem.benchmarks.report.tables import as_text
from raremem.benchmarks.training.embedding.recipe import SHAPES, Embedder, EmbeddingRecipe, episode, make_embedder
from raremem.command.outputs import check_out, write_file

SLOTS_FOR_EACH_CLASS = 3
GALLERY = 24
REPORT = "report.html"


@dataclass(frozen=True)
class Scale:
    """The size of a demo. Tests use smaller ones."""

    steps: int = 1000
    drawn_train: int = 1000
    drawn_test: int = 150
    test: int | None = None


@dataclass(frozen=True)
class DemoResult:
    """The results of a demo, for callers from Python."""

    stream: ClassStream
    answers: DemoAnswers
    losses: list[float]
    report: Path


def run_demo(backend: str, data: Path | None, out: Path, seed: int = 0, scale: Scale | None = None) -> DemoResult:
    """Train, stream, print the tables, write `out/report.html`.

    Args:
        backend: "torch" or "jax".
        data: a folder with Omniglot, or None to draw characters.
        out: the folder for the report; made if need be.
        seed: of everything that is random.
        scale: smaller sizes than the demo's own.

    Raises:
        ConfigError: the report cannot be written there.
        DataError: `data` is not Omniglot.
        MissingPackageError: the backend, or a package of the extra `bench`, is not installed.
    """
    started = time.perf_counter()
    scale = scale or Scale()
    check_out(out, [REPORT])
    need("the report", "matplotlib", "jinja2")
    recipe = EmbeddingRecipe(steps=scale.steps, seed=seed)
    characters = _characters(data, seed, scale)
    need_classes(characters, train=recipe.classes // SHAPES, test=1)
    learner = make_embedder(backend, recipe)
    print(f"{characters.name} characters: {len(characters.train)} classes to train on, {len(characters.test)} new ones")
    losses = _train(learner, recipe, characters)
    stream, examples = shuffled_stream(seed, *characters.test.shape[:2])
    shown = characters.test[stream.classes, examples]
    config = _memory(len(characters.test), recipe)
    pixels = shown.reshape(len(shown), -1)
    answers = run_stream(raremem.get_backend(backend), config, stream, learner.embed(shown), pixels, GALLERY)
    facts = _facts(backend, characters, config, recipe, len(stream)) | {"wall time": f"{time.perf_counter() - started:.0f} s"}
    write_file(out / REPORT, as_html("raremem: characters seen once", facts, stream, answers, shown))
    print(f"\naccuracy in %, by showing of a class\n{as_text(accuracy_by_showing(stream, answers))}")
    print(f"\naccuracy in %, by how many steps ago the class was last seen\n{as_text(accuracy_by_lag(stream, answers))}")
    print(f"\n{out / REPORT} written after {time.perf_counter() - started:.0f} s")
    return DemoResult(stream, answers, losses, out / REPORT)


def _memory(classes: int, recipe: EmbeddingRecipe) -> raremem.MemoryConfig:
    """The config of the memory that the stream is shown to."""
    slots = SLOTS_FOR_EACH_CLASS * classes
    return raremem.MemoryConfig(slots, recipe.key_dim, neighbors=5, softmax_temperature=15.0, seed=recipe.seed)


def _facts(
    backend: str, characters: Characters, config: raremem.MemoryConfig, recipe: EmbeddingRecipe, steps: int
) -> dict[str, str]:
    """The facts of a run, for the page."""
    info = raremem.backends()[backend]
    return {
        "backend": f"{backend} {info.version} on {info.device}",
        "characters": f"{characters.name}; {len(characters.train)} classes to train on, {len(characters.test)} streamed",
        "stream": f"{steps:,} steps; memory and FIFO of {config.slots:,} slots",
        "training": f"{recipe.steps} episodes, seed {recipe.seed}",
    }


def _characters(data: Path | None, seed: int, scale: Scale) -> Characters:
    if data is None:
        return draw_characters(seed, scale.drawn_train, scale.drawn_test)
    omniglot = load_omniglot(data)
    return Characters(omniglot.name, omniglot.train, omniglot.test[: scale.test])


def _train(learner: Embedder, recipe: EmbeddingRecipe, characters: Characters) -> list[float]:
    return [learner.learn(*episode(recipe, characters.train, step)) for step in progress(range(recipe.steps), "training")]
