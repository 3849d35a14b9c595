"""The sequence-to-sequence network with attention, and a memory at its decoder, in JAX."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from raremem import Lookup, MemoryState
from raremem.adapters import jax as memory
from raremem.benchmarks.data.corpus import PAD, START
from raremem.benchmarks.tasks.translation.recipe import (
    CLIP,
    LEARNING_RATE,
    LONGEST,
    MEMORY_SHARE,
    TranslationRecipe,
    first_weights,
)
from raremem.benchmarks.training.jax_learner import Array, JaxLearner, Weights

State = tuple[Array, Array]


class Encoded(NamedTuple):
    """A batch of sources: their embeddings [B, S, dim], the encoder's states [B, S, dim], and which [B, S] are not padding."""

    embedded: Array
    states: Array
    there: Array


class JaxTranslator(JaxLearner):
    """The network. Its state is the memory and the key of the next step's dropout."""

    def __init__(self, recipe: TranslationRecipe, sizes: tuple[int, int]) -> None:
        state = memory.init(recipe.config) if recipe.memory else None, jax.random.PRNGKey(recipe.seed)
        loss = partial(_loss, recipe)
        super().__init__(first_weights(recipe, sizes), state, loss, LEARNING_RATE, recipe.steps, clip=CLIP)
        self._translate = jax.jit(partial(_translate, recipe))
        self._read = jax.jit(partial(_read, recipe), donate_argnums=1)

    def translate(self, source: NDArray[np.int32]) -> NDArray[np.int32]:
        """The likeliest token after the likeliest token: [B, LONGEST] for sources [B, S]."""
        return np.asarray(self._translate(self.weights, self.state[0], source))

    def read(self, *batch: NDArray[np.generic]) -> None:
        """Let the memory see a batch, as in training, without a gradient step."""
        if self.state[0] is not None:
            self.state = self._read(self.weights, self.state[0], *batch), self.state[1]


class _Dropout:
    """Dropout with a new key at each call; none without a key."""

    def __init__(self, rate: float, key: Array | None = None) -> None:
        self.rate, self.key = rate, key

    def __call__(self, x: Array) -> Array:
        if self.key is None:
            return x
        self.key, own = jax.random.split(self.key)
        return jnp.where(jax.random.bernoulli(own, 1 - self.rate, x.shape), x / (1 - self.rate), 0.0)


def _lstm(weights: Weights, name: str, x: Array, state: State | None = None) -> tuple[Array, State]:
    """Outputs [B, T, size] of inputs [B, T, dim], and the state after the last."""
    hidden = weights[f"{name}/hidden"]
    first = (jnp.zeros((len(x), len(hidden))),) * 2 if state is None else state

    def step(state: State, taken: Array) -> tuple[State, Array]:
        given, forget, cell, output = jnp.split(taken + state[0] @ hidden, 4, axis=1)
        kept = jax.nn.sigmoid(forget) * state[1] + jax.nn.sigmoid(given) * jnp.tanh(cell)
        said = jax.nn.sigmoid(output) * jnp.tanh(kept)
        return (said, kept), said

    after, outputs = jax.lax.scan(step, first, (x @ weights[f"{name}/input"] + weights[f"{name}/bias"]).swapaxes(0, 1))
    return outputs.swapaxes(0, 1), after


def _embed(weights: Weights, name: str, tokens: Array, drop: _Dropout) -> Array:
    rows = weights[name]
    return drop(rows[tokens] * rows.shape[1] ** 0.5)


def _encode(weights: Weights, source: Array, drop: _Dropout) -> Encoded:
    there = source != PAD
    embedded = _embed(weights, "source", source, drop)
    forward, _ = _lstm(weights, "forward", embedded)
    backward, _ = _lstm(weights, "backward", _turned(embedded, there))
    x = embedded + drop(jnp.concatenate([forward, _turned(backward, there)], axis=2))
    return Encoded(embedded, x + _lstm(weights, "encoder", x)[0], there)


def _turned(x: Array, there: Array) -> Array:
    """Each sentence of x [B, S, dim] from its end to its beginning, padding after it."""
    length, places = there.sum(1, keepdims=True), jnp.arange(x.shape[1])
    return jnp.take_along_axis(x, ((length - 1 - places) % x.shape[1])[:, :, None], axis=1)


