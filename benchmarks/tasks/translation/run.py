"""Trains the network with its memory, sets the gate and its peers on text held out, and lets all translate the streams."""

from __future__ import annotations

from dataclasses import asdict, replace

from raremem.benchmarks.data.bleu import sacrebleu
from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.task import Findings, Setting, Task
from raremem.benchmarks.tasks.translation.material import Prepared, load
from raremem.benchmarks.tasks.translation.report import findings
from raremem.benchmarks.tasks.translation.trial import Scale, Trial
from raremem.benchmarks.training.loop import train
from raremem.benchmarks.training.snapshots import resume
from raremem.benchmarks.training.translator.recipe import TranslationRecipe
from raremem.benchmarks.training.translator.text import make_learner


def run(setting: Setting) -> Findings:
    """Train for about `setting.minutes`, and measure.

    Raises:
        ConfigError: there is no text to train on, or to stream.
        DataError: a text is not what it should be.
        MissingPackageError: the framework or the extra `bench` is not installed.
    """
    return run_at(setting, recipe_of(setting), Scale())


def recipe_of(setting: Setting) -> TranslationRecipe:
    """The network and its memory. It sees its text about twice: half of the dropout that many passes need."""
    return TranslationRecipe(mixed=True, key_dim=128, slots=32_768, dropout=0.1, seed=setting.seed)


def run_at(setting: Setting, recipe: TranslationRecipe, scale: Scale) -> Findings:
    """`run`, with a network and at a scale of one's choice."""
    path = setting.snapshot_path("translation-memory")
    resume(path, asdict(recipe), setting.minutes)
    sacrebleu()
    prepared = Prepared(load(setting, scale.general), recipe)
    if not prepared.text.epoch(0):
        raise DataError(f"the text to train on has no {recipe.batch} pairs of about one length; expected far more.")
    translator, trained = train(
        lambda steps: make_learner(setting.backend, replace(recipe, steps=steps), prepared.text.sizes),
        prepared.text.batch_at,
        asdict(recipe),
        setting.minutes,
        path,
    )
    figures = Trial(setting, prepared, translator, scale, trained.done).figures()
    return findings(figures | {"run": asdict(trained)})


TASK = Task(
    "English to German by a network that goes on learning through its memory while it translates",
    "the extra bench and a framework; text by --data, or by --train and --stream; --minutes of training, then as long again",
    30.0,
    run,
)
