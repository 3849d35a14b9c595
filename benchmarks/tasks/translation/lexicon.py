"""A memory of words: keys are source words, values the words of the translation that stood for them.

A network cannot say a word that it never met, and its state does not tell which one is due. The source word does. Which source
word a word of the reference stands for is told by the network's attention, by both being about as rare (a new word stands for a
new word), and by both standing about as far into their sentences. Two source words are taken for each, since the attention to a
new word is weak.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.tasks.translation.evidence import SMALL, Evidence, Floats, Whole, stacked
from raremem.benchmarks.tasks.translation.source import Source, Words, rarity
from raremem.benchmarks.training.translator.recipe import Reading
from raremem.benchmarks.training.translator.text import Store

KEY_DIM = 64
RARE = 100
"""Source words seen more often than this in training are left to the network."""
DOUBT = 0.5
"""Words of which the network gave no token less than this are left to it."""
PAIRS = 2
"""Source words that a word of the reference is noted for."""
FOR_EACH = 8
"""Candidates for each source word."""
MOST = 24
"""Candidates for a sentence."""
ATTENTION_LEAST = 0.02
RARITY_WEIGHT = 1.0
PLACE_WEIGHT = 4.0
LONGEST_WORD = 12


class Candidates(NamedTuple):
    """Words that the memory has for the words of a sentence.

    Attributes:
        tokens: [C, LONGEST_WORD] of each, -1 after its end.
        place: [C] of the source word.
        slots: [C] in the memory.
        similarities: [C] of the source words.
        agree: [C] how many candidates are this word.
    """

    tokens: Whole
    place: Whole
    slots: Whole
    similarities: Floats
    agree: Whole


class Lexicon:
    """The memory of words, and its notes by slot.

    Args:
        store: with keys of `KEY_DIM`.
        slots: how many it has.
        seen: how often each target word stands in the training text.
    """

    def __init__(self, store: Store, slots: int, seen: Counter[tuple[int, ...]]) -> None:
        self.store, self.seen = store, seen
        self.numbers: dict[tuple[int, ...], int] = {}
        self.words: list[tuple[int, ...]] = []
        self.recent, self.hits = np.full(slots, -1, np.int32), np.zeros(slots, np.int32)
        self.strength, self.rarity = np.zeros(slots, np.float32), np.zeros(slots, np.float32)

    def read(self, source: Source, reading: Reading, target: Words, sentence: int) -> None:
        """Note the words of a reference."""
        said = np.array([token for word in target for token in word], np.int32)
        own = reading.probabilities[np.arange(len(said)), said]
        starts = np.cumsum([0, *(len(word) for word in target)])[:-1]
        if not len(starts):
            return
        doubted = np.minimum.reduceat(own, starts) < DOUBT
        attention = np.add.reduceat(source.by_word(reading.attention[: len(said)]), starts)
        attention /= np.array([len(word) for word in target])[:, None]
        rare = np.array([rarity(self.seen[tuple(word)]) for word in target], np.float32)
        away = np.abs(_places(len(target))[:, None] - _places(len(source.numbers)))
        score = (
            np.log(attention + ATTENTION_LEAST) - RARITY_WEIGHT * np.abs(source.rarity - rare[:, None]) - PLACE_WEIGHT * away
        )
        share = np.exp(score - score.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        chosen = np.argsort(-score, axis=1, kind="stable")[:, :PAIRS]
        rows, columns = np.repeat(np.arange(len(target)), chosen.shape[1]), chosen.ravel()
        short = np.array([len(word) <= LONGEST_WORD for word in target])
        wanted = (doubted & short)[rows] & (source.rarity[columns] >= rarity(RARE))
        rows, columns = rows[wanted], columns[wanted]
        if not len(rows):
            return
        values = np.array([self._number(tuple(target[row])) for row in rows], np.int32)
        keys = source.signatures[columns]
        report = self.store.update(self.store.lookup(keys, values), values, np.ones(len(values), np.bool_))
        slots, hit = np.asarray(report.slots), np.asarray(report.hit)
        there = slots >= 0
        new, again = slots[there & ~hit], slots[there & hit]
        self.hits[new], self.strength[new] = 0, 0
        np.add.at(self.hits, again, 1)
        self.recent[slots[there]], self.rarity[slots[there]] = sentence, rare[rows][there]
        np.maximum.at(self.strength, slots[there], share[rows, columns][there])

    def candidates(self, source: Source) -> Candidates:
        """The words that may stand for those of a sentence."""
        asked = np.flatnonzero(source.rarity >= rarity(RARE))
        if not len(asked):
            return self._none()
        out = self.store.lookup(source.signatures[asked])
        values, slots, near = (np.asarray(part)[:, :FOR_EACH] for part in (out.values, out.slots, out.similarities))
        there = (slots >= 0) & (near > 0.5)
        place = np.broadcast_to(asked[:, None], slots.shape)[there].astype(np.int32)
        values, slots, near = values[there], slots[there], near[there]
        best = np.argsort(-(near + 0.02 * source.rarity[place]), kind="stable")[:MOST]
        place, values, slots, near = place[best], values[best], slots[best], near[best]
        tokens = np.full((len(values), LONGEST_WORD), -1, np.int32)
        for row, value in enumerate(values):
            word = self.words[value]
            tokens[row, : len(word)] = word
        agree = (values[:, None] == values).sum(1).astype(np.int32)
        return Candidates(tokens, place, slots, near, agree)

    def _number(self, word: tuple[int, ...]) -> int:
        if word not in self.numbers:
            self.numbers[word] = len(self.words)
            self.words.append(word)
        return self.numbers[word]

    def _none(self) -> Candidates:
        none = np.zeros(0, np.int32)
        return Candidates(np.zeros((0, LONGEST_WORD), np.int32), none, none, np.zeros(0, np.float32), none)

    def evidence(
        self,
        source: Source,
        found: Candidates,
        probabilities: Floats,
        words: Floats,
        covered: Floats,
        history: Whole,
        sentence: int,
    ) -> tuple[Floats, Whole]:
        """What is known about each candidate at T tokens.

        Args:
            source: the sentence.
            found: its candidates.
            probabilities: [T, tokens] by the network.
            words: [T, W] attention by word.
            covered: [T, W] the same, summed over the tokens before.
            history: [H + T] the tokens before, the last T of them those that the T rows follow.
            sentence: its number.

        Returns:
            [T, C, features], and the tokens [T, C] that the candidates stand for.
        """
        count = len(words)
        begun, before = _begun(found.tokens, history, count)
        values = found.tokens[np.arange(len(found.tokens)), begun]
        own = np.take_along_axis(probabilities, np.maximum(values, 0), 1)
        main = words.argmax(1)

        def all_rows(column: NDArray[np.generic]) -> NDArray[np.generic]:
            return np.broadcast_to(column, values.shape)

        each = {
            "lexical": np.ones(values.shape),
            "similarity of the source words": all_rows(found.similarities),
            "attention on it": words[:, found.place],
            "it is the one attended to": found.place == main[:, None],
            "attention on it so far": covered[:, found.place],
            "rarity of the source word": all_rows(source.rarity[found.place]),
            "rarity of the word": all_rows(self.rarity[found.slots]),
            "strength of the pair": all_rows(self.strength[found.slots]),
            "hits": all_rows(np.log1p(self.hits[found.slots])),
            "sentences ago": all_rows(np.log1p(sentence - self.recent[found.slots])),
            "candidates that agree": all_rows(np.log1p(found.agree)),
            "tokens said of it": np.minimum(begun, 3),
            "said before": np.minimum(before, 2),
            "probability by the network": np.log(own + SMALL),
            "likeliest for the network": own == probabilities.max(1, keepdims=True),
        }
        return stacked(each), values.astype(np.int32)


def joined(seen: Evidence, each: Floats, values: Whole) -> Evidence:
    """The evidence, and behind it that of `MOST` candidates of the memory of words. The features of the other kind are 0."""
    rows, neighbors, known = seen.neighbors.shape
    columns = neighbors + MOST
    features = np.zeros((rows, columns, known + each.shape[2]), np.float32)
    features[:, :neighbors, :known] = seen.neighbors
    features[:, neighbors : neighbors + each.shape[1], known:] = each
    all_values, there = np.full((rows, columns), -1, np.int32), np.zeros((rows, columns), np.bool_)
    all_values[:, :neighbors], there[:, :neighbors] = seen.values, seen.there
    all_values[:, neighbors : neighbors + each.shape[1]], there[:, neighbors : neighbors + each.shape[1]] = values, True
    return Evidence(features, seen.context, all_values, there)


def _places(count: int) -> Floats:
    """How far into a sentence each of so many words stands [count], from 0 to 1."""
    return ((np.arange(count) + 0.5) / count).astype(np.float32)


def _begun(tokens: Whole, history: Whole, count: int) -> tuple[Whole, Whole]:
    """At each of the last `count` places of the history: how many tokens of each candidate were just said [count, C], and how
    often it was said whole before."""
    length = len(history)
    padded = np.concatenate([np.full(LONGEST_WORD, -9, np.int32), history])
    window = np.lib.stride_tricks.sliding_window_view(padded, LONGEST_WORD)[1:]
    begun = np.zeros((length, len(tokens)), np.int32)
    size = (tokens >= 0).sum(1)
    whole = np.zeros((length, len(tokens)), np.bool_)
    for said in range(1, LONGEST_WORD + 1):
        if not (size >= said).any():
            break
        same = (window[:, None, LONGEST_WORD - said :] == tokens[:, :said]).all(2) & (size >= said)
        begun = np.where(same & (size > said), said, begun)
        whole |= same & (size == said)
    before = np.cumsum(whole, axis=0)
    return begun[length - count :], before[length - count :].astype(np.int32)
