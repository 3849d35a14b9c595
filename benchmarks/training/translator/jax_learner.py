"""The sequence-to-sequence network with attention, and a memory at its decoder, in JAX."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray

from raremem import Lookup, MemoryConfig, MemoryState, UpdateReport
from raremem.adapters import jax as memory
from raremem.benchmarks.data.corpus import PAD, START
from raremem.benchmarks.training.jax_learner import Array, JaxLearner, initial
from raremem.benchmarks.training.translator.recipe import (
    CLIP,
    LEAST_SHARE,
    LONGEST,
    MEMORY_SHARE,
    Reading,
    TranslationRecipe,
    Weights,
    bucket_of,
    extended,
    first_weights,
)
from raremem.state import PortableState

LstmState = tuple[Array, Array]
"""Its cells and its outputs, each [B, dim]."""
Layers = tuple[LstmState, LstmState]
"""Of the decoder."""
Parts = tuple[Array, Array, Array, Array]
"""Those of a `Reading`."""
TrainingState = tuple[MemoryState | None, Array]
"""The memory, and the key of the next step's dropout."""


class Encoded(NamedTuple):
    """A batch of sources: their embeddings [B, S, dim], the encoder's states [B, S, dim], and which [B, S] are not padding."""

    embedded: Array
    states: Array
    there: Array


class Opened(NamedTuple):
    """A source, padded to a bucket, and how many tokens it has without the padding."""

    encoded: Encoded
    length: int


class Decoded(NamedTuple):
    """What the decoder makes of T tokens that it reads.

    Attributes:
        states: [B, T, dim] attentional states.
        queries: [B, T, key_dim].
        attention: [B, T, S], how much of each source token.
        layers: the carries of both layers after the last token.
    """

    states: Array
    queries: Array
    attention: Array
    layers: Layers


class Rows(NamedTuple):
    """The tokens of a batch in training, row by row.

    Attributes:
        states: [n, dim] attentional states.
        queries: [n, key_dim].
        said: [n] the right tokens.
        rare: [n] which of them are of rare words.
        helped: [n] which the memory helps.
    """

    states: Array
    queries: Array
    said: Array
    rare: Array
    helped: Array


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

    def decode(self, read: Array, encoded: Encoded, layers: Layers, rngs: nnx.Rngs | None = None) -> Decoded:
        """The decoder after each of the tokens [B, T] that it reads."""
        x = last = self._embed(self.embedding, read, rngs)
        after = []
        for lstm, carry in zip((self.decoder0, self.decoder1), layers, strict=True):
            y, carry = _run(lstm, x, carry)
            x = x + self.dropout(y, rngs=rngs)
            after.append(carry)
        scores = self.attend(x) @ encoded.states.swapaxes(1, 2) / self.recipe.dim**0.5
        attention = nnx.softmax(jnp.where(encoded.there[:, None], scores, -jnp.inf), axis=2)
        states = jnp.tanh(self.join(jnp.concatenate([x, attention @ encoded.states], axis=2)))
        states = self.dropout(states, rngs=rngs)
        asked = jnp.concatenate([attention @ encoded.embedded, last, *([states] if self.recipe.mixed else [])], axis=2)
        return Decoded(states, self.query(jax.lax.stop_gradient(asked)), attention, (after[0], after[1]))

    def recall(
        self, state: MemoryState, states: Array, queries: Array, said: Array | None = None, mask: Array | None = None
    ) -> tuple[Array, Lookup]:
        """What the memory adds to attentional states [n, dim], and its answer."""
        out = memory.query(self.recipe.config, state, queries, said, mask)
        return self.gain * nnx.sigmoid(self.opening(states, out)) * out.recall(self.embedding.embedding[...]), out

    def opening(self, states: Array, out: Lookup) -> Array:
        """What the gate makes of attentional states [n, dim] and the similarity of the nearest: [n, 1], before the sigmoid."""
        opening: Array = self.gate(jnp.concatenate([states, out.similarities[:, :1]], axis=1))
        return opening

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
        self.recipe, self.sizes = recipe, sizes
        self._translate, self._read = self.compiled(_translate), self.compiled(partial(_read, recipe), donate=(0,))
        self._encode, self._forced, self._step_on = (self.compiled(part) for part in (_encode, _forced, _step_on))

    def learn(self, *batch: NDArray[np.generic]) -> float:
        """See `Learner.learn`. Both sides are padded to one bucket, so that a few programs do for sentences of any length."""
        length = bucket_of(max(part.shape[1] for part in batch))
        return super().learn(*(extended(part, length, axis=1) for part in batch))

    def translate(self, source: NDArray[np.int32]) -> NDArray[np.int32]:
        """The likeliest token after the likeliest token: [B, LONGEST] for sources [B, S]."""
        return np.asarray(self._translate(self.state[0], source))

    def read(self, *batch: NDArray[np.generic]) -> None:
        """Let the memory see a batch, as in training, without a gradient step."""
        if self.state[0] is not None:
            self.state = self._read(self.state[0], *batch), self.state[1]

    def opened(self, source: NDArray[np.int32]) -> Opened:
        """The encoder's view of a source [1, S], for `forced` and `step`."""
        length = source.shape[1]
        return Opened(self._encode(extended(source, bucket_of(length), axis=1)), length)

    def forced(self, opened: Opened, read: NDArray[np.int32]) -> Reading:
        """What the network makes of the tokens [T] of a translation, the right ones before each."""
        return _there(self._forced(opened.encoded, extended(read, bucket_of(len(read)))), len(read), opened.length)

    def step(self, opened: Opened, tokens: NDArray[np.int32], layers: Any = None) -> tuple[Reading, Layers]:
        """What the network makes of one token more of each of T translations, after those that led to `layers`."""
        rows = bucket_of(len(tokens))
        if layers is None:
            nothing = np.zeros((rows, self.recipe.dim), np.float32)
            layers = (nothing, nothing), (nothing, nothing)
        reading, layers = self._step_on(opened.encoded, extended(tokens, rows), layers)
        return _there(reading, len(tokens), opened.length), layers

    def tunable(self, rate: float) -> JaxTranslator:
        """The network without its memory, to be trained further at that rate."""
        other = JaxTranslator(self.recipe.further(rate), self.sizes)
        other.weights = jax.tree.map(jnp.copy, self.weights)
        return other


