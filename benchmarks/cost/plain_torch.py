"""The peer of the task `speed`: a memory in plain PyTorch, with a matrix product, `topk` and index writes."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from raremem.benchmarks.cost.timing import as_graph, median_ms, on_cuda


class PlainMemory:
    """Keys [slots, key_dim], values [slots], ages [slots]."""

    def __init__(self, keys: Tensor, values: Tensor, neighbors: int) -> None:
        self.keys, self.values, self.neighbors = keys, values, neighbors
        self.ages = torch.randint(0, 1000, (len(keys),), dtype=torch.int32)

    def step(self, queries: Tensor, targets: Tensor) -> None:
        """The paper's step: loss with its gradient, then the update."""
        rows = F.normalize(queries)
        similar, slots = torch.topk(rows @ self.keys.T, self.neighbors, dim=1)
        right = self.values[slots] == targets[:, None]
        positive = torch.where(right, similar, -1.0).amax(1)
        negative = torch.where(right, -1.0, similar).amax(1)
        F.relu(negative - positive + 0.1).mean().backward()
        with torch.no_grad():
            self._update(rows.detach(), targets, slots[:, 0], right[:, 0])

    def _update(self, rows: Tensor, targets: Tensor, slots: Tensor, hit: Tensor) -> None:
        noisy = self.ages + torch.randint(-8, 8, self.ages.shape, dtype=torch.int32)
        slots = torch.where(hit, slots, torch.topk(noisy, len(slots)).indices)
        self.keys[slots] = F.normalize(torch.where(hit[:, None], self.keys[slots] + rows, rows))
        self.values[slots] = targets
        self.ages += 1
        self.ages.index_fill_(0, slots, 0)


def measure(neighbors: int, keys: Any, values: Any, queries: Any, targets: Any, seconds: float) -> dict[str, float]:
    """Milliseconds of its step, on a GPU also as one CUDA graph, and of the limit. Arrays are those of `Workload.data`."""
    memory = PlainMemory(torch.tensor(keys), torch.tensor(values), neighbors)
    batches = [
        (torch.tensor(rows, requires_grad=True), torch.tensor(wanted)) for rows, wanted in zip(queries, targets, strict=True)
    ]
    turns = cycle(batches)
    found = {"plain": median_ms(lambda: memory.step(*next(turns)), seconds)}
    if on_cuda() and len(batches) == 1:
        found["plain graph"] = median_ms(as_graph(lambda: memory.step(*batches[0])), seconds)
    with torch.no_grad():
        product = median_ms(lambda: batches[0][0] @ memory.keys.T, seconds)
        found["limit"] = max(product, median_ms(memory.keys.amax, seconds))
    return found
