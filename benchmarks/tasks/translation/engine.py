"""Translates a stream sentence by sentence: each is translated first, and read with its translation after that."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.data.corpus import END, START
from raremem.benchmarks.tasks.translation.source import Source, SourceWords, Words, tokens_of
from raremem.benchmarks.tasks.translation.systems import Answer, Remembering, System
from raremem.benchmarks.training.translator.recipe import Reading
from raremem.benchmarks.training.translator.text import StreamTranslator

LONGEST = 96
"""Tokens of a sentence that is read; and of a translation, at most."""
HEARD = 0.5
"""A token of which the memory gave more than this share is said to be from the memory."""


class Sentence(NamedTuple):
    """A source, and the tokens of its translation."""

    source: Source
    target: Words


def sentences(words: SourceWords, source: list[Words], target: list[Words]) -> list[Sentence]:
    """Pairs, each side as words; what is beyond `LONGEST` tokens of a translation is left out."""
    return [Sentence(words.source(one), cut(other)) for one, other in zip(source, target, strict=True)]


def cut(target: Words) -> Words:
    """As many of its words as have `LONGEST` tokens."""
    ends = np.cumsum([len(word) for word in target])
    return target[: int(np.searchsorted(ends, LONGEST, side="right"))]


class Origin(NamedTuple):
    """A token of a translation that the memory gave: its place, and the sentence of the stream that it came from."""

    place: int
    sentence: int


@dataclass
class Spoken:
    """What a system made of a stream, sentence by sentence.

    Attributes:
        said: the tokens of its translation, without the end.
        right: for each token of the reference, and the end, whether it was the likeliest after those before it.
        origins: the tokens that the memory gave.
    """

    said: list[list[int]] = field(default_factory=list)
    right: list[list[bool]] = field(default_factory=list)
    origins: list[list[Origin]] = field(default_factory=list)


def run_stream(
    translator: StreamTranslator, systems: dict[str, System], stream: Iterable[Sentence], reads: bool = True
) -> dict[str, Spoken]:
    """Translate every sentence by every system, and let each read it after that.

    Args:
        translator: the network of all of them.
        systems: by name.
        stream: in order.
        reads: whether the sentences are read.
    """
    spoken = {name: Spoken() for name in systems}
    for sentence in stream:
        encoded = translator.opened(sentence.source.tokens[None])
        for name, (said, origins) in translate(translator, systems, sentence.source, encoded).items():
            spoken[name].said.append(said)
            spoken[name].origins.append(origins)
        reading, last, due = forced(translator, sentence, encoded)
        for name, system in systems.items():
            answer = system.answer(sentence.source, reading, last, None)
            spoken[name].right.append((answer.probabilities.argmax(1) == due).tolist())
        if reads:
            for system in systems.values():
                system.read(sentence.source, reading, last, sentence.target)
    return spoken


def read_through(
    translator: StreamTranslator, systems: dict[str, System], stream: Iterable[Sentence], asked: Collection[int] = ()
) -> dict[str, dict[int, list[int]]]:
    """Let every system read a stream, and translate some of its sentences, each before it is read.

    Args:
        translator: the network of all of them.
        systems: by name.
        stream: in order.
        asked: the numbers of the sentences to be translated.

    Returns:
        By system and number of the sentence, the tokens of its translation, without the end.
    """
    said: dict[str, dict[int, list[int]]] = {name: {} for name in systems}
    for number, sentence in enumerate(stream):
        encoded = translator.opened(sentence.source.tokens[None])
        if number in asked:
            for name, (tokens, _) in translate(translator, systems, sentence.source, encoded).items():
                said[name][number] = tokens
        reading, last, _ = forced(translator, sentence, encoded)
        for system in systems.values():
            system.read(sentence.source, reading, last, sentence.target)
    return said


def forced(
    translator: StreamTranslator, sentence: Sentence, encoded: object = None
) -> tuple[Reading, NDArray[np.int32], NDArray[np.int32]]:
    """What the network makes of a reference: the reading, the tokens read, and those that came.

    Args:
        translator: the network.
        sentence: whose reference.
        encoded: the network's view of its source, if it is known.
    """
    said = tokens_of(sentence.target)
    last = np.concatenate([[START], said[:-1]]).astype(np.int32)
    encoded = translator.opened(sentence.source.tokens[None]) if encoded is None else encoded
    return translator.forced(encoded, last), last, said


def translate(
    translator: StreamTranslator, systems: dict[str, System], source: Source, encoded: object
) -> dict[str, tuple[list[int], list[Origin]]]:
    """The likeliest token after the likeliest token, by each system, all in step."""
    names = list(systems)
    said: dict[str, list[int]] = {name: [] for name in names}
    origins: dict[str, list[Origin]] = {name: [] for name in names}
    before: dict[str, Answer | None] = dict.fromkeys(names)
    going, layers, tokens = set(names), None, np.full(len(names), START, np.int32)
    for place in range(min(LONGEST, 2 * len(source.tokens) + 8)):
        reading, layers = translator.step(encoded, tokens, layers)
        for row, name in enumerate(names):
            if name not in going:
                continue
            one = type(reading)(*(part[row : row + 1] for part in reading))
            answer = before[name] = systems[name].answer(source, one, tokens[row : row + 1].copy(), before[name])
            token = int(answer.probabilities[0].argmax())
            tokens[row] = token
            if token == END:
                going.discard(name)
                continue
            said[name].append(token)
            origin = _origin(systems[name], source, answer, token)
            if origin is not None:
                origins[name].append(Origin(place, origin))
        if not going:
            break
    return {name: (said[name], origins[name]) for name in names}


def _origin(system: System, source: Source, answer: Answer, token: int) -> int | None:
    """The sentence that the memory has the token from, if the memory gave it."""
    if not isinstance(system, Remembering) or answer.shares is None or answer.values is None:
        return None
    shares = answer.shares[0, 1:] * (answer.values[0] == token)
    if shares.sum() < HEARD * answer.probabilities[0, token]:
        return None
    return system.origin(source, answer, int(shares.argmax()))
