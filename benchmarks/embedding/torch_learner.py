"""The embedding network in PyTorch."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from raremem.adapters.torch import Memory
from raremem.benchmarks.characters import Images
from raremem.benchmarks.embedding.recipe import LEARNING_RATE, NORM_EPSILON, NORM_MOMENTUM, Recipe, first_weights
from raremem.benchmarks.torch_learner import TorchLearner


class TorchEmbedder(TorchLearner):
    """A convolutional network that learns through a memory. Convolutions are in bf16 where the processor has it."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        weights = first_weights(recipe)
        self.recipe = recipe
        self.convolutions, self.norms = nn.ModuleDict(), nn.ModuleDict()
        for name, inputs, outputs in recipe.layers:
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            convolution.weight.data = (
                torch.from_numpy(weights[f"kernel{name}"]).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
            )
            self.convolutions[name] = convolution
            self.norms[name] = nn.BatchNorm2d(outputs, NORM_EPSILON, NORM_MOMENTUM)
        self.linear = nn.Parameter(torch.from_numpy(weights["linear"]))
        self.memory = Memory(recipe.memory)
        self.start(LEARNING_RATE, recipe.steps)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings [n, key_dim] of images [n, 28, 28]."""
        x = images[:, None].contiguous(memory_format=torch.channels_last)
        with self.fast_products():
            for block in range(len(self.recipe.channels) - 1):
                x = self._block(str(block), x)
        return x.float().permute(0, 2, 3, 1).flatten(1) @ self.linear

    def _block(self, name: str, x: Tensor) -> Tensor:
        x, second = self.convolutions[name](x), f"{name}b"
        if second not in self.convolutions:
            return F.relu(self.norms[name](F.max_pool2d(x, 2)))
        x = F.relu(self.norms[name](x))
        return F.max_pool2d(x + F.relu(self.norms[second](self.convolutions[second](x))), 2)

    def losses(self, *batch: Tensor) -> Tensor:
        """The mean over the turns of all showings."""
        images, targets = batch
        queries = self(images.flatten(0, 1)).unflatten(0, targets.shape)
        return torch.stack([self._turn(queries, turn, values) for turn, values in enumerate(targets)]).mean()

    def _turn(self, queries: Tensor, turn: int, targets: Tensor) -> Tensor:
        """One showing of each class is written, the others are asked for."""
        self.memory.update(self.memory(queries[turn].detach(), targets))
        others = torch.cat([queries[:turn], queries[turn + 1 :]])
        return self.memory(others.flatten(0, 1), targets.repeat(len(others))).loss.mean()

    @torch.no_grad()
    def embed(self, images: Images) -> NDArray[np.float32]:
        """See `Embedder.embed`."""
        self.eval()
        parts = [F.normalize(self(part)) for part in torch.from_numpy(images).split(256)]
        return torch.cat(parts).numpy()


def make(recipe: Recipe) -> TorchEmbedder:
    """See `recipe.make_embedder`."""
    return TorchEmbedder(recipe)
