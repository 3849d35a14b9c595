"""The base of all learners in PyTorch: the optimizer with its schedule, and snapshots."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raremem.errors import MissingPackageError


class TorchLearner(nn.Module):
    """A network with its memory. A subclass makes its layers, calls `start`, and gives `losses`.

    Rates fall to 0 in a straight line.
    """

    def start(
        self, rate: float, steps: int, epsilon: float = 1e-8, clip: float | None = None, matrix_rate: float | None = None
    ) -> None:
        """Make the optimizer.

        Args:
            rate: Adam's at the first step.
            steps: over which rates fall.
            epsilon: Adam's.
            clip: bounds the norm of a step's whole gradient.
            matrix_rate: if given, weights of two dimensions are Muon's (Jordan et al., 2024), and this is its rate.

        Raises:
            MissingPackageError: this PyTorch has no Muon.
        """
        self.steps, self.done, self.clip = steps, 0, clip
        weights = list(self.parameters())
        self.optimizers: list[tuple[torch.optim.Optimizer, float]] = []
        if matrix_rate is not None:
            self.optimizers.append((_muon([weight for weight in weights if weight.ndim == 2], matrix_rate), matrix_rate))
            weights = [weight for weight in weights if weight.ndim != 2]
        self.optimizers.append((torch.optim.Adam(weights, rate, eps=epsilon, fused=True), rate))

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
        self.zero_grad()
        loss.backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters(), self.clip)
        for optimizer, rate in self.optimizers:
            optimizer.param_groups[0]["lr"] = rate * (1 - self.done / self.steps)
            optimizer.step()
        self.done += 1
        return loss.item()

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """See `Learner.to_numpy`."""
        content = {f"model/{name}": array.numpy().copy() for name, array in self.state_dict().items()}
        for number, (optimizer, _) in enumerate(self.optimizers):
            for place, moments in optimizer.state_dict()["state"].items():
                content |= {f"optimizer/{number}/{place}/{name}": array.numpy().copy() for name, array in moments.items()}
        return content | {"done": np.array(self.done), "random": torch.get_rng_state().numpy()}

    def from_numpy(self, content: dict[str, NDArray[Any]]) -> None:
        """See `Learner.from_numpy`."""
        moments: list[dict[int, dict[str, Tensor]]] = [{} for _ in self.optimizers]
        for name, array in content.items():
            if name.startswith("optimizer/"):
                _, number, place, kind = name.split("/")
                moments[int(number)].setdefault(int(place), {})[kind] = torch.tensor(array)
        self.load_state_dict({name[6:]: torch.tensor(a) for name, a in content.items() if name.startswith("model/")})
        for (optimizer, _), state in zip(self.optimizers, moments, strict=True):
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        self.done = int(content["done"])
        torch.set_rng_state(torch.tensor(content["random"]))


def _muon(matrices: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    if not hasattr(torch.optim, "Muon"):
        raise MissingPackageError(
            f"training needs torch.optim.Muon, and this is PyTorch {torch.__version__}: pip install 'torch>=2.9'"
        )
    return torch.optim.Muon(matrices, rate, weight_decay=0.0)
