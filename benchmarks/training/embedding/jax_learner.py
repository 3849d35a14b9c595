"""The embedding network in JAX."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from raremem.adapters import jax as memory
from raremem.benchmarks.data.characters import Images
from raremem.benchmarks.training.embedding.recipe import (
    LEARNING_RATE,
    MATRIX_RATE,
    NORM_EPSILON,
    NORM_MOMENTUM,
    EmbeddingRecipe,
    first_weights,
)
from raremem.benchmarks.training.jax_learner import Array, JaxLearner, Weights, convolve
from raremem.config import MemoryConfig
from raremem.state import MemoryState

Moments = dict[str, tuple[Array, Array]]
"""Mean and variance of the maps that each convolution gives."""


class JaxEmbedder(JaxLearner):
    """A convolutional network that learns through a memory."""

    def __init__(self, recipe: EmbeddingRecipe) -> None:
        running = {name: (jnp.zeros(maps), jnp.ones(maps)) for name, _, maps in recipe.layers}
        state = memory.init(recipe.memory), running
        loss = partial(_loss, recipe.memory)
        super().__init__(first_weights(recipe), state, loss, LEARNING_RATE, recipe.steps, matrix_rate=MATRIX_RATE)

    def embed(self, images: Images) -> NDArray[np.float32]:
        """See `Embedder.embed`."""
        padded = np.concatenate([images, np.zeros((-len(images) % 256, *images.shape[1:]), np.float32)])
        parts = [np.asarray(_embed_unit(self.weights, self.state[1], part)) for part in np.split(padded, len(padded) // 256)]
        return np.concatenate(parts)[: len(images)]


def _embed(weights: Weights, images: Array, running: Moments | None) -> tuple[Array, Moments]:
    """Embeddings [n, key_dim] of images [n, 28, 28], normalised by `running` or else by the batch; and the batch's moments."""
    moments: Moments = {}

    def normalize(name: str, x: Array) -> Array:
        moments[name] = x.mean((0, 1, 2)), x.var((0, 1, 2))
        mean, variance = moments[name] if running is None else running[name]
        x = (x - mean) / jnp.sqrt(variance + NORM_EPSILON)
        return jax.nn.relu(x * weights[f"gain{name}"] + weights[f"bias{name}"])

    x = images[..., None]
    for block in range(sum(name.startswith("kernel") and name[6:].isdigit() for name in weights)):
        name, second = str(block), f"{block}b"
        x = convolve(x, weights[f"kernel{name}"])
        if f"kernel{second}" in weights:
            x = normalize(name, x)
            x = _largest_of_four(x + normalize(second, convolve(x, weights[f"kernel{second}"])))
        else:
            x = normalize(name, _largest_of_four(x))
    return x.reshape(len(x), -1) @ weights["linear"], moments


def _largest_of_four(x: Array) -> Array:
    """2x2 maximum; an odd last row or column is left out."""
    height, width = x.shape[1] // 2, x.shape[2] // 2
    return x[:, : 2 * height, : 2 * width].reshape(len(x), height, 2, width, 2, -1).max((2, 4))


@jax.jit
def _embed_unit(weights: Weights, running: Moments, images: Array) -> Array:
    rows, _ = _embed(weights, images, running)
    return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)


def _loss(
    config: MemoryConfig, weights: Weights, before: tuple[MemoryState, Moments], images: Array, targets: Array
) -> tuple[Array, tuple[MemoryState, Moments]]:
    """The mean over the turns of all showings: one of each class is written, the others are asked for."""
    state, running = before
    rows, moments = _embed(weights, images.reshape(-1, *images.shape[2:]), None)
    queries = rows.reshape(*targets.shape, -1)

    def turn(state: MemoryState, place_and_values: tuple[Array, Array]) -> tuple[MemoryState, Array]:
        place, values = place_and_values
        first, *others = jnp.roll(queries, -place, axis=0)
        state, _ = memory.update(config, state, first, values)
        out = memory.query(config, state, jnp.concatenate(others), jnp.tile(values, len(others)))
        assert out.loss is not None
        return state, out.loss.mean()

    state, losses = jax.lax.scan(turn, state, (jnp.arange(len(targets)), targets))
    running = jax.tree.map(lambda old, new: (1 - NORM_MOMENTUM) * old + NORM_MOMENTUM * new, running, moments)
    return losses.mean(), (state, running)


def make(recipe: EmbeddingRecipe) -> JaxEmbedder:
    """See `recipe.make_embedder`."""
    return JaxEmbedder(recipe)
