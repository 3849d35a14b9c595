"""The Extended Neural GPU with a memory in it, in JAX."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray

from raremem import Lookup, MemoryState
from raremem.adapters import jax as memory
from raremem.benchmarks.tasks.symbols.recipe import EPSILON, Symbols, SymbolsRecipe, Weights, first_weights
from raremem.benchmarks.training.jax_learner import Array, JaxLearner, initial


class Cell(nnx.Module):
    """A convolutional gated recurrent unit."""

    def __init__(self, weights: Weights, name: str, maps: int, rngs: nnx.Rngs) -> None:
        self.gates = _convolution(weights, f"{name}/gates", maps, 2 * maps, rngs)
        self.candidate = _convolution(weights, f"{name}/candidate", maps, maps, rngs)

    def __call__(self, state: Array, tape: Array | None = None) -> Array:
        """The state after; `tape` [B, width, length, 3 maps] is added to what the gates take in."""
        maps = state.shape[-1]
        gates = self.gates(state)
        update, reset = jnp.split(nnx.sigmoid(gates if tape is None else gates + tape[..., : 2 * maps]), 2, axis=-1)
        candidate = self.candidate(reset * state)
        return update * state + (1 - update) * jnp.tanh(candidate if tape is None else candidate + tape[..., 2 * maps :])


class Network(nnx.Module):
    """The network. Its state is [B, width, length, maps]."""

    def __init__(self, recipe: SymbolsRecipe) -> None:
        weights, maps, rngs = first_weights(recipe), recipe.maps, nnx.Rngs(recipe.seed)
        self.recipe = recipe
        self.input = nnx.Embed(recipe.symbols, maps, embedding_init=initial(weights["input"]), rngs=rngs)
        self.output, self.scale, self.gain = (nnx.Param(jnp.asarray(weights[name])) for name in ("output", "scale", "gain"))
        self.linear = nnx.Linear(maps, maps, use_bias=False, kernel_init=initial(weights["linear"]), rngs=rngs)
        self.tape = _convolution(weights, "tape", maps, 3 * maps, rngs)
        self.before0, self.before1 = (Cell(weights, f"before{place}", maps, rngs) for place in range(2))
        self.after0, self.after1 = (Cell(weights, f"after{place}", maps, rngs) for place in range(2))

    def __call__(
        self, state: MemoryState | None, symbols: Array, answers: Array | None = None, due: Array | None = None
    ) -> tuple[Array, Lookup | None]:
        """Logits [B * length, symbols], and what the memory answered."""
        recipe = self.recipe
        output = self.output[...] / jnp.linalg.norm(self.output[...], axis=1, keepdims=True)
        cells = _repeat(recipe.before, lambda cells: self.before1(self.before0(cells)), self._row(self.input(symbols)))
        query = cells[:, 0].reshape(-1, recipe.maps)
        out, recalled = None, jnp.zeros_like(query)
        if state is not None:
            out = memory.query(recipe.config, state, query, answers, due)
            recalled = out.recall(output)
        tape = self.tape(self._row(recalled.reshape(*symbols.shape, -1)))
        cells = _repeat(recipe.after, lambda cells: self.after1(self.after0(cells, tape)), cells)
        joined = self.linear(cells[:, 0].reshape(-1, recipe.maps)) + self.gain * recalled
        return self.scale * (joined @ output.T), out

    def _row(self, cells: Array) -> Array:
        """A state whose first row is [B, length, maps]."""
        return jnp.pad(cells[:, None], ((0, 0), (0, self.recipe.width - 1), (0, 0), (0, 0)))


class JaxSymbols(JaxLearner):
    """The network, its memory and its optimizer."""

    def __init__(self, recipe: SymbolsRecipe) -> None:
        state = memory.init(recipe.config) if recipe.memory else None
        super().__init__(Network(recipe), state, partial(_loss, recipe), recipe.rate, recipe.steps, EPSILON)
        self._ask, self._show = self.compiled(_ask), self.compiled(partial(_show, recipe), donate=(0,))

    def ask(self, symbols: Symbols) -> Symbols:
        """The network's answers [B, length]."""
        return np.asarray(self._ask(self.state, symbols))

    def show(self, symbols: Symbols, answers: Symbols, due: NDArray[np.bool_]) -> None:
        """Let the memory see sequences and their answers; no gradient step."""
        if self.state is not None:
            self.state = self._show(self.state, symbols, answers.ravel(), due.ravel())


def _convolution(weights: Weights, name: str, inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Conv:
    """A 3x3 convolution of that name, with a bias if there is one."""
    bias = weights.get(f"{name}_bias")
    biased = {"use_bias": False} if bias is None else {"bias_init": initial(bias)}
    kernel = initial(weights[name])
    return nnx.Conv(inputs, outputs, (3, 3), kernel_init=kernel, conv_general_dilated=_as_product, rngs=rngs, **biased)


def _as_product(x: Array, kernel: Array, *options: object, **more: object) -> Array:
    """x [n, height, width, in] with kernel [3, 3, in, out], zeros around it, as one product.

    Inside a loop XLA's own convolution takes four times as long on a CPU, with its gradient.
    """
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = [padded[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]
    return jnp.concatenate(windows, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _repeat(count: int, body: Callable[[Array], Array], cells: Array) -> Array:
    """`cells` after `count` times `body`, which the compiler sees once."""
    return jax.lax.scan(lambda cells, _: (body(cells), None), cells, None, count)[0]


def _loss(
    recipe: SymbolsRecipe, network: Network, state: MemoryState | None, symbols: Array, answers: Array, due: Array
) -> tuple[Array, MemoryState | None]:
    """Cross-entropy where an answer is due, and the memory's own loss."""
    answers, due = answers.ravel(), due.ravel()
    logits, out = network(state, symbols, answers, due)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, answers)
    if state is not None and out is not None and out.loss is not None:
        losses = losses + out.loss
        state, _ = memory.update(recipe.config, state, out.queries, answers, due, out)
    return jnp.where(due, losses, 0.0).sum() / due.sum(), state


def _ask(network: Network, state: MemoryState | None, symbols: Array) -> Array:
    return network(state, symbols)[0].argmax(1).astype(jnp.int32).reshape(symbols.shape)


def _show(
    recipe: SymbolsRecipe, network: Network, state: MemoryState, symbols: Array, answers: Array, due: Array
) -> MemoryState:
    _, out = network(state, symbols, answers, due)
    assert out is not None
    return memory.update(recipe.config, state, out.queries, answers, due, out)[0]


def make(recipe: SymbolsRecipe) -> JaxSymbols:
    """See `run.make_learner`."""
    return JaxSymbols(recipe)
