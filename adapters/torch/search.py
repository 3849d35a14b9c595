"""How a search is chosen in PyTorch: by the device, and by what the call is part of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from raremem.adapters.torch import modes
from raremem.adapters.torch.search_operator import KERNELS, ON_CUDA, PORTABLE, OperatorSearch
from raremem.adapters.torch.shortlist import SHORTLIST
from raremem.primitives import Primitives
from raremem.search.contract import Found, Searcher
from raremem.search.portable import PortableScan, ScanPlan
from raremem.state import MemoryState

LARGE = 2**14
"""From so many slots on, compiled programs for a CPU call the eager search as an operator. The compiled portable scan takes two
to ten times as long, and minutes to compile."""


class TorchSearch(Searcher):
    """The search of PyTorch's backend, which chooses among several for each call.

    Args:
        eager: the search for eager calls on a CPU.
    """

    def __init__(self, eager: Searcher = SHORTLIST) -> None:
        self.eager = eager
        self.operator = OperatorSearch()
        self.compiled = PortableScan(ScanPlan(in_blocks=False))
        """Not in blocks: for a batch of any size torch 2.13 generates C++ that does not compile."""

    def chosen(self, p: Primitives, state: MemoryState, queries: Tensor) -> Searcher:
        """The search for these arrays, which are traced or on a GPU."""
        compiling = torch.compiler.is_compiling()
        is_large = queries.device.type == "cpu" and state.values.shape[0] >= LARGE
        if (compiling and is_large) or (not compiling and modes.transformed()):
            return self.operator
        if KERNELS is not None and queries.is_cuda:
            return KERNELS
        if compiling:
            return self.compiled
        return ON_CUDA if queries.is_cuda else PORTABLE

    def find(self, p: Primitives, state: MemoryState, queries: Tensor, targets: Tensor | None, k: int) -> Found:
        """See `Searcher.find`."""
        search = self.eager if p.eager else self.chosen(p, state, queries)
        return search.find(p, state, queries, targets, k)

    def before_update(self, p: Primitives, state: MemoryState) -> Any:
        """See `Searcher.before_update`."""
        return self.eager.before_update(p, state)

    def after_update(self, p: Primitives, state: MemoryState, slots: Tensor, taken: Any) -> None:
        """See `Searcher.after_update`."""
        self.eager.after_update(p, state, slots, taken)
