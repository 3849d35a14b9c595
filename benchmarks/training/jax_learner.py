"""The base of all learners in JAX: the optimizer with its schedule, the compiled step, and snapshots."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray

from raremem.errors import CheckpointError

Array = jax.Array
Loss = Callable[..., tuple[Array, Any]]


class JaxLearner:
    """A network with its memory.

    Args:
        network: with its first weights.
        state: everything else that training changes, a pytree: the memory.
        loss: `loss(network, state, *batch) -> (loss [], state after)`.
        rate: Adam's at the first step; rates fall to 0 in a straight line.
        steps: over which they do.
        epsilon: Adam's.
        clip: bounds the norm of a step's whole gradient.
        matrix_rate: if given, weights of two dimensions and more are Muon's (Jordan et al., 2024), kernels as matrices
            [height * width * in, out], and this is its rate.
    """

    def __init__(
        self,
        network: nnx.Module,
        state: Any,
        loss: Loss,
        rate: float,
        steps: int,
        epsilon: float = 1e-8,
        clip: float | None = None,
        matrix_rate: float | None = None,
    ) -> None:
        parts: Any = nnx.split(network, nnx.Param, nnx.BatchStat, ...)
        graph, self.weights, self.statistics, rest = parts
        self._network = partial(_network, graph, rest)
        falling = optax.linear_schedule(rate, 0.0, steps)
        if matrix_rate is None:
            optimizer = optax.adam(falling, eps=epsilon)
        else:
            matrices_falling = optax.linear_schedule(matrix_rate, 0.0, steps)
            optimizer = optax.contrib.muon(
                matrices_falling, adam_learning_rate=falling, eps=epsilon, muon_weight_dimension_numbers=_matrices
            )
        if clip is not None:
            optimizer = optax.chain(optax.clip_by_global_norm(clip), optimizer)
        self.moments = optimizer.init(self.weights)
        self.state = state
        self._step = jax.jit(partial(_step, self._network, loss, optimizer), donate_argnums=(0, 1, 2, 3))

    def compiled(self, function: Callable[..., Any], donate: tuple[int, ...] = ()) -> Callable[..., Any]:
        """Compile `function(network, *arguments)` for evaluation. Each call uses the weights of that time.

        Args:
            function: a pure function of the network, in evaluation mode, and of arrays.
            donate: the places of arguments whose arrays may be overwritten.

        Returns:
            A function of `arguments`.
        """

        def call(weights: Any, statistics: Any, *arguments: Any) -> Any:
            network = self._network(weights, statistics)
            network.eval()
            return function(network, *arguments)

        answer = jax.jit(call, donate_argnums=tuple(place + 2 for place in donate))
        return lambda *arguments: answer(self.weights, self.statistics, *arguments)

    def learn(self, *batch: NDArray[Any]) -> float:
        """See `Learner.learn`."""
        self.weights, self.moments, self.statistics, self.state, loss = self._step(
            self.weights, self.moments, self.statistics, self.state, *batch
        )
        return float(loss)

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """See `Learner.to_numpy`."""
        leaves = jax.tree.leaves((self.weights, self.moments, self.statistics, self.state))
        return {f"{place:03}": np.array(leaf) for place, leaf in enumerate(leaves)}

    def from_numpy(self, content: dict[str, NDArray[Any]]) -> None:
        """See `Learner.from_numpy`."""
        leaves, tree = jax.tree.flatten((self.weights, self.moments, self.statistics, self.state))
        found = [content[name] for name in sorted(content)]
        if [array.shape for array in found] != [leaf.shape for leaf in leaves]:
            raise CheckpointError(
                "the snapshot's arrays are not those of this network: another version wrote it; expected its own. "
                "Name another --out, or delete it to begin again."
            )
        self.weights, self.moments, self.statistics, self.state = jax.tree.unflatten(tree, map(jnp.asarray, found))


def _network(graph: Any, rest: Any, weights: Any, statistics: Any) -> Any:
    """The network with these weights and a copy of the statistics, which its layers update in place."""
    return nnx.merge(graph, weights, jax.tree.map(jnp.asarray, statistics), rest)


def _step(
    network_of: Callable[[Any, Any], Any],
    loss: Loss,
    optimizer: optax.GradientTransformation,
    weights: Any,
    moments: optax.OptState,
    statistics: Any,
    state: Any,
    *batch: Array,
) -> tuple[Any, optax.OptState, Any, Any, Array]:
    def of_weights(weights: Any) -> tuple[Array, Any]:
        network = network_of(weights, statistics)
        value, after = loss(network, state, *batch)
        return value, (nnx.state(network, nnx.BatchStat), after)

    (value, (statistics, state)), gradients = jax.value_and_grad(of_weights, has_aux=True)(weights)
    updates, moments = optimizer.update(gradients, moments, weights)
    return optax.apply_updates(weights, updates), moments, statistics, jax.lax.stop_gradient(state), value


def _matrices(weights: Any) -> Any:
    """For each weight the axes that Muon takes as inputs and as outputs; None for a vector, which is Adam's."""
    numbers = optax.contrib.MuonDimensionNumbers
    return jax.tree.map(lambda w: numbers(tuple(range(w.ndim - 1)), w.ndim - 1) if w.ndim > 1 else None, weights)


def initial(weights: NDArray[np.float32]) -> Callable[..., Array]:
    """An initializer that returns these weights in the shape of the layer."""
    return lambda key, shape, *rest: jnp.asarray(weights.reshape(shape))
