"""The text of the task: what is trained on, what is set on, what is streamed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.data.corpus import Corpus, Sentences, word_counts
from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.data.parallel import Stream, chosen, load_translation, read_stream
from raremem.benchmarks.task import Setting
from raremem.benchmarks.tasks.translation.engine import Sentence, sentences
from raremem.benchmarks.tasks.translation.source import SourceWords, random_rows
from raremem.benchmarks.training.translator.recipe import WINDOW, TranslationRecipe
from raremem.benchmarks.training.translator.text import Text
from raremem.errors import ConfigError

HELD = (3_000, 10_000)
"""Least and most sentences of a part of the training text that is held out."""


@dataclass(frozen=True)
class Material:
    """All text, as sentences.

    Attributes:
        train: what the network learns from.
        held: a part of the training text that it does not: it plays the stream on which everything is set.
        dev: general text to set on.
        test: general text to test on.
        streams: by title.
    """

    train: Stream
    held: Stream
    dev: Sentences
    test: Sentences
    streams: dict[str, Stream]


def load(setting: Setting, general: int) -> Material:
    """The text that a setting names.

    Args:
        setting: of the run.
        general: sentences of general text to set on, and as many to test on, that are drawn from the training text if none are
            named.

    Raises:
        ConfigError: there is no text to train on, or to stream.
        DataError: a text is not what it should be.
    """
    named = load_translation(setting.data) if setting.data is not None else None
    if named is None and (setting.train is None or setting.stream is None):
        raise ConfigError(
            "translation needs text: --data, a folder with tatoeba, libreoffice_help and darktable_manual; or --train and "
            "--stream, text of your own."
        )
    if setting.train is not None:
        train, dev, test = _drawn(read_stream(setting.train), general, setting.seed)
    else:
        assert named is not None
        train, dev, test = named.train, named.dev, named.test
    if setting.stream is not None:
        streams = {setting.stream.resolve().name: read_stream(setting.stream)}
    else:
        assert named is not None
        streams = named.streams
    train, held = hold_out(train)
    return Material(train, held, dev, test, streams)


def hold_out(text: Stream) -> tuple[Stream, Stream]:
    """A text without one part, and that part.

    A part is what stands in documents whose names begin alike, up to a slash. Of the parts of a size in `HELD` it is the one
    with the most words that stand nowhere else in the text. Where there is none, it is the end: a tenth, but at most 3,000
    sentences.
    """
    names = [name.partition("/")[0] for name in text.document] if text.document is not None else []
    sizes = Counter(names)
    counts = word_counts(text.target)
    found: dict[str, int] = {}
    for name in (name for name, size in sizes.items() if HELD[0] <= size <= HELD[1]):
        own = word_counts([line for line, part in zip(text.target, names, strict=True) if part == name])
        found[name] = sum(count for word, count in own.items() if counts[word] == count)
    if found:
        held = np.array(names) == max(found, key=lambda name: found[name])
    else:
        held = np.arange(len(text)) >= len(text) - min(HELD[0], len(text) // 10)
    return chosen(text, ~held), chosen(text, held)


def _drawn(text: Stream, count: int, seed: int) -> tuple[Stream, Sentences, Sentences]:
    """A text without sentences drawn from it, so many to set on and as many to test on, and both."""
    if len(text) < 10 * count:
        raise DataError(f"--train has {len(text):,} sentences; expected {10 * count:,} or more.")
    order = np.random.default_rng([seed, 6]).permutation(len(text))
    parts = [np.isin(np.arange(len(text)), order[start : start + count]) for start in (0, count)]
    dev, test = (chosen(text, part) for part in parts)
    return chosen(text, ~(parts[0] | parts[1])), dev, test


class Prepared:
    """The text in subwords.

    Args:
        material: the text.
        recipe: with the number of subwords.
    """

    def __init__(self, material: Material, recipe: TranslationRecipe) -> None:
        self.material = material
        self.text = Text(Corpus(material.train, material.test), recipe, documents=documents(material.train))
        self.seen = self.text.seen
        self.words = SourceWords(
            Counter(tuple(word) for row in self.text.source.encode(material.train.source) for word in row),
            random_rows(self.text.sizes[0]),
        )

    def sentences(self, text: Sentences) -> list[Sentence]:
        """Sentences of a text as the engine takes them."""
        return sentences(self.words, self.text.source.encode(text.source), self.text.target.encode(text.target))

    def decoded(self, said: list[list[int]]) -> list[str]:
        """Sentences from their tokens."""
        translations: list[str] = self.text.target.tokenizer.decode_batch(said)
        return translations


def documents(text: Stream) -> NDArray[np.int64] | None:
    """The number of each sentence's document, for `epoch_of`; -1 for documents longer than its window."""
    if text.document is None:
        return None
    sizes = Counter(text.document)
    numbers = {name: number for number, name in enumerate(name for name, size in sizes.items() if size <= WINDOW)}
    return np.array([numbers.get(name, -1) for name in text.document]) if numbers else None
