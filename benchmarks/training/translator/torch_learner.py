"""The sequence-to-sequence network with attention, and a memory at its decoder, in PyTorch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from raremem import Lookup, MemoryConfig, UpdateReport
from raremem.adapters.torch import Memory
from raremem.benchmarks.data.corpus import END, PAD, START
from raremem.benchmarks.training.torch_learner import TorchLearner
from raremem.benchmarks.training.translator.recipe import (
    CLIP,
    LEAST_SHARE,
    LONGEST,
    MEMORY_SHARE,
    Reading,
    TranslationRecipe,
    Weights,
    first_weights,
)
from raremem.search.live import LiveIndex
from raremem.state import PortableState

LstmState = tuple[Tensor, Tensor] | None
"""Outputs and cells, each [1, B, dim]; None before the first token."""


class Encoded(NamedTuple):
    """A batch of sources: their embeddings [B, S, dim], the encoder's states [B, S, dim], and which [B, S] are not padding."""

    embedded: Tensor
    states: Tensor
    there: Tensor


class Decoded(NamedTuple):
    """What the decoder makes of T tokens that it reads.

    Attributes:
        states: [B, T, dim] attentional states.
        queries: [B, T, key_dim].
        attention: [B, T, S], how much of each source token.
        layers: the states of both layers after the last token.
    """

    states: Tensor
    queries: Tensor
    attention: Tensor
    layers: list[LstmState]


