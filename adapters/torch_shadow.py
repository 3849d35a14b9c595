"""The keys of a memory in bf16, beside them: what PyTorch's exact search on a CPU compares first.

To convert all keys takes longer than to compare a few queries with them. So they are kept converted, which takes half their
memory again, from the second search of a memory on that only our own updates have written to between: each converts the rows
that it writes. Any other write makes all begin anew; it shows in PyTorch's count of writes to them, or in the step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from raremem.state import MemoryState


@dataclass
class Shadow:
    """What is kept beside keys: when they were last as we know them, and from the second search on the same in bf16."""

    time: tuple[int, int]
    low: Tensor | None = None

    def write(self, keys: Tensor, step: Tensor | NDArray[np.int32], slots: Tensor | NDArray[np.int32]) -> None:
        """Follow an update of these slots [n], after which the step is this."""
        if self.low is not None:
            rows = torch.as_tensor(slots).long()
            self.low[rows] = keys[rows].bfloat16()
        self.time = _time(keys, step)
        _shadows[keys] = self


_shadows = WeakTensorKeyDictionary()


def _time(keys: Tensor, step: Tensor | NDArray[np.int32]) -> tuple[int, int]:
    """What changes when anything writes to the keys."""
    return keys._version, int(step)


def in_bf16(state: MemoryState) -> Tensor:
    """The keys in bf16, or as they are if not kept so yet. Those of the first slots of a memory are the first of its own."""
    first: Tensor = state.keys
    keys = first if first._base is None else first._base
    if keys.is_inference() or (keys.data_ptr(), keys.stride()) != (first.data_ptr(), first.stride()):
        return first
    time, shadow = _time(keys, state.step), _shadows.get(keys)
    if shadow is None or shadow.time != time:
        _shadows[keys] = Shadow(time)
        return first
    if shadow.low is None:
        with torch.inference_mode(False):
            shadow.low = keys.detach().bfloat16()
    return shadow.low[: len(first)]


def take(state: MemoryState) -> Shadow | None:
    """What is kept beside the keys, if it is of this time. It is not kept any longer: if an update fails, all begins anew.

    Compiled code takes none.
    """
    if torch.compiler.is_compiling():
        return None
    shadow: Shadow | None = _shadows.pop(state.keys, None)
    return None if shadow is None or shadow.time != _time(state.keys, state.step) else shadow
