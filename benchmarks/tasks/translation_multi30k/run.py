"""What is measured: BLEU, the words of each rarity that are found, and what reading half of the test set does for the other."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raremem.benchmarks.data.bleu import bleu, sacrebleu
from raremem.benchmarks.data.corpus import (
    Sentences,
    load_multi30k,
    word_counts,
    word_recall,
)
from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.report.tables import group_names
from raremem.benchmarks.task import Findings, Setting, Table, Task
from raremem.benchmarks.training.loop import train
from raremem.benchmarks.training.snapshots import TrainingRun, resume
from raremem.benchmarks.training.translator.recipe import TranslationRecipe
from raremem.benchmarks.training.translator.text import Text, Translator, make_learner

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEN = ((0, 0), (1, 1), (2, 3), (4, 10), (11, 100), (101, None))
"""First and last count of each group of words."""
ARMS = {"with memory": True, "without": False}


def measure(learner: Translator, text: Text, test: Sentences) -> dict[str, Any]:
    """The test set's figures; then, and last of all, those of every other sentence once the memory has read the rest."""
    said = text.translate(learner, test)
    asked, other = test[0::2], test[1::2]
    there = set(word_counts(other.target))

    def figures(translations: list[str]) -> dict[str, Any]:
        words = word_recall(text.seen, SEEN, translations, asked.target, only=there)
        return {"bleu": bleu(translations, asked.target), "words": words}

    before = figures(said[0::2])
    text.read(learner, other)
    after = figures(text.translate(learner, asked))
    return {
        "bleu": bleu(said, test.target),
        "words": word_recall(text.seen, SEEN, said, test.target),
        "half": {"before": before, "after": after},
        "examples": list(zip(test.source[:8], said[:8], test.target[:8], strict=True)),
    }


def run(setting: Setting) -> Findings:
    """Train with memory and without, each for about `setting.minutes`, and measure both.

    Raises:
        DataError: the data is not Multi30k.
        MissingPackageError: the framework or the extra `bench` is not installed.
    """
    assert setting.data is not None
    for memory in ARMS.values():
        resume(_snapshot(setting, memory), asdict(_recipe(setting, memory)), setting.minutes)
    sacrebleu()
    corpus = load_multi30k(setting.data)
    measured: dict[str, dict[str, Any]] = {}
    runs: dict[str, TrainingRun] = {}
    for arm, memory in ARMS.items():
        text = Text(corpus, _recipe(setting, memory))
        if not text.epoch(0):
            raise DataError(f"{setting.data} has no {text.recipe.batch} pairs of about one length; expected all of Multi30k.")
        learner, runs[arm] = _trained(setting, text)
        measured[arm] = measure(learner, text, corpus.test)
    return findings(measured, runs)


def _trained(setting: Setting, text: Text) -> tuple[Translator, TrainingRun]:
    return train(
        lambda steps: make_learner(setting.backend, replace(text.recipe, steps=steps), text.sizes),
        text.batch_at,
        asdict(text.recipe),
        setting.minutes,
        _snapshot(setting, text.recipe.memory),
    )


def _recipe(setting: Setting, memory: bool) -> TranslationRecipe:
    return TranslationRecipe(memory=memory, seed=setting.seed)


def _snapshot(setting: Setting, memory: bool) -> Path:
    return setting.snapshot_path(f"translation-multi30k-{'memory' if memory else 'plain'}")


def findings(measured: dict[str, dict[str, Any]], runs: dict[str, TrainingRun]) -> Findings:
    """The tables and plots of both arms."""
    names = group_names(SEEN)
    return Findings(
        headline=_headline(measured, names),
        figures={arm: {"measured": found, "run": asdict(runs[arm])} for arm, found in measured.items()},
        tables={
            "Test set 2016 Flickr: BLEU, and words found by how often they were seen in training, %": _whole(measured, names),
            "Every other sentence, before and after the memory has read the rest: words that stand in both halves, %": _halves(
                measured, names
            ),
            "Translations": _examples(measured),
        },
        plots=lambda: [_plot(measured, names)],
        facts={f"training {arm}": f"{run.steps:,} batches in {run.seconds / 60:.1f} minutes" for arm, run in runs.items()},
        notes=["BLEU is sacreBLEU's, cased. A word is found if the translation of its sentence has it. Decoding is greedy."],
    )


def _headline(measured: dict[str, dict[str, Any]], names: list[str]) -> dict[str, float]:
    headline: dict[str, float] = {f"BLEU, {arm}": found["bleu"] for arm, found in measured.items()}
    for arm, found in measured.items():
        for name, group in zip(names, found["words"], strict=True):
            if group["percent"] is not None:
                headline[f"words seen {name} in training, {arm}, %"] = group["percent"]
        for when in ("before", "after"):
            rare = found["half"][when]["words"][:3]
            words = sum(group["words"] for group in rare)
            if words:
                right = sum(group["words"] * (group["percent"] or 0) for group in rare)
                headline[f"words of the other half seen 0-3 in training, {when}, {arm}, %"] = right / words
    return headline


def _whole(measured: dict[str, dict[str, Any]], names: list[str]) -> Table:
    rows = [[arm, f"{found['bleu']:.1f}", *_percents(found["words"])] for arm, found in measured.items()]
    return [["seen in training", "BLEU", *names], *rows, _counts(next(iter(measured.values()))["words"])]


def _halves(measured: dict[str, dict[str, Any]], names: list[str]) -> Table:
    rows = [
        [f"{arm}, {when}", f"{half['bleu']:.1f}", *_percents(half["words"])]
        for arm, found in measured.items()
        for when, half in found["half"].items()
    ]
    counts = _counts(next(iter(measured.values()))["half"]["before"]["words"])
    return [["seen in training", "BLEU", *names], *rows, counts]


def _counts(groups: list[dict[str, Any]]) -> list[str]:
    return ["words", "", *(f"{group['words']:,}" for group in groups)]


def _examples(measured: dict[str, dict[str, Any]]) -> Table:
    table = [["English", *measured, "reference"]]
    for examples in zip(*(found["examples"] for found in measured.values()), strict=True):
        source, _, reference = examples[0]
        table.append([source, *(said for _, said, _ in examples), reference])
    return table


def _percents(groups: list[dict[str, Any]]) -> list[str]:
    return ["-" if group["percent"] is None else f"{group['percent']:.1f}" for group in groups]


def _plot(measured: dict[str, dict[str, Any]], names: list[str]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for arm, found in measured.items():
        axes.plot(names, [group["percent"] for group in found["words"]], marker="o", label=f"{arm}: BLEU {found['bleu']:.1f}")
    axes.set(xlabel="times the word was seen in training", ylabel="words found, %", ylim=(-3, 103))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


TASK = Task(
    "English to German with a deep sequence-to-sequence network",
    "the extra bench and a framework; twice --minutes: with memory, and without",
    30.0,
    run,
    "multi30k",
)
