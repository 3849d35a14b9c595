"""The embedding network in PyTorch."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from raremem.adapters.torch import Memory
from raremem.benchmarks.data.characters import Images
from raremem.benchmarks.training.embedding.recipe import NORM_EPSILON, NORM_MOMENTUM, EmbeddingRecipe, first_weights
from raremem.benchmarks.training.torch_learner import TorchLearner


class TorchEmbedder(TorchLearner):
    """A convolutional network that learns through a memory. Convolutions are in bf16 where the processor has it."""

    def __init__(self, recipe: EmbeddingRecipe) -> None:
        super().__init__()
        weights = first_weights(recipe)
        self.recipe = recipe
        self.matrices = nn.ParameterDict({name: torch.from_numpy(w.T.copy()) for name, w in weights.items() if w.ndim == 2})
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(maps, NORM_EPSILON, NORM_MOMENTUM) for name, _, maps in recipe.layers})
        self.memory = Memory(recipe.memory)
        self.start(recipe.rate, recipe.steps, matrix_rate=recipe.matrix_rate)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings [n, key_dim] of images [n, 28, 28]."""
        x = images[:, None].contiguous(memory_format=torch.channels_last)
        with self.fast_products():
            for block in range(len(self.recipe.channels) - 1):
                x = self._block(str(block), x)
        return F.linear(x.float().permute(0, 2, 3, 1).flatten(1), self.matrices["linear"])

    def _block(self, name: str, x: Tensor) -> Tensor:
        x, second = self._convolve(name, x), f"{name}b"
        if second not in self.norms:
            return F.relu(self.norms[name](F.max_pool2d(x, 2)))
        x = F.relu(self.norms[name](x))
        return F.max_pool2d(x + F.relu(self.norms[second](self._convolve(second, x))), 2)

    def _convolve(self, name: str, x: Tensor) -> Tensor:
        kernel = self.matrices[f"kernel{name}"].unflatten(1, (3, 3, -1)).permute(0, 3, 1, 2)
        return F.conv2d(x, kernel, padding=1)

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


def make(recipe: EmbeddingRecipe) -> TorchEmbedder:
    """See `recipe.make_embedder`."""
    return TorchEmbedder(recipe)
