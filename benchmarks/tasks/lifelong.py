"""The life-long stream: characters never trained on, 100,000 steps, one memory that is never reset.

All 659 evaluation characters, 20 examples each, distorted anew at every pass. 259 classes come in every pass; 100 each come in
every third, fifth, seventh or thirteenth only, so that there are classes not seen for more than 50,000 steps. Rows come in
batches of 16: each is asked for in the memory as it was before its batch, and then learned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import raremem
from raremem.benchmarks.data.characters import Images, need_classes
from raremem.benchmarks.data.distortion import distort
from raremem.benchmarks.data.omniglot import load_omniglot
from raremem.benchmarks.online.classifiers import BufferClassifier, OnlineClassifier, RarememClassifier, Rows, SoftmaxHead
from raremem.benchmarks.online.stream import ClassStream, Labels, class_stream, lag_groups
from raremem.benchmarks.progress import progress
from raremem.benchmarks.task import Findings, Setting, Table, Task
from raremem.benchmarks.tasks.omniglot import trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PASSES = 15
RARE_PERIODS = (3, 5, 7, 13)
RARE_CLASSES = 100
"""Of each period."""
COLORS = {"raremem": "C0", "raremem, least_hit": "C4", "FIFO": "C1", "reservoir": "C2", "softmax head": "C3"}
BATCH = 16
SLOTS = (1_000, 3_000, 10_000, 100_000)
SHOWINGS = (1, 2, 3, 5, 10, 20)
LAGS = ((1, 99), (100, 999), (1_000, 9_999), (10_000, 50_000), (50_001, None))

Entrant = tuple[str, int | None]
"""The name of a classifier, and its slots."""
Groups = dict[str, NDArray[np.bool_]]
"""By name, which steps [steps] are in a group."""


def classes_of_pass(number: int, classes: int, rare_classes: int = RARE_CLASSES) -> Labels:
    """Which classes come in a pass: the last ones only in every third, fifth, seventh or thirteenth."""
    period = np.ones(classes, np.int32)
    for place, rare in enumerate(RARE_PERIODS):
        end = classes - place * rare_classes
        period[end - rare_classes : end] = rare
    return np.flatnonzero(number % period == 0).astype(np.int32)


def make_stream(
    embed: Callable[[Images], Rows], images: Images, seed: int, passes: int = PASSES, rare_classes: int = RARE_CLASSES
) -> tuple[ClassStream, Rows]:
    """The stream of characters [class, example, 28, 28] and the embedding of each step; the first pass shows them as they
    are."""
    shown, rows = [], []
    for number in progress(range(passes), "embedding the stream"):
        generator = np.random.default_rng([seed, 6, number])
        present = classes_of_pass(number, len(images), rare_classes)
        places = generator.permutation(len(present) * images.shape[1])
        labels, examples = present[places // images.shape[1]], places % images.shape[1]
        pictures = images[labels, examples]
        shown.append(labels)
        rows.append(embed(distort(generator, pictures) if number else pictures))
    return class_stream(np.concatenate(shown)), np.concatenate(rows)


@dataclass(frozen=True)
class Answers:
    """What a classifier answered at each step, and, of a memory, whether it held the class then."""

    given: Labels
    held: NDArray[np.bool_] | None


def answers_of(classifier: OnlineClassifier, stream: ClassStream, embedded: Rows, title: str) -> Answers:
    """Show the stream to a classifier."""
    given, held = np.full(len(stream), -1, np.int32), np.zeros(len(stream), np.bool_)
    starts = range(0, len(stream) - BATCH + 1, BATCH)
    for start in progress(starts, title):
        rows, labels = embedded[start : start + BATCH], stream.classes[start : start + BATCH]
        given[start : start + BATCH] = classifier.ask(rows)
        if isinstance(classifier, RarememClassifier):
            held[start : start + BATCH] = classifier.holds(labels)
        classifier.learn(rows, labels)
    return Answers(given, held if isinstance(classifier, RarememClassifier) else None)


def run(setting: Setting) -> Findings:
    """Train the network of the Omniglot task, or take its snapshot, and show the stream to all classifiers.

    Raises:
        DataError: the data is not Omniglot.
        MissingPackageError: the framework or the extra `bench` is not installed.
    """
    assert setting.data is not None
    characters = load_omniglot(setting.data)
    need_classes(characters, train=0, test=len(RARE_PERIODS) * RARE_CLASSES + 1)
    learner, training = trained(setting, characters)
    stream, rows = make_stream(learner.embed, characters.test, setting.seed)
    answers = answers_of_all(raremem.get_backend(setting.backend), stream, rows, SLOTS, setting.seed)
    return findings(stream, answers, {"minutes": training.seconds / 60})


def answers_of_all(
    backend: raremem.Backend, stream: ClassStream, rows: Rows, sizes: tuple[int, ...], seed: int
) -> dict[Entrant, Answers]:
    """Every classifier's answers, by its name and slots; the softmax head has none."""
    dim = rows.shape[1]
    answers: dict[Entrant, Answers] = {}
    for slots in sizes:
        config = raremem.MemoryConfig(slots=slots, key_dim=dim, neighbors=1, seed=seed)
        least_hit = replace(config, evict="least_hit")
        classifiers: dict[str, OnlineClassifier] = {
            "raremem": RarememClassifier(backend, config),
            "raremem, least_hit": RarememClassifier(backend, least_hit),
            "FIFO": BufferClassifier(slots, dim),
            "reservoir": BufferClassifier(slots, dim, reservoir=True, seed=seed),
        }
        for name, classifier in classifiers.items():
            answers[name, slots] = answers_of(classifier, stream, rows, f"{name}, {slots:,} slots")
    head = SoftmaxHead(int(stream.classes.max()) + 1, dim)
    answers["softmax head", None] = answers_of(head, stream, rows, "softmax head")
    return answers