class TorchTranslator(TorchLearner):
    """The network."""

    def __init__(self, recipe: TranslationRecipe, sizes: tuple[int, int]) -> None:
        super().__init__()
        weights = first_weights(recipe, sizes)
        self.recipe, self.sizes = recipe, sizes
        self.weights = nn.ParameterDict({name: torch.tensor(w) for name, w in weights.items() if "/" not in name})
        names = dict.fromkeys(name.partition("/")[0] for name in weights if "/" in name)
        self.recurrent = nn.ModuleDict({f"{name}_lstm": _lstm(weights, name) for name in names})
        self.memory = Memory(recipe.config) if recipe.memory else None
        self.start(recipe.rate, recipe.steps, clip=CLIP)

    def encode(self, source: Tensor) -> Encoded:
        """The encoder's view of sources [B, S]."""
        there = source != PAD
        embedded = self._embed(source, "source")
        forward, _ = self.recurrent["forward_lstm"](embedded)
        backward, _ = self.recurrent["backward_lstm"](_turned(embedded, there))
        x = embedded + self._drop(torch.cat([forward, _turned(backward, there)], dim=2))
        return Encoded(embedded, x + self.recurrent["encoder_lstm"](x)[0], there)

    def decode(self, read: Tensor, encoded: Encoded, layers: list[LstmState]) -> Decoded:
        """The decoder after each of the tokens [B, T] that it reads."""
        x = last = self._embed(read, "embedding")
        after: list[LstmState] = []
        for layer, state in enumerate(layers):
            y, state = _run(self.recurrent[f"decoder{layer}_lstm"], x, state)
            x = x + self._drop(y)
            after.append(state)
        scores = (x @ self.weights["attend"]) @ encoded.states.transpose(1, 2) / self.recipe.dim**0.5
        attention = torch.softmax(scores.masked_fill(~encoded.there[:, None], -torch.inf), dim=2)
        states = self._drop(torch.tanh(torch.cat([x, attention @ encoded.states], dim=2) @ self.weights["join"]))
        asked = torch.cat([attention @ encoded.embedded, last, *([states] if self.recipe.mixed else [])], dim=2).detach()
        return Decoded(states, asked @ self.weights["query"], attention, after)

    def recall(
        self, states: Tensor, queries: Tensor, said: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Lookup]:
        """What the memory adds to attentional states [n, dim], and its answer."""
        assert self.memory is not None
        out = self.memory(queries, said, mask)
        seen = torch.cat([states, out.similarities[:, :1]], dim=1)
        gate = torch.sigmoid(seen @ self.weights["gate"] + self.weights["gate_bias"])
        return self.weights["gain"] * gate * out.recall(self.weights["embedding"]), out

    def logits(self, states: Tensor) -> Tensor:
        """Logits [n, tokens] of attentional states [n, dim]."""
        return states @ self.weights["embedding"].T + self.weights["bias"]

    def losses(self, *batch: Tensor) -> Tensor:
        """Cross-entropy of every token but padding, and the memory's own loss of the rare ones."""
        source, read, said, rare = batch
        helped = (torch.rand(len(said), 1) < self.recipe.helped).expand_as(said).flatten()
        said, rare = said.flatten(), rare.flatten()
        if self.recipe.mixed:
            return self._mixed_losses(source, read, said, helped)
        own = torch.tensor(0.0)
        with self.fast_products():
            decoded = self.decode(read, self.encode(source), [None, None])
            states, queries = decoded.states.flatten(0, 1), decoded.queries.flatten(0, 1)
            if self.memory is not None:
                there = said != PAD
                recalled, out = self.recall(states, queries, said, there & (helped | rare))
                states = states + helped[:, None] * recalled
                assert out.loss is not None
                own = MEMORY_SHARE * (out.loss * rare).sum() / there.sum()
            logits = self.logits(states)
        if self.memory is not None:
            self.memory.update(out, mask=rare)
        return F.cross_entropy(logits.float(), said.long(), ignore_index=PAD) + own

    def _mixed_losses(self, source: Tensor, read: Tensor, said: Tensor, helped: Tensor) -> Tensor:
        """Minus the log-likelihood of every token but padding under the joined answer, and the memory's own loss."""
        there = said != PAD
        with self.fast_products():
            decoded = self.decode(read, self.encode(source), [None, None])
            states, queries = decoded.states.flatten(0, 1), decoded.queries.flatten(0, 1)
            logits = self.logits(states)
        losses = F.cross_entropy(logits.float(), said.long(), reduction="none")
        own = torch.tensor(0.0)
        if self.memory is not None:
            out = self.memory(queries, said, there)
            right = (out.weights * (out.values == said[:, None])).sum(1)
            seen = torch.cat([states.float(), out.similarities[:, :1]], dim=1)
            gate = (seen @ self.weights["gate"] + self.weights["gate_bias"])[:, 0]
            joined = torch.logaddexp(F.logsigmoid(-gate) - losses, F.logsigmoid(gate) + right.clamp(min=LEAST_SHARE).log())
            losses = torch.where(helped & out.found, -joined, losses)
            assert out.loss is not None
            own = MEMORY_SHARE * out.loss.sum() / there.sum()
            self.memory.update(out, mask=there)
        return (losses * there).sum() / there.sum() + own

    @torch.no_grad()
    def translate(self, source: NDArray[np.int32]) -> NDArray[np.int32]:
        """The likeliest token after the likeliest token: [B, LONGEST] for sources [B, S]."""
        self.eval()
        said = torch.full((len(source), LONGEST), END, dtype=torch.int32)
        token = torch.full((len(source), 1), START, dtype=torch.int32)
        layers: list[LstmState] = [None, None]
        with self.fast_products():
            encoded = self.encode(torch.from_numpy(source))
            for place in range(LONGEST):
                decoded = self.decode(token, encoded, layers)
                states, layers = decoded.states[:, 0], decoded.layers
                if self.memory is not None and not self.recipe.mixed:
                    states = states + self.recall(states, decoded.queries[:, 0])[0]
                token = self.logits(states).argmax(1, keepdim=True).to(torch.int32)
                said[:, place] = token[:, 0]
                if (said[:, : place + 1] == END).any(dim=1).all():
                    break
        return said.numpy()

    @torch.no_grad()
    def read(self, *batch: NDArray[np.generic]) -> None:
        """Let the memory see a batch, as in training, without a gradient step."""
        self.eval()
        source, read, said, rare = map(torch.from_numpy, batch)
        if self.memory is not None:
            with self.fast_products():
                decoded = self.decode(read, self.encode(source), [None, None])
                out = self.memory(decoded.queries.flatten(0, 1), said.flatten(), rare.flatten())
            self.memory.update(out)

    @torch.no_grad()
    def opened(self, source: NDArray[np.int32]) -> Encoded:
        """The encoder's view of a source [1, S], for `forced` and `step`."""
        self.eval()
        return self.encode(torch.from_numpy(source))

    @torch.no_grad()
    def forced(self, encoded: Encoded, read: NDArray[np.int32]) -> Reading:
        """What the network makes of the tokens [T] of a translation, the right ones before each."""
        return self._reading(self.decode(torch.from_numpy(read)[None], encoded, [None, None]))

    @torch.no_grad()
    def step(self, encoded: Encoded, tokens: NDArray[np.int32], layers: Any = None) -> tuple[Reading, Any]:
        """What the network makes of one token more of each of T translations, after those that led to `layers`."""
        decoded = self.decode(torch.from_numpy(tokens)[:, None], encoded, layers or [None, None])
        return self._reading(decoded), decoded.layers

    def tunable(self, rate: float) -> TorchTranslator:
        """The network without its memory, to be trained further at that rate."""
        other = TorchTranslator(self.recipe.further(rate), self.sizes)
        other.load_state_dict({name: array for name, array in self.state_dict().items() if not name.startswith("memory.")})
        return other

    def _reading(self, decoded: Decoded) -> Reading:
        states, queries, attention = (part.flatten(0, 1) for part in decoded[:3])
        probabilities = torch.softmax(F.linear(states, self.weights["embedding"], self.weights["bias"]), dim=1)
        return Reading(*(part.numpy() for part in (probabilities, states, queries, attention)))

    def _embed(self, tokens: Tensor, name: str) -> Tensor:
        return self._drop(F.embedding(tokens, self.weights[name]) * self.recipe.dim**0.5)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.recipe.dropout, self.training)


