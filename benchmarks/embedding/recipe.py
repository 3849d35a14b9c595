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
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import raremem
from raremem.benchmarks.characters import SIZE, Images
from raremem.config import MemoryConfig
from raremem.errors import MissingPackageError

KEY_DIM = 64
NORM_EPSILON = 1e-5
SMALLEST_WEIGHT = 1e-6
LEARNING_RATE = 2e-3
"""Adam's, at the first step; it falls to 0 in a straight line."""

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Recipe:
    """How long to train, on what, and how large a network.

    Attributes:
        steps: episodes.
        classes: classes in an episode.
        showings: showings of each class in an episode.
        channels: maps of each block, the input's one first. A block is a 3x3 convolution, a 2x2 maximum, a normalisation over
            the whole image, and a ReLU; after the last comes one linear map.
        distorted: every image is turned, scaled, slanted and shifted a little.
        seed: of the first weights and of the episodes.
    """

    steps: int = 1000
    classes: int = 32
    showings: int = 4
    channels: tuple[int, ...] = (1, 32, 64, 64)
    distorted: bool = False
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

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """Everything that training has changed, so that it can be resumed."""

    def from_numpy(self, content: dict[str, NDArray[Any]]) -> None:
        """Go on from there."""

    def embed(self, images: Images) -> NDArray[np.float32]:
        """Unit embeddings [n, KEY_DIM] of images [n, 28, 28]."""


def first_weights(recipe: Recipe) -> Weights:
    """The untrained network: He's initialisation, convolutions as [3, 3, in, out]."""
    generator = np.random.default_rng(recipe.seed)
    weights: Weights = {}
    for block, (inputs, outputs) in enumerate(pairwise(recipe.channels)):
        scale = np.sqrt(2 / (9 * inputs))
        weights[f"kernel{block}"] = (scale * generator.normal(size=(3, 3, inputs, outputs))).astype(np.float32)
        weights[f"gain{block}"] = np.ones(outputs, np.float32)
        weights[f"bias{block}"] = np.zeros(outputs, np.float32)
    features = recipe.channels[-1] * (SIZE // 2 ** (len(recipe.channels) - 1)) ** 2
    weights["linear"] = (generator.normal(size=(features, KEY_DIM)) / np.sqrt(features)).astype(np.float32)
    return weights


def make_learner(backend: str, recipe: Recipe) -> Learner:
    """The learner of that framework.

    Raises:
        MissingPackageError: the framework, or a package of the extra `bench`, is not installed.
    """
    raremem.get_backend(backend)
    try:
        if backend == "torch":
            from raremem.benchmarks.embedding.torch_learner import TorchLearner

            return TorchLearner(recipe)
        from raremem.benchmarks.embedding.jax_learner import JaxLearner

        return JaxLearner(recipe)
    except ImportError as error:
        raise MissingPackageError(f"training needs {error.name}: pip install 'raremem[bench]'") from error


def episodes(recipe: Recipe, images: Images, start: int = 0) -> Iterator[tuple[Images, NDArray[np.int32]]]:
    """Episodes from classes [class, example, 28, 28], each turned by 0, 90, 180 and 270 degrees to make four.

    The episode of a step depends on the seed and the step alone.
    """
    for step in range(start, recipe.steps):
        generator = np.random.default_rng([recipe.seed, 1, step])
        turned = generator.choice(4 * len(images), recipe.classes, replace=False)
        episode: Images = np.empty((recipe.showings, recipe.classes, SIZE, SIZE), np.float32)
        for place, choice in enumerate(turned):
            examples = generator.choice(images.shape[1], recipe.showings, replace=False)
            episode[:, place] = np.rot90(images[choice // 4, examples], choice % 4, axes=(1, 2))
        if recipe.distorted:
            episode = distort(generator, episode.reshape(-1, SIZE, SIZE)).reshape(episode.shape)
        else:
            episode = np.roll(episode, generator.integers(-2, 3, 2), axis=(2, 3))
        yield episode, turned.astype(np.int32)


def distort(generator: np.random.Generator, images: Images) -> Images:
    """Images [n, 28, 28], each turned (by 10 degrees or so), scaled, slanted and shifted in its own way."""
    count = len(images)
    matrix = np.eye(2) + generator.normal(0, 0.1, (count, 2, 2))
    turn = generator.normal(0, 0.15, count)
    rotation = np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], axis=1).reshape(-1, 2, 2)
    grid = np.indices((SIZE, SIZE)).reshape(2, -1) - (SIZE - 1) / 2
    places = (matrix @ rotation) @ grid + generator.normal(0, 1.0, (count, 2, 1)) + (SIZE - 1) / 2
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2)))
    places = np.clip(places + 1, 0, SIZE + 1)
    low = places.astype(np.int32)
    part = (places - low).astype(np.float32)
    row, column = low[:, 0], low[:, 1]
    of_image = np.arange(count)[:, None]
    top = padded[of_image, row, column] * (1 - part[:, 1]) + padded[of_image, row, column + 1] * part[:, 1]
    bottom = padded[of_image, row + 1, column] * (1 - part[:, 1]) + padded[of_image, row + 1, column + 1] * part[:, 1]
    return (top * (1 - part[:, 0]) + bottom * part[:, 0]).reshape(images.shape)
