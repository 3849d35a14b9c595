"""The embedding network in JAX."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from raremem.adapters import jax as memory
from raremem.benchmarks.data.characters import Images
from raremem.benchmarks.training.embedding.recipe import NORM_EPSILON, NORM_MOMENTUM, EmbeddingRecipe, first_weights
from raremem.benchmarks.training.jax_learner import Array, JaxLearner, initial
from raremem.config import MemoryConfig
from raremem.state import MemoryState

AT_ONCE = 256
"""Images that are embedded by one call."""


class Network(nnx.Module):
    """The network that `EmbeddingRecipe` describes."""

    def __init__(self, recipe: EmbeddingRecipe) -> None:
        weights, rngs = first_weights(recipe), nnx.Rngs(recipe.seed)
        self.blocks = len(recipe.channels) - 1
        for name, inputs, outputs in recipe.layers:
            kernel = initial(weights[f"kernel{name}"])
            norm = nnx.BatchNorm(outputs, momentum=1 - NORM_MOMENTUM, epsilon=NORM_EPSILON, use_fast_variance=False, rngs=rngs)
            setattr(
                self, f"convolution{name}", nnx.Conv(inputs, outputs, (3, 3), use_bias=False, kernel_init=kernel, rngs=rngs)
            )
            setattr(self, f"norm{name}", norm)
        linear = weights["linear"]
        self.linear = nnx.Linear(*linear.shape, use_bias=False, kernel_init=initial(linear), rngs=rngs)

    def __call__(self, images: Array) -> Array:
        """Embeddings [n, key_dim] of images [n, 28, 28]."""
        x = images[..., None]
        for block in range(self.blocks):
            x = self._block(str(block), x)
        return self.linear(x.reshape(len(x), -1))

    def _block(self, name: str, x: Array) -> Array:
        x, second = getattr(self, f"convolution{name}")(x), f"{name}b"
        if not hasattr(self, f"norm{second}"):
            return nnx.relu(getattr(self, f"norm{name}")(_largest_of_four(x)))
        x = nnx.relu(getattr(self, f"norm{name}")(x))
        return _largest_of_four(x + nnx.relu(getattr(self, f"norm{second}")(getattr(self, f"convolution{second}")(x))))


class JaxEmbedder(JaxLearner):
    """A convolutional network that learns through a memory."""

    def __init__(self, recipe: EmbeddingRecipe) -> None:
        state, loss = memory.init(recipe.memory), partial(_loss, recipe.memory)
        super().__init__(Network(recipe), state, loss, recipe.rate, recipe.steps, matrix_rate=recipe.matrix_rate)
        self._embed = self.compiled(_embed_unit)

    def embed(self, images: Images) -> NDArray[np.float32]:
        """See `Embedder.embed`."""
        padded = np.concatenate([images, np.zeros((-len(images) % AT_ONCE, *images.shape[1:]), np.float32)])
        parts = [np.asarray(self._embed(part)) for part in np.split(padded, len(padded) // AT_ONCE)]
        return np.concatenate(parts)[: len(images)]


def _largest_of_four(x: Array) -> Array:
    """2x2 maximum; an odd last row or column is left out. (Twice as fast on a CPU, with its gradient, as `nnx.max_pool`.)"""
    height, width = x.shape[1] // 2, x.shape[2] // 2
    return x[:, : 2 * height, : 2 * width].reshape(len(x), height, 2, width, 2, -1).max((2, 4))


def _embed_unit(network: Network, images: Array) -> Array:
    rows = network(images)
    return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)


def _loss(
    config: MemoryConfig, network: Network, state: MemoryState, images: Array, targets: Array
) -> tuple[Array, MemoryState]:
    """The mean over the turns of all showings: one of each class is written, the others are asked for."""
    queries = network(images.reshape(-1, *images.shape[2:])).reshape(*targets.shape, -1)

    def turn(state: MemoryState, place_and_values: tuple[Array, Array]) -> tuple[MemoryState, Array]:
        place, values = place_and_values
        first, *others = jnp.roll(queries, -place, axis=0)
        state, _ = memory.update(config, state, first, values)
        out = memory.query(config, state, jnp.concatenate(others), jnp.tile(values, len(others)))
        assert out.loss is not None
        return state, out.loss.mean()

    state, losses = jax.lax.scan(turn, state, (jnp.arange(len(targets)), targets))
    return losses.mean(), state


def make(recipe: EmbeddingRecipe) -> JaxEmbedder:
    """See `recipe.make_embedder`."""
    return JaxEmbedder(recipe)
