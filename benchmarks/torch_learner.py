"""What the learners of all tasks share in PyTorch: the optimizer, its schedule, and snapshots."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class TorchLearner(nn.Module):
    """A network with its memory. A subclass makes its layers, calls `start`, and gives `losses`.

    Adam's rate falls to 0 in a straight line.
    """

    def start(self, rate: float, steps: int, epsilon: float = 1e-8, clip: float | None = None) -> None:
        """Make the optimizer; `epsilon` is Adam's, `clip` bounds the norm of a step's whole gradient."""
        self.rate, self.steps, self.done, self.clip = rate, steps, 0, clip
        self.optimizer = torch.optim.Adam(self.parameters(), rate, eps=epsilon)

    def fast_products(self) -> torch.autocast:
        """A context in which products are in bf16, where the processor has it."""
        return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())

    def losses(self, *batch: Tensor) -> Tensor:
        """The loss [] of a batch; writes to the memory."""
        raise NotImplementedError

    def learn(self, *batch: NDArray[Any]) -> float:
        """See `Learner.learn`."""
        self.train()
        loss = self.losses(*map(torch.from_numpy, batch))
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters(), self.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * (1 - self.done / self.steps)
        self.optimizer.step()
        self.done += 1
        return loss.item()

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """See `Learner.to_numpy`."""
        content = {f"model/{name}": array.numpy().copy() for name, array in self.state_dict().items()}
        for place, moments in self.optimizer.state_dict()["state"].items():
            content |= {f"optimizer/{place}/{name}": array.numpy().copy() for name, array in moments.items()}
        return content | {"done": np.array(self.done), "random": torch.get_rng_state().numpy()}

    def from_numpy(self, content: dict[str, NDArray[Any]]) -> None:
        """See `Learner.from_numpy`."""
        moments: dict[int, dict[str, Tensor]] = {}
        for name, array in content.items():
            if name.startswith("optimizer/"):
                _, place, kind = name.split("/")
                moments.setdefault(int(place), {})[kind] = torch.tensor(array)
        self.load_state_dict({name[6:]: torch.tensor(a) for name, a in content.items() if name.startswith("model/")})
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.done = int(content["done"])
        torch.set_rng_state(torch.tensor(content["random"]))
