"""The eager search as an operator that compilers do not trace into: for compiled programs, and for transforms of `torch.func`.

PyTorch registers an operator once a process. If this module ran a second time, the new operator would replace the first in
every function that uses it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from raremem.adapters.torch import modes
from raremem.adapters.torch.primitives import EAGER, TorchPrimitives
from raremem.adapters.torch.shortlist import SHORTLIST
from raremem.primitives import Primitives
from raremem.search.contract import Found, Searcher
from raremem.search.portable import PortableScan, ScanPlan
from raremem.state import MemoryState

KERNELS: Searcher | None = None
"""The search with Triton kernels; None without a GPU or without Triton."""
if torch.cuda.is_available() and find_spec("triton") is not None:
    from raremem.adapters.torch.kernels import KernelSearch

    KERNELS = KernelSearch()
ON_CUDA = PortableScan(ScanPlan(held=2**26))
"""The search on a GPU without Triton."""
PORTABLE = PortableScan()


@torch.library.custom_op(
    "raremem::nearest_on_cpu",
    mutates_args=(),
    schema="(Tensor[] state, Tensor queries, Tensor? targets, SymInt k) -> (Tensor, Tensor)",
)
def nearest(state: list[Tensor], queries: Tensor, targets: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """The eager search: slots [B, k], and the best slot with each target, [B, 1], or [B, 0] without targets. The compiler may
    not trace into it, since its shapes depend on content."""
    seen = modes.plain((*state, queries, targets))
    p: Primitives = EAGER if seen else TorchPrimitives()
    search: Searcher = SHORTLIST if seen else PORTABLE if not queries.is_cuda else ON_CUDA if KERNELS is None else KERNELS
    slots, best = search.find(p, MemoryState(*state), queries, targets, k)
    return slots, slots.new_empty((queries.shape[0], 0)) if best is None else best


@nearest.register_fake
def _as_found(state: list[Tensor], queries: Tensor, targets: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    found = queries.new_empty((queries.shape[0], k), dtype=torch.int32)
    return found, found.new_empty((queries.shape[0], 0 if targets is None else 1))


@nearest.register_vmap
def _nearest_of_all(
    info: Any, in_dims: tuple[Any, ...], state: list[Tensor], queries: Tensor, targets: Tensor | None, k: int
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    """Batched queries of one memory are one search. Batched memories are searched one after the other."""
    of_state, of_queries, of_targets, _ = in_dims
    queries = _first(info, queries, of_queries)
    targets = None if targets is None else _first(info, targets, of_targets)
    if all(dim is None for dim in of_state):
        rows = None if targets is None else targets.flatten(0, 1)
        found = nearest(state, queries.flatten(0, 1), rows, k)
        slots, best = (columns.unflatten(0, queries.shape[:2]) for columns in found)
        return (slots, best), (0, 0)
    memories = zip(*(_first(info, array, dim) for array, dim in zip(state, of_state, strict=True)), strict=True)
    asked = [None] * info.batch_size if targets is None else targets
    every = [nearest(list(arrays), *each, k) for arrays, *each in zip(memories, queries, asked, strict=True)]
    slots, best = (torch.stack(columns) for columns in zip(*every, strict=True))
    return (slots, best), (0, 0)


def _first(info: Any, array: Tensor, dim: int | None) -> Tensor:
    """The array with the mapped dimension first."""
    return array.expand(info.batch_size, *array.shape) if dim is None else array.movedim(dim, 0)


class OperatorSearch(Searcher):
    """The search by the operator `nearest`."""

    def find(self, p: Primitives, state: MemoryState, queries: Tensor, targets: Tensor | None, k: int) -> Found:
        """See `Searcher.find`."""
        slots, best = nearest(list(state), queries, targets, k)
        return Found(slots, None if targets is None else best)
