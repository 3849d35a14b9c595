"""The demo's network in JAX."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from raremem.adapters import jax as memory
from raremem.benchmarks.characters import Images
from raremem.benchmarks.embedding.recipe import LEARNING_RATE, NORM_EPSILON, SMALLEST_WEIGHT, Recipe, first_weights
from raremem.config import MemoryConfig
from raremem.state import MemoryState

Array = jax.Array
Weights = dict[str, Array]


class JaxLearner:
    """A convolutional network that learns through a memory."""

    def __init__(self, recipe: Recipe) -> None:
        self.config = recipe.memory
        self.weights = jax.tree.map(jnp.asarray, first_weights(recipe))
        optimizer = optax.adam(optax.linear_schedule(LEARNING_RATE, 0.0, recipe.steps))
        self.optimizer_state = optimizer.init(self.weights)
        self.step = jax.jit(partial(_step, self.config, optimizer), donate_argnums=(0, 1, 2))
        self.state = memory.init(self.config)

    def learn(self, images: Images, targets: NDArray[np.int32]) -> float:
        """See `Learner.learn`."""
        self.weights, self.optimizer_state, self.state, loss = self.step(
            self.weights, self.optimizer_state, self.state, images, targets
        )
        return float(loss)

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """See `Learner.to_numpy`."""
        leaves = jax.tree.leaves((self.weights, self.optimizer_state, self.state))
        return {f"{place:03}": np.array(leaf) for place, leaf in enumerate(leaves)}

    def from_numpy(self, content: dict[str, NDArray[Any]]) -> None:
        """See `Learner.from_numpy`."""
        tree = jax.tree.structure((self.weights, self.optimizer_state, self.state))
        leaves = [jnp.asarray(content[name]) for name in sorted(content)]
        self.weights, self.optimizer_state, self.state = jax.tree.unflatten(tree, leaves)

    def embed(self, images: Images) -> NDArray[np.float32]:
        """See `Learner.embed`."""
        padded = np.concatenate([images, np.zeros((-len(images) % 256, *images.shape[1:]), np.float32)])
        parts = [np.asarray(_embed_unit(self.weights, part)) for part in np.split(padded, len(padded) // 256)]
        return np.concatenate(parts)[: len(images)]


def _embed(weights: Weights, images: Array) -> Array:
    """Embeddings [n, KEY_DIM] of images [n, 28, 28]."""
    x = images[..., None]
    for block in range(sum(name.startswith("kernel") for name in weights)):
        x = _largest_of_four(_convolve(x, weights[f"kernel{block}"]))
        mean, variance = x.mean((1, 2, 3), keepdims=True), x.var((1, 2, 3), keepdims=True)
        x = (x - mean) / jnp.sqrt(variance + NORM_EPSILON)
        x = jax.nn.relu(x * weights[f"gain{block}"] + weights[f"bias{block}"])
    return x.reshape(len(x), -1) @ weights["linear"]


def _convolve(x: Array, kernel: Array) -> Array:
    """A 3x3 convolution as one product: on a CPU faster than XLA's own, forwards and backwards."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = [padded[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]
    return jnp.concatenate(windows, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _largest_of_four(x: Array) -> Array:
    """2x2 maximum; an odd last row or column is left out."""
    height, width = x.shape[1] // 2, x.shape[2] // 2
    return x[:, : 2 * height, : 2 * width].reshape(len(x), height, 2, width, 2, -1).max((2, 4))


@jax.jit
def _embed_unit(weights: Weights, images: Array) -> Array:
    rows = _embed(weights, images)
    return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)


def _step(
    config: MemoryConfig,
    optimizer: optax.GradientTransformation,
    weights: Weights,
    optimizer_state: optax.OptState,
    state: MemoryState,
    images: Array,
    targets: Array,
) -> tuple[Weights, optax.OptState, MemoryState, Array]:
    showings, classes = images.shape[:2]
    asked = jnp.tile(targets, showings - 1)

    def loss(weights: Weights) -> tuple[Array, MemoryState]:
        queries = _embed(weights, images.reshape(-1, *images.shape[2:]))
        written, _ = memory.update(config, state, queries[:classes], targets)
        out = memory.query(config, written, queries[classes:], asked)
        weight = jnp.where(out.values == asked[:, None], out.weights, 0.0).sum(axis=1)
        return -jnp.log(weight + SMALLEST_WEIGHT).mean(), jax.lax.stop_gradient(written)

    (value, state), gradients = jax.value_and_grad(loss, has_aux=True)(weights)
    updates, optimizer_state = optimizer.update(gradients, optimizer_state)
    return optax.apply_updates(weights, updates), optimizer_state, state, value
