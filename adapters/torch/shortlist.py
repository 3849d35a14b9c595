"""PyTorch's exact search on a CPU: a coarse scan of a bf16 copy of the keys, and short lists."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from raremem.adapters.numpy import NumpyShortlist
from raremem.adapters.torch.low_keys import KeptKeys, LowKeys
from raremem.adapters.torch.primitives import HOST, IN_NUMPY
from raremem.primitives import Primitives
from raremem.search.coarse import CoarseKeys
from raremem.search.contract import Found
from raremem.search.shortlist import Shortlist, ShortlistPlan
from raremem.state import MemoryState, quietly

BF16_ROUNDOFF = 2.0**-8
"""bf16 has 8 significant bits."""


_find_quietly = quietly(NumpyShortlist.find)
LOW_KEYS = LowKeys()
"""The bf16 copies of the keys of all memories."""


class TorchShortlist(Shortlist):
    """`Shortlist` whose coarse scan is in bf16, where the processor multiplies bf16.

    Where all slots are scored in f32 at once, NumPy does it, on the same storage: its calls on a few numbers take a third of
    the time of PyTorch's, and it sorts faster.
    """

    def __init__(self, plan: ShortlistPlan | None = None) -> None:
        super().__init__(plan)
        self.in_numpy = NumpyShortlist(self.plan)
        self.low_keys = LOW_KEYS

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy shares the bf16 copies."""
        return type(self), (self.plan,)

    def find(self, p: Primitives, state: MemoryState, queries: Tensor, targets: Tensor | None, k: int) -> Found:
        """See `Searcher.find`."""
        if self.plan.cut(len(state.values), k, *queries.shape).width > 1:
            return super().find(p, state, queries, targets, k)
        seen, wanted = MemoryState(*map(IN_NUMPY, state)), None if targets is None else IN_NUMPY(targets)
        slots, best = _find_quietly(self.in_numpy, HOST, seen, IN_NUMPY(queries), wanted, k)
        return Found(torch.from_numpy(slots), None if best is None else torch.from_numpy(best))

    def coarse_keys(self, p: Primitives, state: MemoryState, batch: int) -> CoarseKeys:
        """See `Shortlist.coarse_keys`. For fewer than eight queries, to convert the keys costs what it saves."""
        if not torch.cpu._is_avx512_bf16_supported():
            return super().coarse_keys(p, state, batch)
        keys = self.low_keys.of(state)
        if keys is state.keys and batch < 8:
            return super().coarse_keys(p, state, batch)
        return CoarseKeys(keys, "bfloat16", BF16_ROUNDOFF)

    def block_maxima(self, p: Primitives, scores: Tensor, width: int) -> Tensor:
        """See `Shortlist.block_maxima`. Bits of bf16 are compared as whole numbers, in a quarter of the time. That is right for
        numbers from 0.0 on; those below count as 0.0."""
        if scores.dtype != torch.bfloat16:
            return super().block_maxima(p, scores, width)
        bits = scores.view(torch.int16).view(width, -1, scores.shape[1]).amax(0)
        return bits.clamp_(min=0).view(torch.bfloat16)

    def largest(self, p: Primitives, scores: Tensor, k: int) -> Tensor:
        """See `Shortlist.largest`."""
        return torch.topk(scores, k, dim=1, sorted=False).indices

    def gather(self, p: Primitives, keys: Tensor, rows: Tensor, into: Tensor | None) -> Tensor:
        """See `Shortlist.gather`. `index_select` copies row by row, indexing number by number."""
        out = None if into is None else into[: len(rows)].flatten(0, rows.ndim - 1)
        return torch.index_select(keys, 0, rows.reshape(-1), out=out).reshape(*rows.shape, *keys.shape[1:])

    def before_update(self, p: Primitives, state: MemoryState) -> KeptKeys | None:
        """See `Searcher.before_update`."""
        return self.low_keys.before_update(state) if p.eager else None

    def after_update(self, p: Primitives, state: MemoryState, slots: Tensor, taken: KeptKeys) -> None:
        """See `Searcher.after_update`."""
        self.low_keys.after_update(state, slots, taken)


SHORTLIST = TorchShortlist()
"""The search with the default plan."""
