"""The keys of a memory in bf16, beside them: what PyTorch's exact search on a CPU compares first.

To convert all keys takes longer than to compare a few queries with them. So they are kept converted, which takes half their
memory again, from the second search of a memory on that only our own updates have written to between: each converts the rows
that it writes. After any other write that `raremem.watch` notices, all begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from raremem.adapters import torch_modes
from raremem.state import MemoryState
from raremem.watch import Watch


@dataclass
class Shadow:
    """What is kept beside keys: a watch over them, and from the second search on the same in bf16."""

    watch: Watch
    low: Tensor | None = None

    def write(self, keys: Tensor, step: Tensor | NDArray[np.int32], slots: Tensor | NDArray[np.int32]) -> None:
        """Follow an update of these slots [n], after which the step is this."""
        rows = torch.as_tensor(slots).long()
        if self.low is not None:
            self.low[rows] = keys[rows].bfloat16()
        self.watch.follow(keys.detach().numpy(), _stamp(keys, step), rows.numpy())
        _shadows[keys] = self


_shadows = WeakTensorKeyDictionary()


def _stamp(keys: Tensor, step: Tensor | NDArray[np.int32]) -> tuple[int | None, int]:
    """What changes when PyTorch writes to the keys, or when an update does."""
    return torch_modes.writes(keys), int(step)


def in_bf16(state: MemoryState) -> Tensor:
    """The keys in bf16, or as they are if not kept so yet. Those of the first slots of a memory are the first of its own."""
    first: Tensor = state.keys
    keys = first if first._base is None else first._base
    if keys.is_inference() or (keys.data_ptr(), keys.stride()) != (first.data_ptr(), first.stride()):
        return first
    stamp, shadow, rows = _stamp(keys, state.step), _shadows.get(keys), keys.detach().numpy()
    if shadow is None or not shadow.watch.holds(rows, stamp):
        _shadows[keys] = Shadow(Watch(rows, stamp))
        return first
    if shadow.low is None:
        with torch.inference_mode(False):
            shadow.low = keys.detach().bfloat16()
    return shadow.low[: len(first)]


def take(state: MemoryState) -> Shadow | None:
    """What is kept beside the keys, if it is theirs. It is not kept any longer: if an update fails, all begins anew.

    Compiled code takes none.
    """
    if torch.compiler.is_compiling():
        return None
    shadow: Shadow | None = _shadows.pop(state.keys, None)
    if shadow is None or not shadow.watch.holds(state.keys.detach().numpy(), _stamp(state.keys, state.step)):
        return None
    return shadow
