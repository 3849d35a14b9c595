"""Pairs of sentences, Multi30k's among them; subwords, and how often each word was seen."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.data.text import read_lines
from raremem.benchmarks.packages import need

PAD, START, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
LANGUAGES = ("en", "de")
Tokens = list[int]


@dataclass(frozen=True)
class Sentences:
    """Sentences and their translations."""

    source: list[str]
    target: list[str]

    def __getitem__(self, part: slice) -> Sentences:
        return Sentences(self.source[part], self.target[part])

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class Corpus:
    """What to train on, and what to test on."""

    train: Sentences
    test: Sentences


def load_multi30k(path: Path) -> Corpus:
    """Multi30k (Elliott et al., 2016) from a folder: English to German, the 2016 Flickr test set.

    Args:
        path: a folder with `train` and `test_2016_flickr`, each as .en and .de or .en.gz and .de.gz, a sentence a line; or a
            folder with such a folder `multi30k` in it.

    Raises:
        DataError: the files are not there, or the languages do not go together.
    """
    if not path.is_dir():
        raise DataError(
            f"--data {path} cannot be read: it is no folder; expected one with Multi30k's train.en or train.en.gz in it."
        )
    folder = path / "multi30k" if (path / "multi30k").is_dir() else path
    return Corpus(read_pair(folder, "train"), read_pair(folder, "test_2016_flickr"))


def read_pair(folder: Path, name: str) -> Sentences:
    """The sentences of `name`.en and `name`.de, or of `name`.en.gz and `name`.de.gz, in a folder.

    Raises:
        DataError: a file is not there or cannot be read, or one language has more lines.
    """
    source, target = (read_lines(plain_or_packed(folder, f"{name}.{language}"), "a sentence a line") for language in LANGUAGES)
    if len(source) != len(target):
        raise DataError(
            f"{folder / name} has {len(source)} lines in English and {len(target)} in German; expected as many: "
            "each line the translation of the line of that number."
        )
    return Sentences(source, target)


def plain_or_packed(folder: Path, name: str) -> Path:
    """The path of a file, or of its .gz if that is there."""
    packed = folder / f"{name}.gz"
    return packed if packed.exists() else folder / name


class Subwords:
    """A byte-pair encoding of a language, learned from sentences.

    Raises:
        MissingPackageError: the package tokenizers is not installed.
    """

    def __init__(self, sentences: list[str], size: int) -> None:
        need("translation", "tokenizers")
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        self.tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[UNKNOWN]))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
        self.tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False)
        self.tokenizer.train_from_iterator(sentences, trainer)
        self.size: int = self.tokenizer.get_vocab_size()

    def encode(self, sentences: list[str]) -> list[list[Tokens]]:
        """The words of each sentence, each as its tokens, without start or end; punctuation is a word."""
        encoded = self.tokenizer.encode_batch(sentences)
        pairs = [zip(encoding.word_ids, encoding.ids, strict=True) for encoding in encoded]
        return [[[token for _, token in word] for _, word in groupby(row, itemgetter(0))] for row in pairs]

    def decode(self, tokens: NDArray[np.int32]) -> list[str]:
        """The sentences [B] of tokens [B, T], each up to its end."""
        rows = [row[: np.argmax(row == END)] if (row == END).any() else row for row in tokens]
        return self.tokenizer.decode_batch([row.tolist() for row in rows])


def words(sentence: str) -> list[str]:
    """The words of a sentence, without punctuation."""
    return re.findall(r"\w+", sentence)


def word_counts(sentences: list[str]) -> Counter[str]:
    """How often each word stands in these sentences."""
    return Counter(word for sentence in sentences for word in words(sentence))


def word_recall(
    seen: Counter[str],
    groups: tuple[tuple[int, int | None], ...],
    translations: list[str],
    references: list[str],
    only: set[str] | None = None,
) -> list[dict[str, Any]]:
    """Of the words of the references, by how often each was seen: how many there are, and the % that the translations have.

    A word counts once in a sentence for each time that it stands there; words not in `only`, if given, do not count.
    """
    found, due = np.zeros(len(groups), int), np.zeros(len(groups), int)
    for translation, reference in zip(translations, references, strict=True):
        given, asked = Counter(words(translation)), Counter(words(reference))
        for word, count in asked.items():
            for place, (low, high) in enumerate(groups):
                if low <= seen[word] <= (seen[word] if high is None else high) and (only is None or word in only):
                    due[place] += count
                    found[place] += min(count, given[word])
    return [{"words": int(d), "percent": 100 * float(f / d) if d else None} for f, d in zip(found, due, strict=True)]
