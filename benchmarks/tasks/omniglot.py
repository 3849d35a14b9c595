"""Omniglot by the paper's protocol: one network, trained through the memory, tested on characters it was never trained on.

Trained on the 964 background characters, each also turned by 90, 180 and 270 degrees, and each of these mirrored, as further
classes; tested on the 659 evaluation characters as they are: 5-way and 20-way, 1-shot and 5-shot. The last 30 background
characters are held out of training, and the curve over training time is measured on them; the test characters are looked at
once, at the end.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import raremem
from raremem.benchmarks.data.characters import Characters, Images, need_classes
from raremem.benchmarks.data.omniglot import load_omniglot
from raremem.benchmarks.task import Findings, Setting, Task
from raremem.benchmarks.training.embedding.recipe import SHAPES, Embedder, EmbeddingRecipe, embed_views, episode, make_embedder
from raremem.benchmarks.training.loop import train
from raremem.benchmarks.training.snapshots import TrainingRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETTINGS = ((5, 1), (5, 5), (20, 1), (20, 5))
"""(way, shots)"""
PUBLISHED = {"paper (Kaiser et al., ICLR 2017)": (98.4, 99.6, 95.0, 98.6)}
HELD_OUT = 30
RECIPE = EmbeddingRecipe(classes=96, showings=3, channels=(1, 64, 64, 128), residual=True, key_dim=256, distortion=0.9)


@dataclass(frozen=True)
class OmniglotPlan:
    """How the network is trained and tested.

    Attributes:
        recipe: the network, and its training.
        test_episodes: of each setting, on the test characters.
        curve_episodes: of each setting, on the characters held out, at each point of the curve.
        views: of an image, over which its embedding is the mean: itself, and as many distortions as make up this number.
    """

    recipe: EmbeddingRecipe = RECIPE
    test_episodes: int = 4000
    curve_episodes: int = 100
    views: int = 16


PLAN = OmniglotPlan()


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

    In each episode an empty memory is shown an example of each of `way` classes, then the others of the `shots` in one batch,
    so that a key is their mean (rule 4; one by one, the last would count most), and then asked for one more example of each.
    Its answer is the value of the nearest neighbor.
    """
    config = raremem.MemoryConfig(slots=way * shots, key_dim=embedded.shape[2], neighbors=1)
    generator = np.random.default_rng([seed, way, shots])
    labels = np.arange(way, dtype=np.int32)
    right = np.empty(count)
    for number in range(count):
        classes = generator.choice(len(embedded), way, replace=False)
        examples = np.stack([generator.permutation(embedded.shape[1])[: shots + 1] for _ in classes])
        rows = embedded[classes[:, None], examples]
        state, _ = backend.update(config, backend.init(config), rows[:, 0], labels)
        if shots > 1:
            others = rows[:, 1:shots].reshape(-1, config.key_dim)
            state, _ = backend.update(config, state, others, np.repeat(labels, shots - 1))
        answers = np.asarray(backend.query(config, state, rows[:, shots]).values)[:, 0]
        right[number] = (answers == labels).mean()
    return Accuracy(way, shots, 100 * right.mean(), 100 * 1.96 * right.std(ddof=1) / np.sqrt(count))


def measure(
    backend: raremem.Backend, learner: Embedder, images: Images, count: int, seed: int, plan: OmniglotPlan = PLAN
) -> list[Accuracy]:
    """All four settings, with `count` episodes each, on characters [class, example, 28, 28]."""
    rows = embed_views(learner, images.reshape(-1, *images.shape[2:]), plan.views, plan.recipe.distortion)
    embedded = rows.reshape(*images.shape[:2], -1)
    return [few_shot(backend, embedded, way, shots, count, seed) for way, shots in SETTINGS]