class JaxStore:
    """A memory that is asked and written in NumPy. Rows are padded to a bucket, so that a few programs do for any number."""

    def __init__(self, config: MemoryConfig) -> None:
        self.config, self.state = config, memory.compiled_backend.init(config)

    def lookup(self, queries: NDArray[np.float32], targets: NDArray[np.int32] | None = None) -> Lookup:
        """See `raremem.Backend.query`."""
        count, rows = len(queries), bucket_of(len(queries))
        asked = extended(queries, rows), None if targets is None else extended(targets, rows), np.arange(rows) < count
        found = memory.compiled_backend.query(self.config, self.state, *asked)
        return jax.tree.map(lambda column: np.asarray(column)[:count], found)

    def update(self, lookup: Lookup, targets: NDArray[np.int32], mask: NDArray[np.bool_]) -> UpdateReport:
        """See `raremem.Backend.update`."""
        count, rows = len(targets), bucket_of(len(targets))
        lookup, targets, mask = jax.tree.map(lambda column: extended(column, rows), (lookup, targets, mask))
        self.state, report = memory.compiled_backend.update(self.config, self.state, lookup.queries, targets, mask, lookup)
        return jax.tree.map(lambda part: np.asarray(part)[:count] if part.ndim else np.asarray(part), report)

    def fill(self, content: PortableState) -> None:
        """See `raremem.Backend.from_numpy`."""
        self.state = memory.compiled_backend.from_numpy(self.config, content)


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
    """Minus the log-likelihood of every token but padding, and the memory's own loss of those that are written."""
    state, key = before
    key, own, other = jax.random.split(key, 3)
    rngs = nnx.Rngs(dropout=own)
    decoded = network.decode(read, network.encode(source, rngs), network.start(len(said)), rngs)
    states, queries = decoded.states.reshape(-1, recipe.dim), decoded.queries.reshape(-1, recipe.key_dim)
    helped = jnp.repeat(jax.random.bernoulli(other, recipe.helped, (len(said),)), said.shape[1])
    answered = _mixed if recipe.mixed else _added
    loss, state = answered(network, state, Rows(states, queries, said.ravel(), rare.ravel(), helped))
    return loss, (state, key)


