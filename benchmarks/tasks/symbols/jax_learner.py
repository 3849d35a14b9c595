"""The Extended Neural GPU with a memory in it, in JAX."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from raremem import Lookup, MemoryState
from raremem.adapters import jax as memory
from raremem.benchmarks.tasks.symbols.recipe import EPSILON, LEARNING_RATE, Symbols, SymbolsRecipe, first_weights
from raremem.benchmarks.training.jax_learner import Array, JaxLearner, Weights, convolve


class JaxSymbols(JaxLearner):
    """The network. Its state is [B, width, length, maps]."""

    def __init__(self, recipe: SymbolsRecipe) -> None:
        state = memory.init(recipe.config) if recipe.memory else None
        super().__init__(first_weights(recipe), state, partial(_loss, recipe), LEARNING_RATE, recipe.steps, EPSILON)
        self._ask, self._show = jax.jit(partial(_ask, recipe)), jax.jit(partial(_show, recipe), donate_argnums=1)

    def ask(self, symbols: Symbols) -> Symbols:
        """The network's answers [B, length]."""
        return np.asarray(self._ask(self.weights, self.state, symbols))

    def show(self, symbols: Symbols, answers: Symbols, due: NDArray[np.bool_]) -> None:
        """Let the memory see sequences and their answers; no gradient step."""
        if self.state is not None:
            self.state = self._show(self.weights, self.state, symbols, answers.ravel(), due.ravel())


def _forward(
    recipe: SymbolsRecipe,
    weights: Weights,
    state: MemoryState | None,
    symbols: Array,
    answers: Array | None = None,
    due: Array | None = None,
) -> tuple[Array, Lookup | None]:
    """Logits [B * length, symbols], and what the memory answered."""
    output = weights["output"] / jnp.linalg.norm(weights["output"], axis=1, keepdims=True)
    cells = _row(recipe, weights["input"][symbols])
    cells = _repeat(recipe.before, lambda cells: _cell(weights, "before1", _cell(weights, "before0", cells)), cells)
    query = cells[:, 0].reshape(-1, recipe.maps)
    out, recalled = None, jnp.zeros_like(query)
    if state is not None:
        out = memory.query(recipe.config, state, query, answers, due)
        recalled = out.recall(output)
    tape = convolve(_row(recipe, recalled.reshape(*symbols.shape, -1)), weights["tape"])
    cells = _repeat(recipe.after, lambda cells: _cell(weights, "after1", _cell(weights, "after0", cells, tape)), cells)
    joined = cells[:, 0].reshape(-1, recipe.maps) @ weights["linear"] + weights["gain"] * recalled
    return weights["scale"] * (joined @ output.T), out


def _loss(
    recipe: SymbolsRecipe, weights: Weights, state: MemoryState | None, symbols: Array, answers: Array, due: Array
) -> tuple[Array, MemoryState | None]:
    """Cross-entropy where an answer is due, and the memory's own loss."""
    answers, due = answers.ravel(), due.ravel()
    logits, out = _forward(recipe, weights, state, symbols, answers, due)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, answers)
    if state is not None and out is not None and out.loss is not None:
        losses = losses + out.loss
        state, _ = memory.update(recipe.config, state, out.queries, answers, due, out)
    return jnp.where(due, losses, 0.0).sum() / due.sum(), state


def _ask(recipe: SymbolsRecipe, weights: Weights, state: MemoryState | None, symbols: Array) -> Array:
    return _forward(recipe, weights, state, symbols)[0].argmax(1).astype(jnp.int32).reshape(symbols.shape)


def _show(
    recipe: SymbolsRecipe, weights: Weights, state: MemoryState, symbols: Array, answers: Array, due: Array
) -> MemoryState:
    _, out = _forward(recipe, weights, state, symbols, answers, due)
    assert out is not None
    return memory.update(recipe.config, state, out.queries, answers, due, out)[0]


def _row(recipe: SymbolsRecipe, cells: Array) -> Array:
    """A state whose first row is [B, length, maps]."""
    return jnp.pad(cells[:, None], ((0, 0), (0, recipe.width - 1), (0, 0), (0, 0)))


def _repeat(count: int, body: Callable[[Array], Array], cells: Array) -> Array:
    """`cells` after `count` times `body`, which the compiler sees once."""
    return jax.lax.scan(lambda cells, _: (body(cells), None), cells, None, count)[0]


def _cell(weights: Weights, name: str, state: Array, tape: Array | float = 0.0) -> Array:
    """A convolutional gated recurrent unit; `tape` [B, width, length, 3 maps] is added to what its gates take in."""
    maps = state.shape[-1]
    for_gates, for_candidate = (tape, tape) if isinstance(tape, float) else (tape[..., : 2 * maps], tape[..., 2 * maps :])
    gates = jax.nn.sigmoid(convolve(state, weights[f"{name}/gates"]) + weights[f"{name}/gates_bias"] + for_gates)
    update, reset = gates[..., :maps], gates[..., maps:]
    candidate = convolve(reset * state, weights[f"{name}/candidate"]) + weights[f"{name}/candidate_bias"] + for_candidate
    return update * state + (1 - update) * jnp.tanh(candidate)


def make(recipe: SymbolsRecipe) -> JaxSymbols:
    """See `run.make_learner`."""
    return JaxSymbols(recipe)
