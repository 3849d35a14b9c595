"""What both frameworks train: the network's first weights, the episodes, the settings. NumPy only, so that they agree.

An episode shows a few classes, a few times each. All showings are embedded in one pass; the first of each class is written to
the memory, and the others are asked for. The loss is the negative logarithm of the weight that the memory gives to the right
value, and reaches the network through the similarities. The memory has as many slots as an episode has classes, so that each
episode takes the place of the one before, without a reset. (With more slots the network finds a way out: it can tell old keys
from new ones by drifting, and the embedding collapses.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.characters import SIZE, Images
from raremem.config import MemoryConfig

CHANNELS = (1, 32, 64, 64)
"""Three blocks of 3x3 convolution, 2x2 maximum, normalisation over the whole image, ReLU; then one linear map."""
KEY_DIM = 64
NORM_EPSILON = 1e-5
SMALLEST_WEIGHT = 1e-6
LEARNING_RATE = 2e-3
"""Adam's, at the first step; it falls to 0 in a straight line."""

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Recipe:
    """How long and on what to train."""

    steps: int = 1000
    classes: int = 32
    showings: int = 4
    seed: int = 0

    @property
    def memory(self) -> MemoryConfig:
        """The memory of the training episodes."""
        return MemoryConfig(
            slots=self.classes, key_dim=KEY_DIM, neighbors=self.classes, softmax_temperature=15.0, seed=self.seed
        )


class Learner(Protocol):
    """A network in one framework, with its memory and its optimizer."""

    def learn(self, images: Images, targets: NDArray[np.int32]) -> float:
        """One step on an episode [showings, classes, 28, 28] whose classes have these values; returns the loss."""

    def embed(self, images: Images) -> NDArray[np.float32]:
        """Unit embeddings [n, KEY_DIM] of images [n, 28, 28]."""


def first_weights(seed: int) -> Weights:
    """The untrained network: He's initialisation, convolutions as [3, 3, in, out]."""
    generator = np.random.default_rng(seed)
    weights: Weights = {}
    for block, (inputs, outputs) in enumerate(pairwise(CHANNELS)):
        scale = np.sqrt(2 / (9 * inputs))
        weights[f"kernel{block}"] = (scale * generator.normal(size=(3, 3, inputs, outputs))).astype(np.float32)
        weights[f"gain{block}"] = np.ones(outputs, np.float32)
        weights[f"bias{block}"] = np.zeros(outputs, np.float32)
    features = CHANNELS[-1] * (SIZE // 2 ** (len(CHANNELS) - 1)) ** 2
    weights["linear"] = (generator.normal(size=(features, KEY_DIM)) / np.sqrt(features)).astype(np.float32)
    return weights


def episodes(recipe: Recipe, images: Images) -> Iterator[tuple[Images, NDArray[np.int32]]]:
    """Episodes from classes [class, example, 28, 28], each turned by 0, 90, 180 and 270 degrees to make four."""
    generator = np.random.default_rng([recipe.seed, 1])
    for _ in range(recipe.steps):
        turned = generator.choice(4 * len(images), recipe.classes, replace=False)
        episode = np.empty((recipe.showings, recipe.classes, SIZE, SIZE), np.float32)
        for place, choice in enumerate(turned):
            examples = generator.choice(images.shape[1], recipe.showings, replace=False)
            episode[:, place] = np.rot90(images[choice // 4, examples], choice % 4, axes=(1, 2))
        shift = generator.integers(-2, 3, 2)
        yield np.roll(episode, shift, axis=(2, 3)), turned.astype(np.int32)
