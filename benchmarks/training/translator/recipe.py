"""Sizes of the network, its first weights, and the batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.data.corpus import END, PAD, START, Tokens
from raremem.benchmarks.training.learner import TrainingBatch
from raremem.config import MemoryConfig

CLIP = 1.0
MEMORY_SHARE = 0.3
"""Of the memory's own loss in the whole, whose gradient is clipped."""
BUCKETS = (8, 12, 14, 16, 20, 24, 32, 64)
"""Lengths to which both sides of a batch are padded: few, since a compiler makes a program for each."""
WINDOW = 2048
"""Pairs of documents that follow each other, whose batches follow each other."""
ENDLESS = 10**9
"""Steps of a training whose rate does not fall."""
LEAST_SHARE = 1e-9
"""What the right token has of the memory's answer, at least."""
LONGEST = 48
"""Tokens of a translation, at most."""

Weights = dict[str, NDArray[np.float32]]


class Pair(NamedTuple):
    """Source tokens, target tokens, and which of those are of rare words."""

    source: Tokens
    target: Tokens
    rare: list[bool]


Pairs = list[Pair]


class Reading(NamedTuple):
    """What a network makes of T tokens of a translation, in NumPy.

    Attributes:
        probabilities: [T, tokens] f32, of the token that comes next.
        states: [T, dim] f32, attentional states.
        queries: [T, key_dim] f32.
        attention: [T, S] f32, how much of each source token; rows sum to 1.
    """

    probabilities: NDArray[np.float32]
    states: NDArray[np.float32]
    queries: NDArray[np.float32]
    attention: NDArray[np.float32]


@dataclass(frozen=True)
class TranslationRecipe:
    """The network, and how it is trained.

    Attributes:
        steps: batches of training.
        subwords: tokens of each language.
        batch: pairs of sentences in a batch.
        dim: of embeddings and states.
        dropout: of embeddings and attentional states in training.
        key_dim: of queries.
        slots: of the memory.
        neighbors: of the memory.
        rare: the tokens of target words seen no more often than this in training are written to the memory.
        helped: the share of the sentences of a batch that the memory helps in training. The rest are for the network to learn
            by itself: with the memory's help alone it learns no rare word.
        memory: whether there is one.
        mixed: the memory's answer is mixed into the probabilities of the next token, every token is written, and the query sees
            the attentional state too; else what is recalled is added to the state, and only tokens of rare words are written.
        loss: the memory's.
        rate: Adam's learning rate.
        seed: of everything that is random.
    """

    steps: int = 1000
    subwords: int = 8_000
    batch: int = 64
    dim: int = 256
    dropout: float = 0.2
    key_dim: int = 64
    slots: int = 49_152
    neighbors: int = 16
    rare: int = 10
    helped: float = 0.5
    memory: bool = True
    mixed: bool = False
    loss: str = "nll"
    rate: float = 2e-3
    seed: int = 0

    @property
    def config(self) -> MemoryConfig:
        """The memory's."""
        return MemoryConfig(self.slots, self.key_dim, self.neighbors, softmax_temperature=15.0, seed=self.seed, loss=self.loss)

    def further(self, rate: float) -> TranslationRecipe:
        """The network without its memory, to be trained further at that rate."""
        return replace(self, memory=False, dropout=0.0, rate=rate, steps=ENDLESS)


