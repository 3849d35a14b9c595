"""Sets the gate and the peers on text held out: a part of the training text that plays the stream, and general text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem import MemoryConfig
from raremem.benchmarks.progress import progress
from raremem.benchmarks.tasks.translation import gate
from raremem.benchmarks.tasks.translation import lexicon as of_words
from raremem.benchmarks.tasks.translation.engine import Sentence, forced, run_stream
from raremem.benchmarks.tasks.translation.evidence import Floats
from raremem.benchmarks.tasks.translation.observe import Kept, Observed, observe, observe_kept
from raremem.benchmarks.tasks.translation.peers import Adaptive, Cache, KnnMt, Tuned, learn_adaptive, softened
from raremem.benchmarks.tasks.translation.systems import Alone, Remembering, System
from raremem.benchmarks.training.translator.recipe import TranslationRecipe
from raremem.benchmarks.training.translator.text import StreamTranslator, make_store

NEIGHBORS = 16
DOUBTED_WEIGHT = 3.0
"""What a token counts in the training of the gate of which the network gives less than half."""
NEW_WEIGHT = 10.0
"""The same of a token of a word that training never had: by how many times more it counts."""
GENERAL_SHARE = 0.05
"""What all tokens of general text count in the training of the gate, of what all count."""
LEAST = (0.0, 0.2, 0.4, 0.6, 0.8)
"""Shares below which the gate may hear nothing: the least of these that costs general text at most `COST` is taken."""
COST = 0.1
"""BLEU of general text: the aim's."""
NOTHING = 2.0
"""Such a share, where each of these costs more: the memory is not heard at all."""
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5)
CACHE = 2_000
SHARPNESS = (5.0, 10.0, 20.0, 40.0)
RATES = (1e-4, 5e-4)


@dataclass(frozen=True)
class Kit:
    """What systems are made of.

    Attributes:
        backend: the framework.
        recipe: of the network.
        seen: how often each target word stands in the training text, by its tokens.
        slots: of each memory of tokens.
        word_slots: of the memory of words.
        options: of the memory of tokens, for `make_store`.
    """

    backend: str
    recipe: TranslationRecipe
    seen: Counter[tuple[int, ...]]
    slots: int
    word_slots: int
    options: dict[str, Any] = field(default_factory=dict)

    def remembering(self, learned: gate.Gate | None, write: str = "merge", evict: str = "oldest") -> Remembering:
        """An empty memory of tokens, and one of words that gives up the same ones; the first writes so."""
        config = MemoryConfig(self.slots, self.recipe.key_dim, NEIGHBORS, seed=self.recipe.seed, write=write, evict=evict)
        words = MemoryConfig(self.word_slots, of_words.KEY_DIM, of_words.NEIGHBORS, seed=self.recipe.seed, evict=evict)
        lexicon = of_words.Lexicon(make_store(self.backend, words), self.word_slots, self.seen)
        return Remembering(make_store(self.backend, config, **self.options), self.slots, lexicon, gate=learned)

    def keeping(self) -> Any:
        """An empty memory that keeps every token, by its attentional state."""
        return make_store(
            self.backend, MemoryConfig(self.slots, self.recipe.dim, NEIGHBORS, seed=self.recipe.seed, write="keep")
        )


@dataclass(frozen=True)
class Settled:
    """What was set.

    Attributes:
        gate: of the memory.
        knn: the share and the temperature of kNN-MT.
        adaptive: the weights of the network that chooses k.
        cache: the share and the sharpness of the cache.
        rate: of fine-tuning.
    """

    gate: gate.Gate
    knn: tuple[float, float]
    adaptive: dict[str, Floats]
    cache: tuple[float, float]
    rate: float

    def plain(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "gate": {name: array.tolist() for name, array in self.gate.weights.items()},
            "least": self.gate.least,
            "knn": list(self.knn),
            "adaptive": {name: array.tolist() for name, array in self.adaptive.items()},
            "cache": list(self.cache),
            "rate": self.rate,
        }

    @staticmethod
    def of(plain: dict[str, Any]) -> Settled:
        """What `plain` returned."""
        weights, adaptive = (
            {name: np.array(rows, np.float32) for name, rows in plain[part].items()} for part in ("gate", "adaptive")
        )
        learned = gate.Gate(weights, plain["least"])
        return Settled(learned, tuple(plain["knn"]), adaptive, tuple(plain["cache"]), plain["rate"])

    def systems(self, kit: Kit) -> dict[str, System]:
        """All that have the frozen network, with nothing read."""
        keeping = self.keeping(kit)
        return {"alone": Alone(), "memory": kit.remembering(self.gate), **keeping, "cache": Cache(CACHE, *self.cache)}

    def keeping(self, kit: Kit) -> dict[str, System]:
        """Those that keep every token: the second has the memory of the first, and follows it."""
        kept = KnnMt(kit.keeping(), *self.knn)
        return {"kNN-MT": kept, "adaptive kNN-MT": Adaptive(kept.store, self.adaptive, self.knn[1])}

    def told(self) -> dict[str, Any]:
        """The numbers among it."""
        names = {"least share of the memory": self.gate.least, "rate of fine-tuning": self.rate}
        pairs = {"kNN-MT, share and temperature": self.knn, "cache, share and sharpness": self.cache}
        return names | {name: list(pair) for name, pair in pairs.items()}


