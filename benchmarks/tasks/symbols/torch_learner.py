"""The Extended Neural GPU with a memory in it, in PyTorch."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from raremem import Lookup
from raremem.adapters.torch import Memory
from raremem.benchmarks.tasks.symbols.recipe import EPSILON, Symbols, SymbolsRecipe, first_weights
from raremem.benchmarks.training.torch_learner import TorchLearner


class TorchSymbols(TorchLearner):
    """The network. Its state is [B, maps, width, length]."""

    def __init__(self, recipe: SymbolsRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.weights = nn.ParameterDict(
            {
                name: torch.from_numpy(array).permute(3, 2, 0, 1).contiguous() if array.ndim == 4 else torch.tensor(array)
                for name, array in first_weights(recipe).items()
            }
        )
        self.memory = Memory(recipe.config) if recipe.memory else None
        self.start(recipe.rate, recipe.steps, EPSILON)

    def forward(
        self, symbols: Tensor, answers: Tensor | None = None, due: Tensor | None = None
    ) -> tuple[Tensor, Lookup | None]:
        """Logits [B * length, symbols], and what the memory answered."""
        weights, state = self.weights, self._row(F.embedding(symbols, self.weights["input"]))
        output = F.normalize(weights["output"])
        for _ in range(self.recipe.before):
            state = self._cell("before1", self._cell("before0", state))
        query = self._first_row(state)
        out, recalled = None, torch.zeros_like(query)
        if self.memory is not None:
            out = self.memory(query, answers, due)
            recalled = out.recall(output)
        tape = F.conv2d(self._row(recalled.unflatten(0, symbols.shape)), weights["tape"], padding=1)
        for _ in range(self.recipe.after):
            state = self._cell("after1", self._cell("after0", state, tape))
        joined = self._first_row(state) @ weights["linear"] + weights["gain"] * recalled
        return weights["scale"] * (joined @ output.T), out

    def losses(self, *batch: Tensor) -> Tensor:
        """Cross-entropy where an answer is due, and the memory's own loss."""
        symbols, answers, due = batch
        answers, due = answers.flatten(), due.flatten()
        logits, out = self(symbols, answers, due)
        loss = F.cross_entropy(logits[due], answers[due].long())
        if out is not None and self.memory is not None:
            loss = loss + out.loss.sum() / due.sum()
            self.memory.update(out)
        return loss

    @torch.no_grad()
    def ask(self, symbols: Symbols) -> Symbols:
        """The network's answers [B, length]."""
        return self(torch.from_numpy(symbols))[0].argmax(1).to(torch.int32).view(symbols.shape).numpy()

    @torch.no_grad()
    def show(self, symbols: Symbols, answers: Symbols, due: NDArray[np.bool_]) -> None:
        """Let the memory see sequences and their answers; no gradient step."""
        if self.memory is not None:
            _, out = self(*map(torch.from_numpy, (symbols, answers.ravel(), due.ravel())))
            self.memory.update(out)

    def _row(self, cells: Tensor) -> Tensor:
        """A state whose first row is [B, length, maps]."""
        return F.pad(cells.transpose(1, 2)[:, :, None], (0, 0, 0, self.recipe.width - 1))

    def _first_row(self, state: Tensor) -> Tensor:
        return state[:, :, 0].transpose(1, 2).flatten(0, 1)

    def _cell(self, name: str, state: Tensor, tape: Tensor | None = None) -> Tensor:
        """A convolutional gated recurrent unit; `tape` [B, 3 maps, width, length] is added to what its gates take in."""
        weights, maps = self.weights, self.recipe.maps
        gates = F.conv2d(state, weights[f"{name}/gates"], weights[f"{name}/gates_bias"], padding=1)
        gates = torch.sigmoid(gates if tape is None else gates + tape[:, : 2 * maps])
        update, reset = gates[:, :maps], gates[:, maps:]
        candidate = F.conv2d(reset * state, weights[f"{name}/candidate"], weights[f"{name}/candidate_bias"], padding=1)
        candidate = torch.tanh(candidate if tape is None else candidate + tape[:, 2 * maps :])
        return update * state + (1 - update) * candidate


def make(recipe: SymbolsRecipe) -> TorchSymbols:
    """See `run.make_learner`."""
    torch.manual_seed(recipe.seed)
    return TorchSymbols(recipe)
