"""What the learners of all tasks share in JAX: the optimizer, its schedule, the compiled step, and snapshots."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

Array = jax.Array
Weights = dict[str, Any]
Loss = Callable[..., tuple[Array, Any]]


class JaxLearner:
    """A network with its memory.

    Args:
        weights: the network's first weights, a pytree of NumPy arrays.
        state: everything else that training changes, a pytree: the memory.
        loss: `loss(weights, state, *batch) -> (loss [], state after)`.
        rate: Adam's at the first step; rates fall to 0 in a straight line.
        steps: over which they do.
        epsilon: Adam's.
        clip: bounds the norm of a step's whole gradient.
        matrix_rate: if given, weights of two dimensions are Muon's (Jordan et al., 2024), and this is its rate.
    """

    def __init__(
        self,
        weights: Weights,
        state: Any,
        loss: Loss,
        rate: float,
        steps: int,
        epsilon: float = 1e-8,
        clip: float | None = None,
        matrix_rate: float | None = None,
    ) -> None:
        falling = optax.linear_schedule(rate, 0.0, steps)
        if matrix_rate is None:
            optimizer = optax.adam(falling, eps=epsilon)
        else:
            matrices_falling = optax.linear_schedule(matrix_rate, 0.0, steps)
            optimizer = optax.contrib.muon(matrices_falling, adam_learning_rate=falling, eps=epsilon)
        if clip is not None:
            optimizer = optax.chain(optax.clip_by_global_norm(clip), optimizer)
        self.weights: Weights = jax.tree.map(jnp.asarray, weights)
        self.moments = optimizer.init(self.weights)
        self.state = state
        self._step = jax.jit(partial(_step, loss, optimizer), donate_argnums=(0, 1, 2))

    def learn(self, *batch: NDArray[Any]) -> float:
        """See `Learner.learn`."""
        self.weights, self.moments, self.state, loss = self._step(self.weights, self.moments, self.state, *batch)
        return float(loss)

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """See `Learner.to_numpy`."""
        leaves = jax.tree.leaves((self.weights, self.moments, self.state))
        return {f"{place:03}": np.array(leaf) for place, leaf in enumerate(leaves)}

    def from_numpy(self, content: dict[str, NDArray[Any]]) -> None:
        """See `Learner.from_numpy`."""
        tree = jax.tree.structure((self.weights, self.moments, self.state))
        leaves = [jnp.asarray(content[name]) for name in sorted(content)]
        self.weights, self.moments, self.state = jax.tree.unflatten(tree, leaves)


def _step(
    loss: Loss, optimizer: optax.GradientTransformation, weights: Weights, moments: optax.OptState, state: Any, *batch: Array
) -> tuple[Weights, optax.OptState, Any, Array]:
    (value, state), gradients = jax.value_and_grad(loss, has_aux=True)(weights, state, *batch)
    updates, moments = optimizer.update(gradients, moments, weights)
    return optax.apply_updates(weights, updates), moments, jax.lax.stop_gradient(state), value


def convolve(x: Array, kernel: Array) -> Array:
    """x [n, height, width, in] with kernel [3, 3, in, out] or [9 * in, out], zeros around it.

    As one product: on a CPU faster than XLA's own convolution, forwards and backwards.
    """
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = [padded[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]
    return jnp.concatenate(windows, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])