def settle(
    translator: StreamTranslator,
    kit: Kit,
    held: list[Sentence],
    general: list[Sentence],
    tuned: int,
    score: Callable[[list[list[int]], list[Sentence]], float],
) -> Settled:
    """Set everything.

    Args:
        translator: the trained network.
        kit: what systems are made of.
        held: sentences of the part of the training text that plays the stream.
        general: general text.
        tuned: sentences of `held` that tell the rate of fine-tuning.
        score: BLEU of the tokens of translations.
    """
    learned = set_gate(translator, kit, held, general, score)
    kept = observe_kept(translator, kit.keeping(), progress(held, "kNN-MT: reading the text held out"))
    share, temperature = best_shares(kept)
    adaptive = learn_adaptive(kept.neighbors, kept.own, kept.said, temperature, kit.recipe.seed)
    return Settled(learned, (share, temperature), adaptive, best_cache(kept), best_rate(translator, held[:tuned]))


def set_gate(
    translator: StreamTranslator,
    kit: Kit,
    held: list[Sentence],
    general: list[Sentence],
    score: Callable[[list[list[int]], list[Sentence]], float],
) -> gate.Gate:
    """A gate learned on the text held out and on half of the general text, and made harmless on the other half."""
    half = len(general) // 2
    memory = kit.remembering(None)
    streamed = observe(translator, memory, progress(held, "memory: reading the text held out"), reads=True)
    everyday = observe(translator, memory, general[:half], reads=False)
    both = Observed.of(streamed + everyday)
    new = _of_new_words(kit, held)
    weight = np.where(both.own < 0.5, DOUBTED_WEIGHT, 1.0).astype(np.float32)
    weight[: len(new)][new] *= NEW_WEIGHT
    everyday_tokens = len(weight) - len(new)
    weight[len(new) :] = GENERAL_SHARE / (1 - GENERAL_SHARE) * weight[: len(new)].sum() / everyday_tokens
    del streamed, everyday
    memory.gate = gate.learn(both.seen, both.own, both.right, weight, kit.recipe.seed)
    return harmless(translator, memory, general[half:], score)


def _of_new_words(kit: Kit, stream: list[Sentence]) -> NDArray[np.bool_]:
    """[T] whether each token, with the end, is of a word that training never had."""
    rows = [[*(not kit.seen[tuple(word)] for word in sentence.target for _ in word), False] for sentence in stream]
    return np.concatenate([np.array(row, np.bool_) for row in rows])


def harmless(
    translator: StreamTranslator,
    memory: Remembering,
    general: list[Sentence],
    score: Callable[[list[list[int]], list[Sentence]], float],
) -> gate.Gate:
    """The gate that hears the most and costs general text at most `COST`, with the memory as full as it is."""
    assert memory.gate is not None
    gates = [replace(memory.gate, least=least) for least in LEAST]
    systems: dict[str, System] = {"alone": Alone()}
    systems |= {str(one.least): memory.like(one) for one in gates}
    spoken = run_stream(translator, systems, progress(general, "general text"), reads=False)
    scores = {name: score(one.said, general) for name, one in spoken.items()}
    print(f"BLEU of general text by the least share of the memory: {scores}")
    return next((one for one in gates if scores[str(one.least)] >= scores["alone"] - COST), replace(memory.gate, least=NOTHING))


def best_shares(kept: Kept) -> tuple[float, float]:
    """The share and the temperature of kNN-MT under which the tokens that came are likeliest."""
    right = kept.neighbors.values == kept.said[:, None]

    def likelihood(pair: tuple[float, float]) -> float:
        given = (softened(kept.neighbors, pair[1]) * right).sum(1)
        heard = np.where(kept.neighbors.slots[:, 0] >= 0, pair[0], 0)
        return float(np.log((1 - heard) * kept.own + heard * given + 1e-9).mean())

    return max(product(SHARES, TEMPERATURES), key=likelihood)


def best_cache(kept: Kept) -> tuple[float, float]:
    """The same of the cache, each token asked among the `CACHE` before it."""
    states = kept.states / np.linalg.norm(kept.states, axis=1, keepdims=True)
    given = {sharpness: np.zeros(len(states)) for sharpness in SHARPNESS}
    block = min(CACHE // 4, -(-len(states) // 2))
    for start in range(block, len(states), block):
        rows, before = slice(start, start + block), slice(max(0, start - CACHE), start)
        near = states[rows] @ states[before].T
        right = kept.said[rows][:, None] == kept.said[before]
        for sharpness in SHARPNESS:
            weights = np.exp(sharpness * (near - 1))
            given[sharpness][rows] = (weights * right).sum(1) / weights.sum(1)

    def likelihood(pair: tuple[float, float]) -> float:
        return float(np.log((1 - pair[0]) * kept.own + pair[0] * given[pair[1]] + 1e-9)[block:].mean())

    return max(product(SHARES, SHARPNESS), key=likelihood)


def best_rate(translator: StreamTranslator, held: list[Sentence]) -> float:
    """The rate of fine-tuning under which each sentence is likeliest before it is read."""

    def likelihood(rate: float) -> float:
        tuned, total = translator.tunable(rate), 0.0
        system = Tuned(tuned)
        for sentence in held:
            reading, last, said = forced(tuned, sentence)
            total += float(np.log(reading.probabilities[np.arange(len(said)), said] + 1e-9).sum())
            system.read(sentence.source, reading, last, sentence.target)
        return total

    return max(RATES, key=likelihood)
