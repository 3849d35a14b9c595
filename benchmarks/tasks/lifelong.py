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
from raremem.benchmarks.data.characters import Images, load_omniglot, need_classes
from raremem.benchmarks.online.classifiers import Labels, MemoryStore, Rows, RowStore, SoftmaxHead, Store, showings_and_lags
from raremem.benchmarks.progress import progress
from raremem.benchmarks.report.pages import Outcome, Table
from raremem.benchmarks.runner import Setting
from raremem.benchmarks.tasks.omniglot import trained
from raremem.benchmarks.training.embedding.recipe import distort

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PASSES = 15
RARE_PERIODS = (3, 5, 7, 13)
RARE_CLASSES = 100
"""Of each period."""
BATCH = 16
SLOTS = (1_000, 3_000, 10_000, 100_000)
SHOWINGS = (1, 2, 3, 5, 10, 20)
LAGS = ((1, 99), (100, 999), (1_000, 9_999), (10_000, 50_000), (50_001, None))


@dataclass(frozen=True)
class Stream:
    """What each step shows: its class, its embedding, which showing of it this is (from 1), and the steps since the last."""

    classes: Labels
    rows: Rows
    showing: Labels
    lag: Labels


def classes_of_pass(number: int, classes: int, rare_classes: int = RARE_CLASSES) -> Labels:
    """Which classes come in a pass: the last ones only in every third, fifth, seventh or thirteenth."""
    period = np.ones(classes, np.int32)
    for place, rare in enumerate(RARE_PERIODS):
        end = classes - place * rare_classes
        period[end - rare_classes : end] = rare
    return np.flatnonzero(number % period == 0).astype(np.int32)


