"""The task in NumPy: the function, the sequences, the sizes of the network, and its first weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from raremem.config import MemoryConfig

EPSILON = 1e-5
"""Adam's. Larger than usual: rows of the output embedding that are hardly ever right get tiny gradients, all alike, and with
1e-8 they would move as fast as the others, in one direction."""

Weights = dict[str, NDArray[np.float32]]
Symbols = NDArray[np.int32]


@dataclass(frozen=True)
class SymbolsRecipe:
    """The task, and the network.

    Attributes:
        steps: batches of training.
        symbols: how many there are.
        unseen: how many of them are never shown in training.
        rarest: how often the rarest of the others is expected in the whole of training.
        batch: sequences in a batch.
        length: symbols in a sequence.
        maps: channels of the network's state [width, length, maps]; also the dimension of queries and embeddings.
        width: rows of the state; symbols stand in the first.
        before: recurrent steps before the memory is asked.
        after: recurrent steps after it has answered.
        slots: of the memory.
        neighbors: of the memory.
        memory: whether there is one.
        loss: the memory's.
        rate: Adam's learning rate.
        seed: of everything that is random.
    """

    steps: int = 1000
    symbols: int = 16_000
    unseen: int = 1_000
    rarest: float = 1.0
    batch: int = 32
    length: int = 16
    maps: int = 32
    width: int = 4
    before: int = 4
    after: int = 2
    slots: int = 32_768
    neighbors: int = 8
    memory: bool = True
    loss: str = "margin"
    rate: float = 4e-3
    seed: int = 0

    @property
    def config(self) -> MemoryConfig:
        """The memory's."""
        return MemoryConfig(self.slots, self.maps, self.neighbors, seed=self.seed, loss=self.loss)

    @cached_property
    def function(self) -> Symbols:
        """The answer [symbols] to each symbol."""
        return np.random.default_rng([self.seed, 0]).integers(0, self.symbols, self.symbols).astype(np.int32)

    @cached_property
    def order(self) -> Symbols:
        """The symbols [symbols], first those never shown, then the others, most frequent first."""
        return np.random.default_rng([self.seed, 1]).permutation(self.symbols).astype(np.int32)

    @cached_property
    def frequencies(self) -> NDArray[np.float64]:
        """How likely each symbol [symbols - unseen] of `order[unseen:]` is to be drawn."""
        ranks = 1.0 + np.arange(self.symbols - self.unseen)
        drawn = self.steps * self.batch * self.length
        low, high = 0.0, 4.0
        for _ in range(40):
            middle = (low + high) / 2
            shares = ranks**-middle / (ranks**-middle).sum()
            low, high = (middle, high) if shares[-1] * drawn > self.rarest else (low, middle)
        return shares

    def batch_at(self, step: int) -> tuple[Symbols, Symbols, NDArray[np.bool_]]:
        """The batch of a step of training: it depends on the seed and the step alone."""
        generator = np.random.default_rng([self.seed, 2, step])
        places = generator.choice(len(self.frequencies), (self.batch, self.length), p=self.frequencies)
        return self.with_answers(self.order[self.unseen + places])

    def with_answers(self, sequences: Symbols) -> tuple[Symbols, Symbols, NDArray[np.bool_]]:
        """Sequences [B, length], the answers [B, length] due at each place, and where one is due: all but the first."""
        due = np.zeros(sequences.shape, np.bool_)
        due[:, 1:] = True
        answers = np.zeros_like(sequences)
        answers[:, 1:] = self.function[sequences[:, :-1]]
        return sequences, answers, due


def first_weights(recipe: SymbolsRecipe) -> Weights:
    """The untrained network.

    Standard deviations are 1 / sqrt(3 inputs), at which a cell passes on what it holds; at 1 / sqrt(inputs) new symbols were
    answered half as often. Rows of the output embedding count by their direction alone: those of answers seen often grow, and
    outvote what the memory recalls for a new symbol. A cell's update and reset gates are one 3x3 convolution [3, 3, in, out];
    `tape` is what all three gates of a cell read from the tape.
    """
    generator = np.random.default_rng([recipe.seed, 3])
    maps = recipe.maps

    def normal(*shape: int, scale: float) -> NDArray[np.float32]:
        return (scale * generator.normal(size=shape)).astype(np.float32)

    weights = {
        "input": normal(recipe.symbols, maps, scale=2 / np.sqrt(maps)),
        "output": normal(recipe.symbols, maps, scale=1 / np.sqrt(maps)),
        "linear": normal(maps, maps, scale=1 / np.sqrt(3 * maps)),
        "scale": np.array(8.0, np.float32),
        "gain": np.array(1.0, np.float32),
        "tape": normal(3, 3, maps, 3 * maps, scale=1 / np.sqrt(27 * maps)),
    }
    for cell in ("before0", "before1", "after0", "after1"):
        weights[f"{cell}/gates"] = normal(3, 3, maps, 2 * maps, scale=1 / np.sqrt(27 * maps))
        weights[f"{cell}/gates_bias"] = np.ones(2 * maps, np.float32)
        weights[f"{cell}/candidate"] = normal(3, 3, maps, maps, scale=1 / np.sqrt(27 * maps))
        weights[f"{cell}/candidate_bias"] = np.zeros(maps, np.float32)
    return weights