def _added(network: Network, state: MemoryState | None, rows: Rows) -> tuple[Array, MemoryState | None]:
    """The loss where what is recalled is added to the states, and the memory after the rare tokens are written."""
    states, queries, said, rare, helped = rows
    due, own = said != PAD, jnp.float32(0)
    if state is not None:
        recalled, out = network.recall(state, states, queries, said, due & (helped | rare))
        states = states + helped[:, None] * recalled
        assert out.loss is not None
        own = MEMORY_SHARE * jnp.where(rare, out.loss, 0.0).sum() / due.sum()
        state, _ = memory.update(network.recipe.config, state, out.queries, said, rare, out)
    losses = optax.softmax_cross_entropy_with_integer_labels(network.logits(states), said)
    return jnp.where(due, losses, 0.0).sum() / due.sum() + own, state


def _mixed(network: Network, state: MemoryState | None, rows: Rows) -> tuple[Array, MemoryState | None]:
    """The loss where the memory's answer is mixed into the probabilities, and the memory after all tokens are written."""
    states, queries, said, _, helped = rows
    due, own = said != PAD, jnp.float32(0)
    losses = optax.softmax_cross_entropy_with_integer_labels(network.logits(states), said)
    if state is not None:
        out = memory.query(network.recipe.config, state, queries, said, due)
        right = (out.weights * (out.values == said[:, None])).sum(1)
        gate = network.opening(states, out)[:, 0]
        heard = nnx.log_sigmoid(gate) + jnp.log(jnp.maximum(right, LEAST_SHARE))
        joined = jnp.logaddexp(nnx.log_sigmoid(-gate) - losses, heard)
        losses = jnp.where(helped & out.found, -joined, losses)
        assert out.loss is not None
        own = MEMORY_SHARE * out.loss.sum() / due.sum()
        state, _ = memory.update(network.recipe.config, state, out.queries, said, due, out)
    return jnp.where(due, losses, 0.0).sum() / due.sum() + own, state


def _translate(network: Network, state: MemoryState | None, source: Array) -> Array:
    encoded = network.encode(source)

    def step(carry: tuple[Array, Layers], _: None) -> tuple[tuple[Array, Layers], Array]:
        token, layers = carry
        decoded = network.decode(token[:, None], encoded, layers)
        states, layers = decoded.states[:, 0], decoded.layers
        if state is not None and not network.recipe.mixed:
            states = states + network.recall(state, states, decoded.queries[:, 0])[0]
        token = network.logits(states).argmax(1).astype(jnp.int32)
        return (token, layers), token

    start = jnp.full(len(source), START, jnp.int32), network.start(len(source))
    return jax.lax.scan(step, start, None, LONGEST)[1].T


def _read(
    recipe: TranslationRecipe, network: Network, state: MemoryState, source: Array, read: Array, said: Array, rare: Array
) -> MemoryState:
    queries = network.decode(read, network.encode(source), network.start(len(said))).queries
    return memory.update(recipe.config, state, queries.reshape(-1, recipe.key_dim), said.ravel(), rare.ravel())[0]


def _encode(network: Network, source: Array) -> Encoded:
    return network.encode(source)


def _forced(network: Network, encoded: Encoded, read: Array) -> Parts:
    return _reading(network, network.decode(read[None], encoded, network.start(1)))


def _step_on(network: Network, encoded: Encoded, tokens: Array, layers: Layers) -> tuple[Parts, Layers]:
    decoded = network.decode(tokens[:, None], encoded, layers)
    return _reading(network, decoded), decoded.layers


def _reading(network: Network, decoded: Decoded) -> Parts:
    states, queries, attention = (part.reshape(-1, part.shape[-1]) for part in decoded[:3])
    return nnx.softmax(network.logits(states), axis=1), states, queries, attention


def _there(parts: Parts, tokens: int, length: int) -> Reading:
    """The reading of the first tokens, of a source of that length, in NumPy."""
    reading = Reading(*(np.asarray(part)[:tokens] for part in parts))
    return reading._replace(attention=reading.attention[:, :length])


def make(recipe: TranslationRecipe, sizes: tuple[int, int]) -> JaxTranslator:
    """See `run.make_learner`."""
    return JaxTranslator(recipe, sizes)


def make_store(config: MemoryConfig) -> JaxStore:
    """See `text.make_store`."""
    return JaxStore(config)
