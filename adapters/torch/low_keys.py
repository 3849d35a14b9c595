"""The keys of memories in bf16: what the exact search on a CPU compares first.

To convert all keys takes longer than to compare a few queries with them. So they are kept converted, which takes half their
memory again, from the second search of a memory on that only our own updates have written to between: each converts the rows
that it writes. After any other write that `raremem.watch` notices, all begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from raremem.adapters.torch import modes
from raremem.state import MemoryState
from raremem.watch import Watch


@dataclass
class KeptKeys:
    """A watch over some keys, and from the second search on the same in bf16."""

    watch: Watch
    low: Tensor | None = None


class LowKeys:
    """Key tables in bf16, each kept while its f32 table lives."""

    def __init__(self) -> None:
        self.kept = WeakTensorKeyDictionary()

    def of(self, state: MemoryState) -> Tensor:
        """The keys in bf16, or as they are if not kept so yet. Those of the first slots of a memory are the first of its
        own."""
        first: Tensor = state.keys
        keys = first if first._base is None else first._base
        if keys.is_inference() or (keys.data_ptr(), keys.stride()) != (first.data_ptr(), first.stride()):
            return first
        stamp, kept, rows = _stamp(keys, state.step), self.kept.get(keys), keys.detach().numpy()
        if kept is None or not kept.watch.holds(rows, stamp):
            self.kept[keys] = KeptKeys(Watch(rows, stamp))
            return first
        if kept.low is None:
            with torch.inference_mode(False):
                kept.low = keys.detach().bfloat16()
        return kept.low[: len(first)]

    def before_update(self, state: MemoryState) -> KeptKeys | None:
        """What is kept of these keys as they are; it is kept no longer."""
        kept: KeptKeys | None = self.kept.pop(state.keys, None) if len(self.kept) else None
        if kept is None or not kept.watch.holds(state.keys.detach().numpy(), _stamp(state.keys, state.step)):
            return None
        return kept

    def after_update(self, state: MemoryState, slots: Tensor, kept: KeptKeys) -> None:
        """Keep it again, after an update that wrote to these slots [n] and led to this state."""
        rows = slots.long()
        if kept.low is not None:
            kept.low[rows] = state.keys[rows].bfloat16()
        kept.watch.follow(state.keys.detach().numpy(), _stamp(state.keys, state.step), rows.numpy())
        self.kept[state.keys] = kept


def _stamp(keys: Tensor, step: Tensor) -> tuple[int | None, int]:
    """What changes when PyTorch writes to the keys, or when an update does."""
    return modes.writes(keys), int(step)
