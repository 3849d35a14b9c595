"""Text in subwords and in batches, and what a translator is."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from raremem import Lookup, MemoryConfig, UpdateReport
from raremem.benchmarks.data.corpus import Corpus, Sentences, Subwords, word_counts
from raremem.benchmarks.training.learner import Learner, TrainingBatch, framework_module
from raremem.benchmarks.training.translator.recipe import Pair, Pairs, Reading, TranslationRecipe, epoch_of, padded
from raremem.state import PortableState


class Translator(Learner, Protocol):
    """A learner that translates, and that reads without a gradient step."""

    def translate(self, source: NDArray[np.int32]) -> NDArray[np.int32]:
        """Tokens [B, T] for sources [B, S]."""

    def read(self, *batch: NDArray[np.generic]) -> None:
        """Let the memory see a batch."""


class StreamTranslator(Translator, Protocol):
    """A translator that can be asked token by token."""

    def opened(self, source: NDArray[np.int32]) -> Any:
        """Its view of a source [1, S], for `forced` and `step`."""

    def forced(self, encoded: Any, read: NDArray[np.int32]) -> Reading:
        """What it makes of the tokens [T] of a translation, the right ones before each."""

    def step(self, encoded: Any, tokens: NDArray[np.int32], layers: Any = None) -> tuple[Reading, Any]:
        """What it makes of one token more of each of T translations of a sentence, after those that led to `layers`."""

    def tunable(self, rate: float) -> StreamTranslator:
        """The network without its memory, to be trained further at that rate."""


class Store(Protocol):
    """A memory that is asked and written in NumPy."""

    def lookup(self, queries: NDArray[np.float32], targets: NDArray[np.int32] | None = None) -> Lookup:
        """Its answer, in arrays that NumPy takes."""

    def update(self, lookup: Lookup, targets: NDArray[np.int32], mask: NDArray[np.bool_]) -> UpdateReport:
        """Write the rows of a lookup; the report's arrays are such that NumPy takes."""

    def fill(self, content: PortableState) -> None:
        """Take the content of a memory of the same config."""


class Text:
    """A corpus in subwords, and its batches.

    Args:
        corpus: what to train on, and what to test on.
        recipe: its sizes.
        known: from which both languages' subwords are learned; None: the training set.
        at_once: sentences that are translated in a batch.
        documents: see `epoch_of`.
    """

    def __init__(
        self,
        corpus: Corpus,
        recipe: TranslationRecipe,
        known: Sentences | None = None,
        at_once: int = 100,
        documents: NDArray[np.int64] | None = None,
    ) -> None:
        self.recipe, self.at_once = recipe, at_once
        known = known or corpus.train
        self.source, self.target = Subwords(known.source, recipe.subwords), Subwords(known.target, recipe.subwords)
        self.sizes = self.source.size, self.target.size
        self.seen = word_counts(corpus.train.target)
        self.counts = Counter(tuple(word) for row in self.target.encode(corpus.train.target) for word in row)
        self.train = self.pairs(corpus.train)
        self.epoch = lru_cache(2)(lambda number: epoch_of(recipe, self.train, number, documents))

    def pairs(self, sentences: Sentences) -> Pairs:
        """Their tokens."""
        sides = self.source.encode(sentences.source), self.target.encode(sentences.target)
        return [
            Pair(
                [token for word in source for token in word],
                [token for word in target for token in word],
                [self.counts[tuple(word)] <= self.recipe.rare for word in target for _ in word],
            )
            for source, target in zip(*sides, strict=True)
        ]

    def batch_at(self, step: int, steps: int) -> TrainingBatch:
        """The batch of a step of training: it depends on the seed and the step alone."""
        number, place = divmod(step, len(self.epoch(0)))
        batches = self.epoch(number)  # with documents, an epoch has some batches more or fewer than the first one
        return padded([self.train[chosen] for chosen in batches[place % len(batches)]])

    def read(self, learner: Translator, sentences: Sentences) -> None:
        """Let the memory see sentences and their translations."""
        pairs = self.pairs(sentences)
        for start in range(0, len(pairs), self.recipe.batch):
            learner.read(*padded(pairs[start : start + self.recipe.batch]))

    def translate(self, learner: Translator, sentences: Sentences) -> list[str]:
        """The learner's translations."""
        pairs, said = self.pairs(sentences), []
        for start in range(0, len(pairs), self.at_once):
            source, *_ = padded([Pair(pair.source, [], []) for pair in pairs[start : start + self.at_once]])
            said += self.target.decode(learner.translate(source))
        return said


def make_learner(backend: str, recipe: TranslationRecipe, sizes: tuple[int, int]) -> Translator:
    """The network in that framework, for so many tokens of each language.

    Raises:
        MissingPackageError: the framework, or a package of the extra `bench`, is not installed.
    """
    return framework_module("training.translator", backend).make(recipe, sizes)


def make_store(backend: str, config: MemoryConfig, **options: Any) -> Store:
    """A memory in that framework.

    Args:
        backend: the framework.
        config: the memory's.
        **options: of the framework's memory: `index` in PyTorch.

    Raises:
        MissingPackageError: the framework, or a package of the extra `bench`, is not installed.
    """
    return framework_module("training.translator", backend).make_store(config, **options)