def make_stream(
    embed: Callable[[Images], Rows], images: Images, seed: int, passes: int = PASSES, rare_classes: int = RARE_CLASSES
) -> Stream:
    """The stream of characters [class, example, 28, 28]; the first pass shows them as they are."""
    shown, rows = [], []
    for number in progress(range(passes), "embedding the stream"):
        generator = np.random.default_rng([seed, 6, number])
        present = classes_of_pass(number, len(images), rare_classes)
        places = generator.permutation(len(present) * images.shape[1])
        labels, examples = present[places // images.shape[1]], places % images.shape[1]
        pictures = images[labels, examples]
        shown.append(labels)
        rows.append(embed(distort(generator, pictures) if number else pictures))
    classes = np.concatenate(shown)
    return Stream(classes, np.concatenate(rows), *showings_and_lags(classes))


@dataclass(frozen=True)
class Answers:
    """What a store answered at each step, and, of a memory, whether it held the class then."""

    given: Labels
    held: NDArray[np.bool_] | None


def run_stream(store: Store, stream: Stream, title: str) -> Answers:
    """Show the stream to a store."""
    given, held = np.full(len(stream.classes), -1, np.int32), np.zeros(len(stream.classes), np.bool_)
    starts = range(0, len(stream.classes) - BATCH + 1, BATCH)
    for start in progress(starts, title):
        rows, labels = stream.rows[start : start + BATCH], stream.classes[start : start + BATCH]
        given[start : start + BATCH] = store.ask(rows)
        if isinstance(store, MemoryStore):
            held[start : start + BATCH] = store.holds(labels)
        store.learn(rows, labels)
    return Answers(given, held if isinstance(store, MemoryStore) else None)


def run(setting: Setting) -> Outcome:
    """Train the network of the Omniglot task, or take its snapshot, and show the stream to everyone.

    Raises:
        DataError: the data is not Omniglot.
        MissingPackageError: the framework or the extra `bench` is not installed.
    """
    assert setting.data is not None
    characters = load_omniglot(setting.data)
    need_classes(characters, train=0, test=len(RARE_PERIODS) * RARE_CLASSES + 1)
    learner, training = trained(setting, characters)
    stream = make_stream(learner.embed, characters.test, setting.seed)
    backend = raremem.get_backend(setting.backend)
    return outcome(stream, answers_of_all(backend, stream, SLOTS, setting.seed), {"minutes": training.seconds / 60})


def answers_of_all(
    backend: raremem.Backend, stream: Stream, sizes: tuple[int, ...], seed: int
) -> dict[tuple[str, int | None], Answers]:
    """Every store's answers, by its name and slots; the softmax head has none."""
    dim = stream.rows.shape[1]
    answers: dict[tuple[str, int | None], Answers] = {}
    for slots in sizes:
        config = raremem.MemoryConfig(slots=slots, key_dim=dim, neighbors=1, seed=seed)
        least_hit = replace(config, evict="least_hit")
        stores: dict[str, Store] = {
            "raremem": MemoryStore(backend, config),
            "raremem, least_hit": MemoryStore(backend, least_hit),
            "FIFO": RowStore(slots, dim),
            "reservoir": RowStore(slots, dim, reservoir=True, seed=seed),
        }
        for name, store in stores.items():
            answers[name, slots] = run_stream(store, stream, f"{name}, {slots:,} slots")
    answers["softmax head", None] = run_stream(SoftmaxHead(int(stream.classes.max()) + 1, dim), stream, "softmax head")
    return answers


def outcome(stream: Stream, answers: dict[tuple[str, int | None], Answers], training: dict[str, Any]) -> Outcome:
    """The tables and plots."""
    steps = len(stream.classes) // BATCH * BATCH
    again = (stream.showing > 1) & (np.arange(len(stream.classes)) < steps)
    by_showing = {f"{showing}.": (stream.showing == showing) & (np.arange(len(again)) < steps) for showing in SHOWINGS}
    by_lag = {
        f"{low:,}-{high:,}" if high else f"over {low - 1:,}": again & (stream.lag >= low) & (stream.lag <= (high or steps))
        for low, high in LAGS
    }
    rest = {"all but 1st": again}
    names = {key: key[0] if key[1] is None else f"{key[0]}, {key[1]:,} slots" for key in answers}
    forgotten: Table = [["of what was shown before", *by_lag, *rest]]
    for key, found in answers.items():
        if found.held is not None:
            wrong = found.given != stream.classes
            for kind, rows in (("forgotten", wrong & ~found.held), ("confused", wrong & found.held)):
                forgotten.append([f"{names[key]}: {kind}", *_percents(rows, {**by_lag, **rest})])
    headline = {
        f"{names[key]}, {label}, %": float(100 * (found.given == stream.classes)[rows].mean())
        for key, found in answers.items()
        for label, rows in {**rest, "last seen over 50,000 steps ago": by_lag["over 50,000"]}.items()
        if rows.any()
    }
    tables = {
        f"Right answers by {title}, %": [
            ["", *groups],
            ["showings", *(f"{rows.sum():,}" for rows in groups.values())],
            *([names[key], *_percents(found.given == stream.classes, groups)] for key, found in answers.items()),
        ]
        for title, groups in {
            "showing of the class": {**by_showing, **rest},
            "steps since the class was last seen": {**by_lag, **rest},
        }.items()
    }
    return Outcome(
        headline=headline,
        figures={"steps": steps, "training": training, "tables": tables, "forgotten": forgotten},
        tables={
            **tables,
            "Wrong answers of the memory, %: forgotten (no slot has the class) or confused (another is nearer)": forgotten,
        },
        plots=lambda: [_plot(stream, answers, by_lag, again)],
        facts={
            "stream": f"{steps:,} steps, {int(stream.classes.max()) + 1} classes, batches of {BATCH}",
            "training": f"{training['minutes']:.1f} minutes",
        },
        notes=["On the first showing of a class nobody can be right."],
    )


def _percents(picked: NDArray[np.bool_], groups: dict[str, NDArray[np.bool_]]) -> list[str]:
    return [f"{100 * picked[rows].mean():.1f}" if rows.any() else "-" for rows in groups.values()]


def _plot(
    stream: Stream,
    answers: dict[tuple[str, int | None], Answers],
    by_lag: dict[str, NDArray[np.bool_]],
    again: NDArray[np.bool_],
) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    lags, sizes = figure.subplots(1, 2, sharey=True)
    shown = [label for label, rows in by_lag.items() if rows.any()]
    colors = {"raremem": "C0", "raremem, least_hit": "C4", "FIFO": "C1", "reservoir": "C2", "softmax head": "C3"}
    largest = max(slots for _, slots in answers if slots)
    for (name, slots), found in answers.items():
        right = 100 * (found.given == stream.classes)
        style = {"color": colors[name], "alpha": 1.0 if slots in (None, largest) else 0.35, "marker": "o"}
        label = name if slots in (None, largest) else None
        lags.plot(shown, [right[by_lag[lag]].mean() for lag in shown], label=label, **style)
    for name in dict.fromkeys(name for name, slots in answers if slots):
        points = [(slots, 100 * (f.given == stream.classes)[again].mean()) for (n, slots), f in answers.items() if n == name]
        sizes.plot(*zip(*points, strict=True), marker="o", color=colors[name], label=name)
    lags.set(xlabel="steps since the class was last seen (pale: smaller memories)", ylabel="right answers, %")
    lags.legend()
    sizes.set(xlabel="slots", xscale="log")
    sizes.legend()
    for axes in (lags, sizes):
        axes.grid(alpha=0.3)
    return figure