def first_weights(recipe: TranslationRecipe, sizes: tuple[int, int]) -> Weights:
    """The untrained network for so many tokens of each language.

    Linear maps are [in, out]; those of an LSTM for its input, forget, cell and output gates.
    """
    generator = np.random.default_rng([recipe.seed, 0])
    dim = recipe.dim

    def normal(inputs: int, outputs: int) -> NDArray[np.float32]:
        return (generator.normal(size=(inputs, outputs)) / np.sqrt(inputs)).astype(np.float32)

    source, target = sizes
    weights = {
        "source": normal(dim, source).T.copy(),
        "embedding": normal(dim, target).T.copy(),
        "bias": np.zeros(target, np.float32),
        "attend": normal(dim, dim),
        "join": normal(2 * dim, dim),
        "query": normal((3 if recipe.mixed else 2) * dim, recipe.key_dim),
        "gate": normal(dim + 1, 1),
        "gate_bias": np.full(1, -3, np.float32),
        "gain": np.array(8.0, np.float32),
    }
    layers = {"forward": dim // 2, "backward": dim // 2, "encoder": dim, "decoder0": dim, "decoder1": dim}
    for name, size in layers.items():
        weights[f"{name}/input"] = normal(dim, 4 * size)
        weights[f"{name}/hidden"] = normal(size, 4 * size)
        weights[f"{name}/bias"] = np.repeat(np.array([0, 1, 0, 0], np.float32), size)
    return weights


def epoch_of(
    recipe: TranslationRecipe, pairs: Pairs, number: int, documents: NDArray[np.int64] | None = None
) -> list[NDArray[np.int64]]:
    """The batches of an epoch, as places in `pairs`: each of one bucket; pairs that fill no batch are left out this time.

    Args:
        recipe: its batch and its seed.
        pairs: to be trained on.
        number: of the epoch.
        documents: [pairs] the document that each pair stands in, -1: in none; or None. Documents follow each other in another
            order in each epoch, and the pairs of some that follow each other fill batches that do, so that a word comes again
            soon, as it does where a text is read. Batches of pairs in no document are spread among them.
    """
    generator = np.random.default_rng([recipe.seed, 1, number])
    bucket = np.searchsorted(BUCKETS, [max(len(pair.source), len(pair.target)) + 1 for pair in pairs])

    def batches_of(chosen: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        batches = []
        for place in range(len(BUCKETS)):
            members = generator.permutation(chosen[bucket[chosen] == place])
            batches += [
                members[start : start + recipe.batch] for start in range(0, len(members) - recipe.batch + 1, recipe.batch)
            ]
        return [batches[place] for place in generator.permutation(len(batches))]

    if documents is None:
        return batches_of(np.arange(len(pairs)))
    alone = batches_of(np.flatnonzero(documents < 0))
    order = generator.permutation(documents.max() + 1)
    read = np.argsort(np.where(documents < 0, -1, order[documents]), kind="stable")[(documents < 0).sum() :]
    together = [batch for start in range(0, len(read), WINDOW) for batch in batches_of(read[start : start + WINDOW])]
    places = set(generator.choice(len(alone) + len(together), len(together), replace=False).tolist())
    return [(together if place in places else alone).pop() for place in range(len(alone) + len(together))]


def bucket_of(length: int) -> int:
    """The length to which so many tokens are padded: one of `BUCKETS`, or a multiple of the last. One alone is not padded."""
    fits = (bucket for bucket in (1, *BUCKETS) if bucket >= length)
    return next(fits, -(-length // BUCKETS[-1]) * BUCKETS[-1])


def extended(array: NDArray[Any], length: int, axis: int = 0) -> NDArray[Any]:
    """An array that is padded with zeros, which are `PAD`, to that length of one axis."""
    widths = [(0, length - size if place == axis else 0) for place, size in enumerate(array.shape)]
    return np.pad(array, widths) if length > array.shape[axis] else array


def padded(pairs: Pairs) -> TrainingBatch:
    """A batch of pairs.

    Returns:
        Source [B, S], what the decoder reads [B, S], what it should say [B, S], and which of that is rare [B, S].
    """
    longest = max(max(len(pair.source), len(pair.target)) for pair in pairs) + 1
    length = bucket_of(longest)
    source, read, said = (np.full((len(pairs), length), PAD, np.int32) for _ in range(3))
    rare = np.zeros((len(pairs), length), np.bool_)
    for row, pair in enumerate(pairs):
        source[row, : len(pair.source) + 1] = [*pair.source, END]
        read[row, : len(pair.target) + 1] = [START, *pair.target]
        said[row, : len(pair.target) + 1] = [*pair.target, END]
        rare[row, : len(pair.rare)] = pair.rare
    return source, read, said, rare
