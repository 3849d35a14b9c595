"""A memory of words: keys are pairs of a source word and a word of the translation that stood for it, values the latter.

A network cannot say a word that it never met, and its state does not tell which one is due. The source word does. Which source
word a word of the reference stands for is told by the network's attention, by both being about as rare (a new word stands for a
new word), and by both standing about as far into their sentences. As the attention to a new word is weak, several source words
are taken for each, and how often the two came together tells later which of them was right.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.tasks.translation.evidence import SMALL, Evidence, Floats, Whole, stacked
from raremem.benchmarks.tasks.translation.source import SIGNATURE, Source, Words, rarity, tokens_of
from raremem.benchmarks.training.translator.recipe import Reading
from raremem.benchmarks.training.translator.text import Store

MARK = 32
"""Dimensions of a key that tell words of the translation from each other."""
KEY_DIM = SIGNATURE + MARK
MARK_WEIGHT = 0.5
"""The length of those dimensions, beside 1 of the source word's. A query leaves them out: all pairs of a source word are then
equally near to it. A pair that is written again is nearest to itself: it is a hit, and has one slot."""
NEIGHBORS = 64
"""Pairs of a source word that are asked for."""
RARE = 100
"""Source words seen more often than this in training are left to the network."""
DOUBT = 0.5
"""Words of which the network gave no token less than this are left to it."""
PAIRS = 3
"""Source words that a word of the reference is noted for."""
MOST = 24
"""Candidates for a sentence."""
ALIKE = 0.55
"""Source words less similar than this are no neighbors."""
ATTENTION_LEAST = 0.1
RARITY_WEIGHT = 1.0
PLACE_WEIGHT = 4.0
ROUNDS = 3
LONGEST_WORD = 12


class Candidates(NamedTuple):
    """Words that the memory has for a sentence of W source words, those that are likeliest by what was read first.

    Attributes:
        tokens: [C, LONGEST_WORD] of each, -1 after its end.
        slots: [C] of the pair that speaks most for it.
        place: [C] of the source word of that pair.
        similarities: [C] of that source word and the one that was read.
        belief: [C, W] how much each source word speaks for it, by how often the two came together.
        times: [C, 2] in how many sentences that source word was read, and the candidate.
    """

    tokens: Whole
    slots: Whole
    place: Whole
    similarities: Floats
    belief: Floats
    times: Floats


class Lexicon:
    """The memory of words, and its notes by slot.

    Args:
        store: with keys of `KEY_DIM` and `NEIGHBORS` neighbors.
        slots: how many it has.
        seen: how often each target word stands in the training text.
    """

    def __init__(self, store: Store, slots: int, seen: Counter[tuple[int, ...]]) -> None:
        self.store, self.seen = store, seen
        self.numbers: dict[tuple[int, ...], int] = {}
        self.words: list[tuple[int, ...]] = []
        self.read_sources, self.read_words = Counter[int](), Counter[tuple[int, ...]]()
        self.recent, self.hits, self.source = np.full(slots, -1, np.int32), np.zeros(slots, np.int32), np.zeros(slots, np.int32)
        self.share, self.rarity = np.zeros(slots, np.float32), np.zeros(slots, np.float32)

    def read(self, source: Source, reading: Reading, target: Words, sentence: int) -> None:
        """Note the words of a reference."""
        self.read_sources.update(set(source.numbers.tolist()))
        self.read_words.update(set(map(tuple, target)))
        if not target:
            return
        rare = np.array([rarity(self.seen[tuple(word)]) for word in target], np.float32)
        shares = aligned(source, reading, target, rare)
        chosen = np.argsort(-shares, axis=1, kind="stable")[:, :PAIRS]
        rows, columns = np.repeat(np.arange(len(target)), chosen.shape[1]), chosen.ravel()
        wanted = _doubted(reading, target)[rows] & (source.rarity[columns] >= rarity(RARE))
        rows, columns = rows[wanted], columns[wanted]
        if not len(rows):
            return
        values = np.array([self._number(tuple(target[row])) for row in rows], np.int32)
        keys = np.concatenate([_unit(source.signatures[columns]), MARK_WEIGHT * _marks(values)], axis=1)
        report = self.store.update(self.store.lookup(keys, values), values, np.ones(len(values), np.bool_))
        slots, hit = np.asarray(report.slots), np.asarray(report.hit)
        there = slots >= 0
        new, again = slots[there & ~hit], slots[there & hit]
        self.hits[new], self.share[new] = 0, 0
        np.add.at(self.hits, again, 1)
        slots, rows, columns = slots[there], rows[there], columns[there]
        self.recent[slots], self.rarity[slots], self.source[slots] = sentence, rare[rows], source.numbers[columns]
        np.add.at(self.share, slots, shares[rows, columns])

    def candidates(self, source: Source) -> Candidates:
        """The words that may stand for those of a sentence."""
        asked = np.flatnonzero(source.rarity >= rarity(RARE))
        if not len(asked):
            none = np.zeros(0, np.int32)
            return self._best(source, none, none, none, np.zeros(0, np.float32))
        queries = np.zeros((len(asked), KEY_DIM), np.float32)
        queries[:, :SIGNATURE] = _unit(source.signatures[asked])
        out = self.store.lookup(queries)
        values, slots, near = (np.asarray(part) for part in (out.values, out.slots, out.similarities))
        near = near * np.float32(np.hypot(1, MARK_WEIGHT))
        there = (slots >= 0) & (near > ALIKE)
        place = np.broadcast_to(asked[:, None], slots.shape)[there]
        return self._best(source, place, values[there], slots[there], near[there])

    def _best(self, source: Source, place: Whole, values: Whole, slots: Whole, near: Floats) -> Candidates:
        """The likeliest words of pairs [P], by how often a pair came, of how often either of its words did."""
        sources, targets = self._times_read(slots, values)
        belief = 2 * self.share[slots] / np.maximum(sources + targets, 1) * near**4
        words, which = np.unique(values, return_inverse=True)
        table = np.zeros((len(words), len(source.numbers)), np.float32)
        np.maximum.at(table, (which, place), belief)
        order = np.lexsort((-belief, which))
        first = order[np.searchsorted(which[order], np.arange(len(words)))]
        best = np.argsort(-table.sum(1), kind="stable")[:MOST]
        first = first[best]
        tokens = np.full((len(best), LONGEST_WORD), -1, np.int32)
        for row, value in enumerate(words[best]):
            tokens[row, : len(self.words[value])] = self.words[value]
        times = np.stack([sources[first], targets[first]], axis=1) if len(best) else np.zeros((0, 2), np.float32)
        return Candidates(tokens, slots[first], place[first].astype(np.int32), near[first], table[best], times)

    def _times_read(self, slots: Whole, values: Whole) -> tuple[Floats, Floats]:
        """In how many sentences the source words of slots were read, and the words that they are noted for."""
        sources = [self.read_sources[number] for number in self.source[slots].tolist()]
        return np.array(sources, np.float32), np.array([self.read_words[self.words[value]] for value in values], np.float32)

    def _number(self, word: tuple[int, ...]) -> int:
        if word not in self.numbers:
            self.numbers[word] = len(self.words)
            self.words.append(word)
        return self.numbers[word]

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
        sums = found.belief.sum(1)
        parts = found.belief / np.maximum(sums, SMALL)[:, None]
        rival = _largest_of_others(found.belief)[np.arange(len(sums)), found.place]

        def all_rows(column: NDArray[np.generic]) -> NDArray[np.generic]:
            return np.broadcast_to(column, values.shape)

        each = {
            "lexical": np.ones(values.shape),
            "similarity of the source words": all_rows(found.similarities),
            "attention on them": words @ parts.T,
            "share of the one attended to": parts[:, main].T,
            "attention on them so far": covered @ parts.T,
            "rarity of the source word": all_rows(source.rarity[found.place]),
            "rarity of the word": all_rows(self.rarity[found.slots]),
            "belief": all_rows(np.log(sums + 1e-3)),
            "belief in the best other": all_rows(np.log(rival + 1e-3)),
            "sentences with the source word": all_rows(np.log1p(found.times[:, 0])),
            "share of those of the source word": all_rows(self.share[found.slots] / np.maximum(found.times[:, 0], 1)),
            "share of those of the word": all_rows(self.share[found.slots] / np.maximum(found.times[:, 1], 1)),
            "mean share": all_rows(self.share[found.slots] / (1 + self.hits[found.slots])),
            "hits": all_rows(np.log1p(self.hits[found.slots])),
            "sentences ago": all_rows(np.log1p(sentence - self.recent[found.slots])),
            "source words": all_rows(np.log1p((found.belief > 0).sum(1))),
            "tokens said of it": np.minimum(begun, 3),
            "said before": np.minimum(before, 2),
            "probability by the network": np.log(own + SMALL),
            "likeliest for the network": own == probabilities.max(1, keepdims=True),
        }
        return stacked(each), values.astype(np.int32)


def aligned(source: Source, reading: Reading, target: Words, rare: Floats) -> Floats:
    """How much each source word stands for each word of a reference of T words [T, W]; rows sum to 1.

    A source word that another word of the reference stands for more is taken by that one: columns are brought to a sum of 1 and
    rows again, `ROUNDS` times. What stands for no source word goes to the end.
    """
    lengths = np.array([len(word) for word in target])
    starts = np.cumsum(lengths) - lengths
    attention = np.add.reduceat(source.by_word(reading.attention[: lengths.sum()]), starts) / lengths[:, None]
    away = np.abs(_places(len(target))[:, None] - _places(len(source.numbers)))
    score = np.log(attention + ATTENTION_LEAST) - RARITY_WEIGHT * np.abs(source.rarity - rare[:, None]) - PLACE_WEIGHT * away
    shares = np.exp(score - score.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    for _ in range(ROUNDS):
        shares /= shares.sum(0) + SMALL
        shares /= shares.sum(1, keepdims=True) + SMALL
    return shares.astype(np.float32)


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


def _doubted(reading: Reading, target: Words) -> NDArray[np.bool_]:
    """[T] the words of a reference that the network doubted and that are short enough to be noted."""
    said = tokens_of(target)[:-1]
    own = reading.probabilities[np.arange(len(said)), said]
    lengths = np.array([len(word) for word in target])
    return (np.minimum.reduceat(own, np.cumsum(lengths) - lengths) < DOUBT) & (lengths <= LONGEST_WORD)


def _marks(values: Whole) -> Floats:
    """Unit rows [P, MARK], the same for the same number always."""
    return _unit(np.stack([np.random.default_rng([7, value]).normal(size=MARK) for value in values]).astype(np.float32))


def _unit(rows: Floats) -> Floats:
    """Rows of length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _largest_of_others(belief: Floats) -> Floats:
    """The largest of the other rows, in each column [C, W]."""
    if len(belief) < 2:
        return np.zeros_like(belief)
    second, first = np.sort(belief, axis=0)[-2:]
    return np.where(belief == first, second, first)


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