def findings(stream: ClassStream, answers: dict[Entrant, Answers], training: dict[str, Any]) -> Findings:
    """The tables and plots."""
    steps = len(stream) // BATCH * BATCH
    answered = np.arange(len(stream)) < steps
    rest = {"all but 1st": answered & (stream.showing > 1)}
    by_showing = {f"{showing}.": answered & (stream.showing == showing) for showing in SHOWINGS}
    by_lag = {name: answered & rows for name, rows in lag_groups(stream, LAGS).items()}
    tables = {
        "Right answers by showing of the class, %": _right_answers(stream, answers, {**by_showing, **rest}),
        "Right answers by steps since the class was last seen, %": _right_answers(stream, answers, {**by_lag, **rest}),
    }
    forgotten = _wrong_answers(stream, answers, {**by_lag, **rest})
    return Findings(
        headline=_headline(stream, answers, {**rest, "last seen over 50,000 steps ago": by_lag["over 50,000"]}),
        figures={"steps": steps, "training": training, "tables": tables, "forgotten": forgotten},
        tables={
            **tables,
            "Wrong answers of the memory, %: forgotten (no slot has the class) or confused (another is nearer)": forgotten,
        },
        plots=lambda: [_plot(stream, answers, by_lag, rest["all but 1st"])],
        facts={
            "stream": f"{steps:,} steps, {int(stream.classes.max()) + 1} classes, batches of {BATCH}",
            "training": f"{training['minutes']:.1f} minutes",
        },
        notes=["On the first showing of a class nobody can be right."],
    )


def _name(entrant: Entrant) -> str:
    name, slots = entrant
    return name if slots is None else f"{name}, {slots:,} slots"


def _right_answers(stream: ClassStream, answers: dict[Entrant, Answers], groups: Groups) -> Table:
    """A row for each classifier."""
    rows = [[_name(who), *_percents(found.given == stream.classes, groups)] for who, found in answers.items()]
    return [["", *groups], ["showings", *(f"{steps.sum():,}" for steps in groups.values())], *rows]


def _wrong_answers(stream: ClassStream, answers: dict[Entrant, Answers], groups: Groups) -> Table:
    """Two rows for each memory."""
    table: Table = [["of what was shown before", *groups]]
    for who, found in answers.items():
        if found.held is not None:
            wrong = found.given != stream.classes
            table.append([f"{_name(who)}: forgotten", *_percents(wrong & ~found.held, groups)])
            table.append([f"{_name(who)}: confused", *_percents(wrong & found.held, groups)])
    return table


def _headline(stream: ClassStream, answers: dict[Entrant, Answers], groups: Groups) -> dict[str, float]:
    return {
        f"{_name(who)}, {label}, %": float(100 * (found.given == stream.classes)[steps].mean())
        for who, found in answers.items()
        for label, steps in groups.items()
        if steps.any()
    }


def _percents(picked: NDArray[np.bool_], groups: Groups) -> list[str]:
    return [f"{100 * picked[steps].mean():.1f}" if steps.any() else "-" for steps in groups.values()]


def _plot(stream: ClassStream, answers: dict[Entrant, Answers], by_lag: Groups, again: NDArray[np.bool_]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    lags, sizes = figure.subplots(1, 2, sharey=True)
    shown = [label for label, rows in by_lag.items() if rows.any()]
    largest = max(slots for _, slots in answers if slots)
    curves: dict[str, list[tuple[int, float]]] = {}
    for (name, slots), found in answers.items():
        right = 100 * (found.given == stream.classes)
        main = slots in (None, largest)
        style = {"color": COLORS[name], "alpha": 1.0 if main else 0.35, "label": name if main else None}
        lags.plot(shown, [right[by_lag[lag]].mean() for lag in shown], marker="o", **style)
        if slots:
            curves.setdefault(name, []).append((slots, right[again].mean()))
    for name, points in curves.items():
        sizes.plot(*zip(*points, strict=True), marker="o", color=COLORS[name], label=name)
    lags.set(xlabel="steps since the class was last seen (pale: smaller memories)", ylabel="right answers, %")
    sizes.set(xlabel="slots", xscale="log")
    for axes in (lags, sizes):
        axes.legend()
        axes.grid(alpha=0.3)
    return figure


TASK = Task(
    "The life-long stream: 100,000 new characters, never a reset",
    "the network of omniglot in --out (or trains it); about 10 minutes more",
    20.0,
    run,
    "omniglot",
)
