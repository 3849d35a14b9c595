"""The sequence-to-sequence network with attention, and a memory at its decoder, in JAX."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray

from raremem import Lookup, MemoryState
from raremem.adapters import jax as memory
from raremem.benchmarks.data.corpus import PAD, START
from raremem.benchmarks.training.jax_learner import Array, JaxLearner, initial
from raremem.benchmarks.training.translator.recipe import (
    CLIP,
    LONGEST,
    MEMORY_SHARE,
    TranslationRecipe,
    Weights,
    first_weights,
)

LstmState = tuple[Array, Array]
"""Its cells and its outputs, each [B, dim]."""
Layers = tuple[LstmState, LstmState]
"""Of the decoder."""
TrainingState = tuple[MemoryState | None, Array]
"""The memory, and the key of the next step's dropout."""


class Encoded(NamedTuple):
    """A batch of sources: their embeddings [B, S, dim], the encoder's states [B, S, dim], and which [B, S] are not padding."""

    embedded: Array
    states: Array
    there: Array


class Network(nnx.Module):
    """The network that `TranslationRecipe` describes, for so many tokens of each language."""

    def __init__(self, recipe: TranslationRecipe, sizes: tuple[int, int]) -> None:
        weights, rngs, dim = first_weights(recipe, sizes), nnx.Rngs(recipe.seed), recipe.dim
        self.recipe = recipe
        self.source, self.embedding = (
            nnx.Embed(size, dim, embedding_init=initial(weights[name]), rngs=rngs)
            for size, name in zip(sizes, ("source", "embedding"), strict=True)
        )
        self.bias, self.gain = nnx.Param(jnp.asarray(weights["bias"])), nnx.Param(jnp.asarray(weights["gain"]))
        self.attend, self.join, self.query, self.gate = (
            _linear(weights, name, rngs) for name in ("attend", "join", "query", "gate")
        )
        self.forward, self.backward, self.encoder = (_lstm(weights, name, rngs) for name in ("forward", "backward", "encoder"))
        self.decoder0, self.decoder1 = (_lstm(weights, f"decoder{layer}", rngs) for layer in range(2))
        self.dropout = nnx.Dropout(recipe.dropout)

    def encode(self, source: Array, rngs: nnx.Rngs | None = None) -> Encoded:
        """The encoder's view of sources [B, S]."""
        there = source != PAD
        embedded = self._embed(self.source, source, rngs)
        forward, _ = _run(self.forward, embedded)
        backward, _ = _run(self.backward, _turned(embedded, there))
        x = embedded + self.dropout(jnp.concatenate([forward, _turned(backward, there)], axis=2), rngs=rngs)
        return Encoded(embedded, x + _run(self.encoder, x)[0], there)

    def decode(
        self, read: Array, encoded: Encoded, layers: Layers, rngs: nnx.Rngs | None = None
    ) -> tuple[Array, Array, Layers]:
        """Attentional states [B, T, dim], queries [B, T, key_dim], and the carries of both layers after the last token."""
        x = last = self._embed(self.embedding, read, rngs)
        after = []
        for lstm, carry in zip((self.decoder0, self.decoder1), layers, strict=True):
            y, carry = _run(lstm, x, carry)
            x = x + self.dropout(y, rngs=rngs)
            after.append(carry)
        scores = self.attend(x) @ encoded.states.swapaxes(1, 2) / self.recipe.dim**0.5
        attention = nnx.softmax(jnp.where(encoded.there[:, None], scores, -jnp.inf), axis=2)
        joined = self.join(jnp.concatenate([x, attention @ encoded.states], axis=2))
        asked = jax.lax.stop_gradient(jnp.concatenate([attention @ encoded.embedded, last], axis=2))
        return self.dropout(jnp.tanh(joined), rngs=rngs), self.query(asked), (after[0], after[1])

    def recall(
        self, state: MemoryState, states: Array, queries: Array, said: Array | None = None, mask: Array | None = None
    ) -> tuple[Array, Lookup]:
        """What the memory adds to attentional states [n, dim], and its answer."""
        out = memory.query(self.recipe.config, state, queries, said, mask)
        gate = nnx.sigmoid(self.gate(jnp.concatenate([states, out.similarities[:, :1]], axis=1)))
        return self.gain * gate * out.recall(self.embedding.embedding[...]), out

    def logits(self, states: Array) -> Array:
        """Logits [n, tokens] of attentional states [n, dim]."""
        return self.embedding.attend(states) + self.bias

    def start(self, rows: int) -> Layers:
        """The carries of the decoder before the first token."""
        nothing = (jnp.zeros((rows, self.recipe.dim)),) * 2
        return nothing, nothing

    def _embed(self, table: nnx.Embed, tokens: Array, rngs: nnx.Rngs | None) -> Array:
        return self.dropout(table(tokens) * self.recipe.dim**0.5, rngs=rngs)


