"""What the gate and its peers are set on: text held out, read in order, the reference's tokens given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.tasks.translation.engine import Sentence, forced
from raremem.benchmarks.tasks.translation.evidence import Evidence, Floats, Neighbors
from raremem.benchmarks.tasks.translation.peers import keep
from raremem.benchmarks.tasks.translation.systems import Remembering, look
from raremem.benchmarks.training.translator.text import Store, StreamTranslator


class Observed(NamedTuple):
    """Of T tokens.

    Attributes:
        seen: what was known at each.
        own: [T] the probability of the token that came, by the network.
        right: [T, k] the neighbors that stand for it.
    """

    seen: Evidence
    own: Floats
    right: NDArray[np.bool_]

    @staticmethod
    def of(parts: list[Observed]) -> Observed:
        """The tokens of several sentences."""
        seen = Evidence(*(np.concatenate(column) for column in zip(*(part.seen for part in parts), strict=True)))
        return Observed(seen, np.concatenate([part.own for part in parts]), np.concatenate([part.right for part in parts]))


def observe(translator: StreamTranslator, system: Remembering, stream: Iterable[Sentence], reads: bool) -> list[Observed]:
    """What a memory knows at the tokens of each sentence of a stream; with `reads` it reads each sentence after that."""
    parts = []
    for sentence in stream:
        reading, last, said = forced(translator, sentence)
        seen, _ = system.known(sentence.source, reading, last, None)
        own = reading.probabilities[np.arange(len(said)), said]
        parts.append(Observed(seen, own, (seen.values == said[:, None]) & seen.there))
        if reads:
            system.read(sentence.source, reading, last, sentence.target)
    return parts


class Kept(NamedTuple):
    """Of T tokens.

    Attributes:
        neighbors: among all tokens kept.
        own: [T] the probability of the token that came, by the network.
        said: [T] that token.
        states: [T, dim] the attentional states.
    """

    neighbors: Neighbors
    own: Floats
    said: NDArray[np.int32]
    states: Floats


def observe_kept(translator: StreamTranslator, store: Store, stream: Iterable[Sentence]) -> Kept:
    """What a memory that keeps every token has for each token of a stream."""
    parts = []
    for sentence in stream:
        reading, _, said = forced(translator, sentence)
        own = reading.probabilities[np.arange(len(said)), said]
        parts.append((*look(store, reading.states), own, said, reading.states))
        keep(store, reading, sentence.target)
    values, slots, near, own, said, states = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Kept(Neighbors(values, slots, near), own, said, states)
