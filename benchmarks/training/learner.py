"""The interface of a learner: a network in one framework, with its memory and its optimizer."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from numpy.typing import NDArray

import raremem
from raremem.benchmarks.packages import need

TrainingBatch = tuple[NDArray[Any], ...]

PACKAGES = {"torch": ("torch",), "jax": ("jax", "flax", "optax")}
"""What the learners of each framework import."""


class Learner(Protocol):
    """A network in one framework, with its memory and its optimizer."""

    def learn(self, *batch: NDArray[Any]) -> float:
        """One gradient step and one update of the memory; returns the loss."""

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """All that training has changed, as arrays by name."""

    def from_numpy(self, content: dict[str, NDArray[Any]]) -> None:
        """Restore what `to_numpy` returned."""


def framework_module(package: str, backend: str) -> Any:
    """The module `<backend>_learner` of a task's package.

    Raises:
        MissingPackageError: the framework, or a package of the extra `bench`, is not installed.
    """
    raremem.get_backend(backend)
    need("training", *PACKAGES[backend])
    return importlib.import_module(f"raremem.benchmarks.{package}.{backend}_learner")
