"""The sequence-to-sequence network with attention, and a memory at its decoder, in PyTorch."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from raremem import Lookup
from raremem.adapters.torch import Memory
from raremem.benchmarks.torch_learner import TorchLearner
from raremem.benchmarks.translation.corpus import END, PAD, START
from raremem.benchmarks.translation.recipe import CLIP, LEARNING_RATE, LONGEST, Recipe, Weights, first_weights

State = tuple[Tensor, Tensor] | None


class TorchTranslator(TorchLearner):
    """The network."""

    def __init__(self, recipe: Recipe, subwords: int) -> None:
        super().__init__()
        weights = first_weights(recipe, subwords)
        self.recipe = recipe
        self.weights = nn.ParameterDict({name: torch.tensor(w) for name, w in weights.items() if "/" not in name})
        names = dict.fromkeys(name.partition("/")[0] for name in weights if "/" in name)
        self.recurrent = nn.ModuleDict({f"{name}_lstm": _lstm(weights, name) for name in names})
        self.memory = Memory(recipe.config) if recipe.memory else None
        self.start(LEARNING_RATE, recipe.steps, clip=CLIP)

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, S, dim] of the encoder, and which [B, S] are not padding."""
        there = source != PAD
        x = self._drop(F.embedding(source, self.weights["embedding"]))
        forward, _ = self.recurrent["forward_lstm"](x)
        backward, _ = self.recurrent["backward_lstm"](_turned(x, there))
        x = x + self._drop(torch.cat([forward, _turned(backward, there)], dim=2))
        return x + self.recurrent["encoder_lstm"](x)[0], there

    def decode(self, read: Tensor, encoded: Tensor, there: Tensor, states: list[State]) -> tuple[Tensor, list[State]]:
        """Attentional states [B, T, dim], and those of the two layers after the last token."""
        x = self._drop(F.embedding(read, self.weights["embedding"]))
        after: list[State] = []
        for layer, state in enumerate(states):
            y, state = self.recurrent[f"decoder{layer}_lstm"](x, state)
            x = x + self._drop(y)
            after.append(state)
        scores = (x @ self.weights["attend"]) @ encoded.transpose(1, 2)
        context = torch.softmax(scores.masked_fill(~there[:, None], -torch.inf), dim=2) @ encoded
        return self._drop(torch.tanh(torch.cat([x, context], dim=2) @ self.weights["join"])), after

    def say(self, states: Tensor, said: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Lookup | None]:
        """Logits [n, subwords] of attentional states [n, dim], and what the memory answered."""
        weights, out = self.weights, None
        if self.memory is not None:
            out = self.memory(states @ weights["query"], said, mask)
            gate = torch.sigmoid(torch.cat([states, out.similarities[:, :1]], dim=1) @ weights["gate"])
            states = states + weights["gain"] * gate * out.recall(weights["embedding"])
        return states @ weights["embedding"].T + weights["bias"], out

    def losses(self, *batch: Tensor) -> Tensor:
        """Cross-entropy of every token but padding, and the memory's own loss of the rare ones."""
        source, read, said, rare = batch
        said, rare = said.flatten(), rare.flatten()
        with self.fast_products():
            states, _ = self.decode(read, *self.encode(source), [None, None])
            logits, out = self.say(states.flatten(0, 1), said, said != PAD)
        loss = F.cross_entropy(logits.float(), said.long(), ignore_index=PAD)
        if out is not None and self.memory is not None:
            assert out.loss is not None
            loss = loss + (out.loss * rare).sum() / rare.sum().clamp(min=1)
            self.memory.update(out, mask=rare)
        return loss

    @torch.no_grad()
    def translate(self, source: NDArray[np.int32]) -> NDArray[np.int32]:
        """The likeliest token after the likeliest token: [B, LONGEST] for sources [B, S]."""
        self.eval()
        said = torch.full((len(source), LONGEST), END, dtype=torch.int32)
        token = torch.full((len(source), 1), START, dtype=torch.int32)
        states: list[State] = [None, None]
        with self.fast_products():
            encoded, there = self.encode(torch.from_numpy(source))
            for place in range(LONGEST):
                state, states = self.decode(token, encoded, there, states)
                token = self.say(state[:, 0])[0].argmax(1, keepdim=True).to(torch.int32)
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
                states, _ = self.decode(read, *self.encode(source), [None, None])
                _, out = self.say(states.flatten(0, 1), said.flatten(), rare.flatten())
            assert out is not None
            self.memory.update(out)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.recipe.dropout, self.training)


def _turned(x: Tensor, there: Tensor) -> Tensor:
    """Each sentence of x [B, S, dim] from its end to its beginning, padding after it."""
    length, places = there.sum(1, keepdim=True), torch.arange(x.shape[1])
    return torch.gather(x, 1, ((length - 1 - places) % x.shape[1])[:, :, None].expand_as(x))


def _lstm(weights: Weights, name: str) -> nn.LSTM:
    """The layer of that name."""
    inputs, hidden = weights[f"{name}/input"], weights[f"{name}/hidden"]
    layer = nn.LSTM(len(inputs), len(hidden), batch_first=True)
    layer.weight_ih_l0.data, layer.weight_hh_l0.data = torch.tensor(inputs.T.copy()), torch.tensor(hidden.T.copy())
    layer.bias_ih_l0.data = torch.tensor(weights[f"{name}/bias"])
    layer.bias_hh_l0.data = torch.zeros(4 * len(hidden))
    return layer


def make(recipe: Recipe, subwords: int) -> TorchTranslator:
    """See `run.make_learner`."""
    torch.manual_seed(recipe.seed)
    return TorchTranslator(recipe, subwords)
