"""What both frameworks share: settings, first weights and episodes, in NumPy, so that both train alike.

An episode shows a few classes, a few times each. All showings are embedded in one pass. Then each has its turn: it is written
to the memory, and the others are asked for. Keys are constants, so only in turns does the memory's loss reach every embedding.
A class has another value in every turn, and the memory has as many slots as an episode has classes, so that each turn takes the
place of the one before, without a reset. (With more slots the network finds a way out: it can tell old keys from new ones by
drifting, and the embedding collapses.)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.data.characters import SIZE, Images
from raremem.benchmarks.data.distortion import distort
from raremem.benchmarks.training.learner import Learner, framework_module
from raremem.config import MemoryConfig

SHAPES = 8
"""Of each character: turned by 0, 90, 180 and 270 degrees, and mirrored."""
NORM_EPSILON = 1e-5
NORM_MOMENTUM = 0.1
NEIGHBORS = 32
"""Of a training query: the nearest classes are those to tell apart."""

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class EmbeddingRecipe:
    """How long to train, on what, and how large a network.

    Attributes:
        steps: episodes.
        classes: classes in an episode.
        showings: showings of each class in an episode.
        channels: maps of each block, the input's one first. A block is a 3x3 convolution, a 2x2 maximum, a batch
            normalisation, and a ReLU; after the last comes one linear map.
        residual: blocks but the first take the maximum last, after a second convolution, normalisation and ReLU, which are
            added to what the first gave.
        key_dim: what the linear map leads to.
        distortion: how strongly every image is turned, scaled, slanted and shifted; if 0, an episode is shifted as a whole.
        loss: the memory's.
        rate: Adam's learning rate, for gains and biases.
        matrix_rate: Muon's learning rate, for kernels and the linear map.
        seed: of the first weights and of the episodes.
    """

    steps: int = 1000
    classes: int = 32
    showings: int = 4
    channels: tuple[int, ...] = (1, 32, 64, 64)
    residual: bool = False
    key_dim: int = 64
    distortion: float = 0.0
    loss: str = "nll"
    rate: float = 6e-3
    matrix_rate: float = 0.05
    seed: int = 0

    @property
    def layers(self) -> list[tuple[str, int, int]]:
        """Each convolution: its name, which ends in `b` if it is a block's second, and the maps into and out of it."""
        layers = []
        for block, (inputs, outputs) in enumerate(pairwise(self.channels)):
            layers.append((str(block), inputs, outputs))
            if self.residual and block:
                layers.append((f"{block}b", outputs, outputs))
        return layers

    @property
    def memory(self) -> MemoryConfig:
        """The memory of the training episodes."""
        return MemoryConfig(
            slots=self.classes,
            key_dim=self.key_dim,
            neighbors=NEIGHBORS,
            softmax_temperature=15.0,
            seed=self.seed,
            loss=self.loss,
        )


class Embedder(Learner, Protocol):
    """A learner whose network embeds images."""

    def embed(self, images: Images) -> NDArray[np.float32]:
        """Unit embeddings [n, key_dim] of images [n, 28, 28]."""


def make_embedder(backend: str, recipe: EmbeddingRecipe) -> Embedder:
    """The network in that framework.

    Raises:
        MissingPackageError: the framework, or a package of the extra `bench`, is not installed.
    """
    return framework_module("training.embedding", backend).make(recipe)


def first_weights(recipe: EmbeddingRecipe) -> Weights:
    """The untrained network: He's initialisation, kernels as matrices [3 * 3 * in, out]."""
    generator = np.random.default_rng(recipe.seed)
    weights: Weights = {}
    for name, inputs, outputs in recipe.layers:
        scale = np.sqrt(2 / (9 * inputs))
        weights[f"kernel{name}"] = (scale * generator.normal(size=(9 * inputs, outputs))).astype(np.float32)
        weights[f"gain{name}"] = np.ones(outputs, np.float32)
        weights[f"bias{name}"] = np.zeros(outputs, np.float32)
    features = recipe.channels[-1] * (SIZE // 2 ** (len(recipe.channels) - 1)) ** 2
    weights["linear"] = (generator.normal(size=(features, recipe.key_dim)) / np.sqrt(features)).astype(np.float32)
    return weights


def episode(recipe: EmbeddingRecipe, images: Images, step: int) -> tuple[Images, NDArray[np.int32]]:
    """An episode from classes [class, example, 28, 28], each turned by 0, 90, 180 and 270 degrees to make four, and mirrored.

    It depends on the seed and the step alone: images [showings, classes, 28, 28], and the value [showings, classes] that each
    class has while a showing has its turn.
    """
    generator = np.random.default_rng([recipe.seed, 1, step])
    classes = generator.choice(SHAPES * len(images), recipe.classes, replace=False)
    shown: Images = np.empty((recipe.showings, recipe.classes, SIZE, SIZE), np.float32)
    for place, choice in enumerate(classes):
        examples = generator.choice(images.shape[1], recipe.showings, replace=False)
        turned = np.rot90(images[choice // SHAPES, examples], choice % 4, axes=(1, 2))
        shown[:, place] = turned[:, ::-1] if choice % SHAPES >= 4 else turned
    if recipe.distortion:
        shown = distort(generator, shown.reshape(-1, SIZE, SIZE), recipe.distortion).reshape(shown.shape)
    else:
        shown = np.roll(shown, generator.integers(-2, 3, 2), axis=(2, 3))
    return shown, (classes + SHAPES * len(images) * np.arange(recipe.showings)[:, None]).astype(np.int32)


def embed_views(embedder: Embedder, images: Images, views: int, distortion: float) -> NDArray[np.float32]:
    """Unit embeddings [n, key_dim] of images [n, 28, 28]: the mean over each image as it is and distorted in other ways."""
    generator = np.random.default_rng(views)
    rows = embedder.embed(images) + sum(embedder.embed(distort(generator, images, distortion)) for _ in range(views - 1))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