def _decode(
    weights: Weights, read: Array, encoded: Encoded, layers: list[Any], drop: _Dropout
) -> tuple[Array, Array, list[Any]]:
    """Attentional states [B, T, dim], queries [B, T, key_dim], and the states of both layers after the last token."""
    x = last = _embed(weights, "embedding", read, drop)
    after = []
    for layer, state in enumerate(layers):
        y, state = _lstm(weights, f"decoder{layer}", x, state)
        x = x + drop(y)
        after.append(state)
    scores = (x @ weights["attend"]) @ encoded.states.swapaxes(1, 2) / x.shape[2] ** 0.5
    attention = jax.nn.softmax(jnp.where(encoded.there[:, None], scores, -jnp.inf), axis=2)
    states = drop(jnp.tanh(jnp.concatenate([x, attention @ encoded.states], axis=2) @ weights["join"]))
    asked = jax.lax.stop_gradient(jnp.concatenate([attention @ encoded.embedded, last], axis=2))
    return states, asked @ weights["query"], after


def _recall(
    recipe: TranslationRecipe,
    weights: Weights,
    state: MemoryState,
    states: Array,
    queries: Array,
    said: Array | None = None,
    mask: Array | None = None,
) -> tuple[Array, Lookup]:
    """What the memory adds to attentional states [n, dim], and its answer."""
    out = memory.query(recipe.config, state, queries, said, mask)
    seen = jnp.concatenate([states, out.similarities[:, :1]], axis=1)
    gate = jax.nn.sigmoid(seen @ weights["gate"] + weights["gate_bias"])
    return weights["gain"] * gate * out.recall(weights["embedding"]), out


def _logits(weights: Weights, states: Array) -> Array:
    return states @ weights["embedding"].T + weights["bias"]


def _loss(
    recipe: TranslationRecipe,
    weights: Weights,
    before: tuple[MemoryState | None, Array],
    source: Array,
    read: Array,
    said: Array,
    rare: Array,
) -> tuple[Array, tuple[MemoryState | None, Array]]:
    """Cross-entropy of every token but padding, and the memory's own loss of the rare ones."""
    state, key = before
    key, own, other = jax.random.split(key, 3)
    drop, loss = _Dropout(recipe.dropout, own), jnp.float32(0)
    states, queries, _ = _decode(weights, read, _encode(weights, source, drop), [None, None], drop)
    states, queries = states.reshape(-1, recipe.dim), queries.reshape(-1, recipe.key_dim)
    helped = jnp.repeat(jax.random.bernoulli(other, recipe.helped, (len(said),)), said.shape[1])
    said, rare = said.ravel(), rare.ravel()
    due = said != PAD
    if state is not None:
        recalled, out = _recall(recipe, weights, state, states, queries, said, due & (helped | rare))
        states = states + helped[:, None] * recalled
        assert out.loss is not None
        loss = MEMORY_SHARE * jnp.where(rare, out.loss, 0.0).sum() / due.sum()
        state, _ = memory.update(recipe.config, state, out.queries, said, rare, out)
    losses = optax.softmax_cross_entropy_with_integer_labels(_logits(weights, states), said)
    return loss + jnp.where(due, losses, 0.0).sum() / due.sum(), (state, key)


def _translate(recipe: TranslationRecipe, weights: Weights, state: MemoryState | None, source: Array) -> Array:
    drop = _Dropout(0.0)
    encoded = _encode(weights, source, drop)
    rows = len(source)

    def step(carry: tuple[Array, list[State]], _: None) -> tuple[tuple[Array, list[State]], Array]:
        token, layers = carry
        states, queries, layers = _decode(weights, token[:, None], encoded, layers, drop)
        states = states[:, 0]
        if state is not None:
            states = states + _recall(recipe, weights, state, states, queries[:, 0])[0]
        token = _logits(weights, states).argmax(1).astype(jnp.int32)
        return (token, layers), token

    nothing = (jnp.zeros((rows, recipe.dim)),) * 2
    start = jnp.full(rows, START, jnp.int32), [nothing, nothing]
    return jax.lax.scan(step, start, None, LONGEST)[1].T


def _read(
    recipe: TranslationRecipe, weights: Weights, state: MemoryState, source: Array, read: Array, said: Array, rare: Array
) -> MemoryState:
    drop = _Dropout(0.0)
    _, queries, _ = _decode(weights, read, _encode(weights, source, drop), [None, None], drop)
    return memory.update(recipe.config, state, queries.reshape(-1, recipe.key_dim), said.ravel(), rare.ravel())[0]


def make(recipe: TranslationRecipe, sizes: tuple[int, int]) -> JaxTranslator:
    """See `run.make_learner`."""
    return JaxTranslator(recipe, sizes)
