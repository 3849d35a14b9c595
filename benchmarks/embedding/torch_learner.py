"""The demo's network in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from raremem.adapters.torch import Memory
from raremem.benchmarks.characters import Images
from raremem.benchmarks.embedding.recipe import LEARNING_RATE, NORM_EPSILON, SMALLEST_WEIGHT, Recipe, first_weights


class TorchLearner(nn.Module):
    """A convolutional network that learns through a memory."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.weights = nn.ParameterDict(
            {
                name: torch.tensor(array).permute(3, 2, 0, 1).contiguous() if array.ndim == 4 else torch.tensor(array)
                for name, array in first_weights(recipe).items()
            }
        )
        self.blocks = len(recipe.channels) - 1
        self.memory = Memory(recipe.memory)
        self.optimizer = torch.optim.Adam(self.weights.parameters(), LEARNING_RATE)
        self.recipe, self.step = recipe, 0

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings [n, KEY_DIM] of images [n, 28, 28]."""
        x = images[:, None]
        for block in range(self.blocks):
            x = F.max_pool2d(F.conv2d(x, self.weights[f"kernel{block}"], padding=1), 2)
            x = F.relu(F.group_norm(x, 1, self.weights[f"gain{block}"], self.weights[f"bias{block}"], NORM_EPSILON))
        return x.permute(0, 2, 3, 1).flatten(1) @ self.weights["linear"]

    def learn(self, images: Images, targets: NDArray[np.int32]) -> float:
        """See `Learner.learn`."""
        showings, classes = images.shape[:2]
        queries = self(torch.from_numpy(images).flatten(0, 1))
        values = torch.from_numpy(targets)
        self.memory.update(self.memory(queries[:classes].detach(), values))
        asked = values.repeat(showings - 1)
        out = self.memory(queries[classes:], asked)
        weight = torch.where(out.values == asked[:, None], out.weights, 0.0).sum(dim=1)
        loss = -torch.log(weight + SMALLEST_WEIGHT).mean()
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - self.step / self.recipe.steps)
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """See `Learner.to_numpy`."""
        content = {f"model/{name}": array.numpy().copy() for name, array in self.state_dict().items()}
        for place, moments in self.optimizer.state_dict()["state"].items():
            content |= {f"optimizer/{place}/{name}": array.numpy().copy() for name, array in moments.items()}
        return content | {"step": np.array(self.step)}

    def from_numpy(self, content: dict[str, NDArray[Any]]) -> None:
        """See `Learner.from_numpy`."""
        moments: dict[int, dict[str, Tensor]] = {}
        for name, array in content.items():
            if name.startswith("optimizer/"):
                _, place, kind = name.split("/")
                moments.setdefault(int(place), {})[kind] = torch.tensor(array)
        self.load_state_dict({name[6:]: torch.tensor(a) for name, a in content.items() if name.startswith("model/")})
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.step = int(content["step"])

    @torch.no_grad()
    def embed(self, images: Images) -> NDArray[np.float32]:
        """See `Learner.embed`."""
        parts = [F.normalize(self(part)) for part in torch.from_numpy(images).split(256)]
        return torch.cat(parts).numpy()