class JaxTranslator(JaxLearner):
    """The network, its memory and its optimizer."""

    def __init__(self, recipe: TranslationRecipe, sizes: tuple[int, int]) -> None:
        state = memory.init(recipe.config) if recipe.memory else None, jax.random.PRNGKey(recipe.seed)
        super().__init__(Network(recipe, sizes), state, partial(_loss, recipe), recipe.rate, recipe.steps, clip=CLIP)
        self._translate, self._read = self.compiled(_translate), self.compiled(partial(_read, recipe), donate=(0,))

    def translate(self, source: NDArray[np.int32]) -> NDArray[np.int32]:
        """The likeliest token after the likeliest token: [B, LONGEST] for sources [B, S]."""
        return np.asarray(self._translate(self.state[0], source))

    def read(self, *batch: NDArray[np.generic]) -> None:
        """Let the memory see a batch, as in training, without a gradient step."""
        if self.state[0] is not None:
            self.state = self._read(self.state[0], *batch), self.state[1]


def _linear(weights: Weights, name: str, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear map of that name, with a bias if there is one."""
    bias = weights.get(f"{name}_bias")
    biased = {"use_bias": False} if bias is None else {"bias_init": initial(bias)}
    return nnx.Linear(*weights[name].shape, kernel_init=initial(weights[name]), rngs=rngs, **biased)


def _lstm(weights: Weights, name: str, rngs: nnx.Rngs) -> nnx.OptimizedLSTMCell:
    inputs, hidden, bias = (weights[f"{name}/{part}"] for part in ("input", "hidden", "bias"))
    return nnx.OptimizedLSTMCell(
        len(inputs),
        len(hidden),
        kernel_init=initial(inputs),
        recurrent_kernel_init=initial(hidden),
        bias_init=initial(bias),
        rngs=rngs,
    )


def _run(lstm: nnx.OptimizedLSTMCell, x: Array, carry: LstmState | None = None) -> tuple[Array, LstmState]:
    """Outputs [B, T, size] of inputs [B, T, dim], and the carry after the last."""
    first: LstmState = carry or (jnp.zeros((len(x), lstm.hidden_features)),) * 2
    after, outputs = jax.lax.scan(lambda carry, row: lstm(carry, row), first, x.swapaxes(0, 1))
    return outputs.swapaxes(0, 1), after


def _turned(x: Array, there: Array) -> Array:
    """Each sentence of x [B, S, dim] from its end to its beginning, padding after it."""
    length, places = there.sum(1, keepdims=True), jnp.arange(x.shape[1])
    return jnp.take_along_axis(x, ((length - 1 - places) % x.shape[1])[:, :, None], axis=1)


def _loss(
    recipe: TranslationRecipe, network: Network, before: TrainingState, source: Array, read: Array, said: Array, rare: Array
) -> tuple[Array, TrainingState]:
    """Cross-entropy of every token but padding, and the memory's own loss of the rare ones."""
    state, key = before
    key, own, other = jax.random.split(key, 3)
    rngs, loss = nnx.Rngs(dropout=own), jnp.float32(0)
    states, queries, _ = network.decode(read, network.encode(source, rngs), network.start(len(said)), rngs)
    states, queries = states.reshape(-1, recipe.dim), queries.reshape(-1, recipe.key_dim)
    helped = jnp.repeat(jax.random.bernoulli(other, recipe.helped, (len(said),)), said.shape[1])
    said, rare = said.ravel(), rare.ravel()
    due = said != PAD
    if state is not None:
        recalled, out = network.recall(state, states, queries, said, due & (helped | rare))
        states = states + helped[:, None] * recalled
        assert out.loss is not None
        loss = MEMORY_SHARE * jnp.where(rare, out.loss, 0.0).sum() / due.sum()
        state, _ = memory.update(recipe.config, state, out.queries, said, rare, out)
    losses = optax.softmax_cross_entropy_with_integer_labels(network.logits(states), said)
    return loss + jnp.where(due, losses, 0.0).sum() / due.sum(), (state, key)


def _translate(network: Network, state: MemoryState | None, source: Array) -> Array:
    encoded = network.encode(source)

    def step(carry: tuple[Array, Layers], _: None) -> tuple[tuple[Array, Layers], Array]:
        token, layers = carry
        states, queries, layers = network.decode(token[:, None], encoded, layers)
        states = states[:, 0]
        if state is not None:
            states = states + network.recall(state, states, queries[:, 0])[0]
        token = network.logits(states).argmax(1).astype(jnp.int32)
        return (token, layers), token

    start = jnp.full(len(source), START, jnp.int32), network.start(len(source))
    return jax.lax.scan(step, start, None, LONGEST)[1].T


def _read(
    recipe: TranslationRecipe, network: Network, state: MemoryState, source: Array, read: Array, said: Array, rare: Array
) -> MemoryState:
    _, queries, _ = network.decode(read, network.encode(source), network.start(len(said)))
    return memory.update(recipe.config, state, queries.reshape(-1, recipe.key_dim), said.ravel(), rare.ravel())[0]


def make(recipe: TranslationRecipe, sizes: tuple[int, int]) -> JaxTranslator:
    """See `run.make_learner`."""
    return JaxTranslator(recipe, sizes)
