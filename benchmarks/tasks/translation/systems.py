"""What translates in a stream: the network with one or another way of using what was read before. Each has the same network."""

from __future__ import annotations

from copy import copy
from typing import NamedTuple, Protocol

import numpy as np

from raremem.benchmarks.tasks.translation.evidence import Evidence, Floats, Neighbors, Whole, agreeing, evidence
from raremem.benchmarks.tasks.translation.gate import Gate, mixed
from raremem.benchmarks.tasks.translation.lexicon import Candidates, Lexicon, joined
from raremem.benchmarks.tasks.translation.notes import Notes
from raremem.benchmarks.tasks.translation.source import Source, Words, tokens_of
from raremem.benchmarks.training.translator.recipe import Reading
from raremem.benchmarks.training.translator.text import Store


class Said(NamedTuple):
    """What was said of a translation.

    Attributes:
        neighbors: those of the last token.
        history: the tokens before it, and itself.
        covered: [W] the attention to each source word so far.
    """

    neighbors: Neighbors
    history: Whole
    covered: Floats


class Answer(NamedTuple):
    """Of T tokens.

    Attributes:
        probabilities: [T, tokens] of the next token.
        until: what was said up to the last of them, for the answer after it; or None.
        values: [T, k] what the neighbors stand for, or None.
        shares: [T, 1 + k] of the network's own answer and of each neighbor, or None.
    """

    probabilities: Floats
    until: Said | None = None
    values: Whole | None = None
    shares: Floats | None = None


class System(Protocol):
    """One of them. It is asked for a sentence first, and reads it with its translation after that."""

    def answer(self, source: Source, reading: Reading, last: Whole, before: Answer | None) -> Answer:
        """What comes after the tokens `last` [T].

        Args:
            source: the sentence.
            reading: what the network makes of those tokens.
            last: [T] tokens that follow each other.
            before: the answer at the token before the first of these; None at the start.
        """

    def read(self, source: Source, reading: Reading, last: Whole, target: Words) -> None:
        """Read a whole sentence with the words of its translation; `reading` is of their tokens `last`, the start first."""


class Alone:
    """The network alone."""

    def answer(self, source: Source, reading: Reading, last: Whole, before: Answer | None) -> Answer:
        """See `System.answer`."""
        return Answer(reading.probabilities)

    def read(self, source: Source, reading: Reading, last: Whole, target: Words) -> None:
        """Nothing is kept."""


class Remembering:
    """A memory of tokens with its notes, and a memory of words.

    Args:
        store: the memory of tokens, asked by the query that was trained, or by the attentional state.
        slots: how many it has.
        lexicon: the memory of words, or None.
        trained_query: which of the two.
        gate: what is heard of them; None: nothing yet.
        doubt: only tokens of which the network gave less than this are written.
    """

    def __init__(
        self,
        store: Store,
        slots: int,
        lexicon: Lexicon | None,
        trained_query: bool = True,
        gate: Gate | None = None,
        doubt: float = 1.0,
    ) -> None:
        self.store, self.notes, self.lexicon, self.trained_query = store, Notes(slots), lexicon, trained_query
        self.gate, self.doubt, self.sentence = gate, doubt, 0
        self._found: tuple[Source, Candidates] | None = None

    def like(self, gate: Gate) -> Remembering:
        """The same memory, heard through another gate."""
        other = copy(self)
        other.gate = gate
        return other

    def known(self, source: Source, reading: Reading, last: Whole, before: Answer | None) -> tuple[Evidence, Said]:
        """The evidence at tokens, and what was said until them."""
        neighbors = look(self.store, self._queries(reading))
        words = source.by_word(reading.attention)
        until = before.until if before is not None and before.until is not None else beginning(neighbors, words)
        chain = until.neighbors.followed_by(neighbors.part(slice(0, -1)))
        seen = evidence(source, reading.probabilities, words, neighbors, self.notes, last, agreeing(chain, last), self.sentence)
        covered = until.covered + np.cumsum(words, axis=0)
        history = np.concatenate([until.history, last])
        if self.lexicon is not None:
            found = self._candidates(source)
            each, values = self.lexicon.evidence(
                source, found, reading.probabilities, words, covered - words, history, self.sentence
            )
            seen = joined(seen, each, values)
        return seen, Said(neighbors.part(slice(-1, None)), history, covered[-1])

    def answer(self, source: Source, reading: Reading, last: Whole, before: Answer | None) -> Answer:
        """See `System.answer`."""
        assert self.gate is not None
        seen, until = self.known(source, reading, last, before)
        shares = self.gate.shares(seen)
        return Answer(mixed(reading.probabilities, shares, seen.values, seen.there), until, seen.values, shares)

    def read(self, source: Source, reading: Reading, last: Whole, target: Words) -> None:
        """See `System.read`."""
        said = tokens_of(target)
        doubted = reading.probabilities[np.arange(len(said)), said] < self.doubt
        report = self.store.update(self.store.lookup(self._queries(reading), said), said, doubted)
        words = source.numbers[source.by_word(reading.attention).argmax(1)]
        self.notes.write(np.asarray(report.slots), np.asarray(report.hit), words, last, self.sentence)
        if self.lexicon is not None:
            self.lexicon.read(source, reading, target, self.sentence)
        self.sentence += 1
        self._found = None

    def origin(self, source: Source, answer: Answer, column: int) -> int:
        """The sentence that a neighbor or a candidate came from last, by its column in an answer of one token."""
        assert answer.until is not None
        neighbors = answer.until.neighbors.slots[0]
        if column < len(neighbors):
            return int(self.notes.recent[neighbors[column]])
        assert self.lexicon is not None
        return int(self.lexicon.recent[self._candidates(source).slots[column - len(neighbors)]])

    def _candidates(self, source: Source) -> Candidates:
        """Those of a sentence: they are the same at each of its tokens until something is read."""
        assert self.lexicon is not None
        if self._found is None or self._found[0] is not source:
            self._found = source, self.lexicon.candidates(source)
        return self._found[1]

    def _queries(self, reading: Reading) -> Floats:
        return reading.queries if self.trained_query else reading.states


def beginning(neighbors: Neighbors, words: Floats) -> Said:
    """Before the first token."""
    none = np.full((1, neighbors.slots.shape[1]), -1, np.int32)
    nothing = Neighbors(none, none, np.zeros(none.shape, np.float32))
    return Said(nothing, np.zeros(0, np.int32), np.zeros(words.shape[1], np.float32))


def look(store: Store, queries: Floats) -> Neighbors:
    """The neighbors of queries [T, key_dim]."""
    out = store.lookup(queries)
    return Neighbors(*(np.asarray(part) for part in (out.values, out.slots, out.similarities)))