def run(setting: Setting, plan: OmniglotPlan = PLAN, name: str = "omniglot") -> Findings:
    """Train for about `setting.minutes`, then test.

    Raises:
        DataError: the data is not Omniglot.
        MissingPackageError: the framework or the extra `bench` is not installed.
    """
    assert setting.data is not None
    characters = load_omniglot(setting.data)
    learner, training = trained(setting, characters, plan, name)
    test = measure(raremem.get_backend(setting.backend), learner, characters.test, plan.test_episodes, setting.seed, plan)
    names = [f"{way}-way {shots}-shot" for way, shots in SETTINGS]
    table = [
        ["", *names],
        ["raremem", *map(str, test)],
        *([source, *(f"{percent:.1f}" for percent in figures)] for source, figures in PUBLISHED.items()),
    ]
    return Findings(
        headline={f"{name}, %": accuracy.percent for name, accuracy in zip(names, test, strict=True)},
        figures={"run": asdict(training), "test": [asdict(accuracy) for accuracy in test], "published": PUBLISHED},
        tables={"Accuracy on the test characters, %": table},
        plots=lambda: [_curve(training)],
        facts={"loss": plan.recipe.loss, "training": f"{training.steps:,} episodes in {training.seconds / 60:.1f} minutes"},
        notes=[
            f"With 95 % intervals over {plan.test_episodes:,} episodes. "
            "The curve is measured on characters held out of training."
        ],
    )


def trained(
    setting: Setting, characters: Characters, plan: OmniglotPlan = PLAN, name: str = "omniglot"
) -> tuple[Embedder, TrainingRun]:
    """The network, trained on all background characters but those held out, or taken from its snapshot."""
    recipe = replace(plan.recipe, seed=setting.seed)
    need_classes(characters, train=HELD_OUT + recipe.classes // SHAPES, test=max(way for way, _ in SETTINGS))
    train_on, held_out = characters.train[:-HELD_OUT], characters.train[-HELD_OUT:]
    numpy_backend = raremem.get_backend("numpy")

    def on_held_out(learner: Embedder) -> dict[str, Any]:
        found = measure(numpy_backend, learner, held_out, plan.curve_episodes, setting.seed, plan)
        return {"accuracy": [accuracy.percent for accuracy in found]}

    return train(
        lambda steps: make_embedder(setting.backend, replace(recipe, steps=steps)),
        lambda step, steps: episode(replace(recipe, steps=steps), train_on, step),
        asdict(recipe),
        setting.minutes,
        setting.snapshot_path(name),
        on_held_out,
    )


def _curve(run: TrainingRun) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for place, (way, shots) in enumerate(SETTINGS):
        points = [(point["minutes"], point["accuracy"][place]) for point in run.curve]
        axes.plot(*zip(*points, strict=True), marker="o", label=f"{way}-way {shots}-shot")
    axes.set(xlabel="minutes of training", ylabel="accuracy on held-out characters, %", ylim=(88, 100.3))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _variant(name: str, title: str, needs: str, minutes: float, backends: tuple[str, ...], **changes: Any) -> Task:
    """The task with another recipe."""
    change = partial(run, plan=OmniglotPlan(replace(RECIPE, **changes)), name=name)
    return Task(f"Omniglot: {title}", needs, minutes, change, "omniglot", backends)


NEEDS = "the extra bench and a framework; about {} minutes for --minutes {}"
BOTH = ("torch", "jax")
TASK = Task("Omniglot: few-shot classification of new characters", NEEDS.format(21, 20), 20.0, run, "omniglot")
MARGIN = _variant(
    "omniglot-margin", "the same, trained on the paper's margin loss", NEEDS.format(21, 20), 20.0, BOTH, loss="margin"
)
WIDE = _variant(
    "omniglot-wide",
    "the same with a wider network, for longer",
    NEEDS.format(70, 60),
    60.0,
    BOTH,
    channels=(1, 64, 96, 256),
)
LARGE = _variant(
    "omniglot-large",
    "the same with a larger network, on a GPU",
    "the extra bench and JAX on a GPU; about 8 minutes for --minutes 5",
    5.0,
    ("jax",),
    channels=(1, 64, 128, 384),
    key_dim=512,
)
