"""How a search is chosen in PyTorch: by the device, and by what the call is part of."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from raremem.adapters.torch import modes
from raremem.adapters.torch.search_operator import OperatorSearch
from raremem.adapters.torch.shortlist import SHORTLIST
from raremem.primitives import Primitives
from raremem.search.contract import Found, Searcher
from raremem.search.portable import PortableScan, ScanPlan
from raremem.state import MemoryState

KERNELS: Searcher | None = None
"""The search by kernels of our own, where there is a GPU, and Triton."""
if torch.cuda.is_available() and find_spec("triton") is not None:
    from raremem.adapters.torch.kernels import KernelSearch

    KERNELS = KernelSearch()

LARGE = 2**14
"""Slots from which on a compiled program for the CPU searches as an eager one does: what a compiler makes of the portable scan
takes two to ten times as long, and minutes to be made."""


class TorchSearch(Searcher):
    """The search of PyTorch's backend: of several, the one for the call.

    Args:
        eager: for what is eager, and for the operator that a compiler does not look into.
    """

    def __init__(self, eager: Searcher = SHORTLIST) -> None:
        self.eager = eager
        self.operator = OperatorSearch()
        self.traced = PortableScan()
        self.compiled = PortableScan(ScanPlan(in_blocks=False))
        """For blocks of a batch of any size torch 2.13 writes C++ that does not compile."""
        self.on_cuda = PortableScan(ScanPlan(held=2**26))

    def chosen(self, p: Primitives, state: MemoryState, queries: Tensor, targets: Tensor | None) -> Searcher:
        """The search for these arrays."""
        if all(p.eager(array) for array in (queries, state.values, targets) if array is not None):
            return self.eager
        compiling = torch.compiler.is_compiling()
        if queries.device.type == "cpu" and state.values.shape[0] >= LARGE if compiling else modes.transformed():
            return self.operator
        if KERNELS is not None and queries.is_cuda:
            return KERNELS
        if compiling:
            return self.compiled
        return self.on_cuda if queries.is_cuda else self.traced

    def find(self, p: Primitives, state: MemoryState, queries: Tensor, targets: Tensor | None, k: int) -> Found:
        """See `Searcher.find`."""
        return self.chosen(p, state, queries, targets).find(p, state, queries, targets, k)

    def take(self, p: Primitives, state: MemoryState) -> Any:
        """See `Searcher.take`."""
        return self.eager.take(p, state)

    def written(self, p: Primitives, state: MemoryState, slots: Tensor, taken: Any) -> None:
        """See `Searcher.written`."""
        self.eager.written(p, state, slots, taken)
