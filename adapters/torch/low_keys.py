"""Copies of memories' keys in bf16, for the coarse scan of the exact search on a CPU.

Converting all keys takes longer than comparing a few queries with them. So a copy is made at the second search of a memory, if
nothing but the memory's own updates has written to it since the first, and each update converts the rows that it writes. The
copy takes half as much space as the keys. After any other write that `raremem.watch` detects, the copy is dropped.
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
    """A watch over a memory's keys, and from the second search on their copy in bf16."""

    watch: Watch
    low: Tensor | None = None


class LowKeys:
    """The copies of all memories, by the tensor of their keys."""

    def __init__(self) -> None:
        self.kept = WeakTensorKeyDictionary()

    def of(self, state: MemoryState) -> Tensor:
        """The keys in bf16, or in f32 if there is no copy yet. Of a slice of the first slots, the same slice of the copy is
        returned."""
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
        """Give up the copy of these keys, and return it; None if there is none, or something else has written to the keys."""
        kept: KeptKeys | None = self.kept.pop(state.keys, None) if len(self.kept) else None
        if kept is None or not kept.watch.holds(state.keys.detach().numpy(), _stamp(state.keys, state.step)):
            return None
        return kept

    def after_update(self, state: MemoryState, slots: Tensor, kept: KeptKeys) -> None:
        """Take back the copy after an update that wrote to these slots [n] and returned this state."""
        rows = slots.long()
        if kept.low is not None:
            kept.low[rows] = state.keys[rows].bfloat16()
        kept.watch.follow(state.keys.detach().numpy(), _stamp(state.keys, state.step), rows.numpy())
        self.kept[state.keys] = kept


def _stamp(keys: Tensor, step: Tensor) -> tuple[int | None, int]:
    """The stamp of the keys: it changes when PyTorch, or an update, writes to them."""
    return modes.writes(keys), int(step)