class TorchStore:
    """A memory that is asked and written in NumPy."""

    def __init__(self, config: MemoryConfig, index: LiveIndex | None = None) -> None:
        self.memory = Memory(config, index=index)

    @torch.no_grad()
    def lookup(self, queries: NDArray[np.float32], targets: NDArray[np.int32] | None = None) -> Lookup:
        """See `Memory.forward`; its arrays are PyTorch's."""
        return self.memory(torch.from_numpy(queries), None if targets is None else torch.from_numpy(targets))

    def update(self, lookup: Lookup, targets: NDArray[np.int32], mask: NDArray[np.bool_]) -> UpdateReport:
        """See `Memory.update`; its arrays are PyTorch's."""
        return self.memory.update(lookup, torch.from_numpy(targets), torch.from_numpy(mask))

    def fill(self, content: PortableState) -> None:
        """See `Memory.fill`."""
        self.memory.fill(content)


def _turned(x: Tensor, there: Tensor) -> Tensor:
    """Each sentence of x [B, S, dim] from its end to its beginning, padding after it."""
    length, places = there.sum(1, keepdim=True), torch.arange(x.shape[1])
    return torch.gather(x, 1, ((length - 1 - places) % x.shape[1])[:, :, None].expand_as(x))


def _run(layer: nn.Module, x: Tensor, state: LstmState) -> tuple[Tensor, LstmState]:
    """Outputs of a layer and its state after the last token. (One token at a time: a cell takes a tenth of the time.)"""
    if torch.is_grad_enabled() or x.shape[1] > 1 or state is None:
        return layer(x, state)
    h, c = torch.lstm_cell(x[:, 0], [part[0] for part in state], *layer.parameters())
    return h[:, None], (h[None], c[None])


def _lstm(weights: Weights, name: str) -> nn.LSTM:
    """The layer of that name."""
    inputs, hidden = weights[f"{name}/input"], weights[f"{name}/hidden"]
    layer = nn.LSTM(len(inputs), len(hidden), batch_first=True)
    layer.weight_ih_l0.data, layer.weight_hh_l0.data = torch.tensor(inputs.T.copy()), torch.tensor(hidden.T.copy())
    layer.bias_ih_l0.data = torch.tensor(weights[f"{name}/bias"])
    layer.bias_hh_l0 = nn.Parameter(torch.zeros(4 * len(hidden)), requires_grad=False)  # an LSTM has one bias; PyTorch has two
    return layer


def make(recipe: TranslationRecipe, sizes: tuple[int, int]) -> TorchTranslator:
    """See `run.make_learner`."""
    torch.manual_seed(recipe.seed)
    return TorchTranslator(recipe, sizes)


def make_store(config: MemoryConfig, **options: Any) -> TorchStore:
    """See `text.make_store`."""
    return TorchStore(config, **options)
