"""The buffers of a memory module: their dtypes, and checks of whether something else has changed them."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from raremem.adapters.torch import modes
from raremem.config import MAX_INT32
from raremem.errors import StateError
from raremem.state import MAX_HITS, NO_SLOT, MemoryState
from raremem.watch import Watch

NAMES = MemoryState._fields
DTYPES = MemoryState(torch.float32, torch.int32, torch.int32, torch.int32, torch.int32)
RANGES = {"values": (NO_SLOT, MAX_INT32), "hits": (0, MAX_HITS)}
"""The smallest and the largest number that these buffers may hold."""
ROUNDED = 2.0**-8
"""A key in low precision is normalised again if its norm is off by no more than this, the error of rounding to bf16."""


class LoadError(StateError, RuntimeError):
    """A state_dict does not fit the memory. It is a RuntimeError too, as other errors of `load_state_dict` are."""


@dataclass(frozen=True)
class Known:
    """The buffers as the memory's own calls have left them, to detect changes by anything else.

    `content` shares the buffers' storage. It still holds their content if something (FSDP, DDP's mixed precision) gives them
    other storage with `.data =`.
    """

    tensors: tuple[Tensor, ...]
    content: tuple[Tensor, ...]
    writes: tuple[int | None, ...] | None
    watch: Watch | None

    def holds(self, state: MemoryState) -> bool:
        """Whether the buffers are unchanged, as far as can be checked without waiting for a device."""
        if not all(map(operator.is_, state, self.tensors)) or self.writes != writes(state):
            return False
        if any(map(operator.ne, map(operator.attrgetter("dtype"), state), DTYPES)):
            return False
        return self.watch is None or self.watch.holds(in_numpy(state.keys), int(state.step))


class Sent:
    """A buffer as it is pickled for a spawned process: by value. PyTorch would share storage that may be freed too early."""

    def __init__(self, buffer: Tensor) -> None:
        self.array, self.device = None if buffer.is_meta else in_numpy(buffer), buffer.device
        self.shape, self.dtype = buffer.shape, buffer.dtype

    def tensor(self) -> Tensor:
        if self.array is None:
            return torch.empty(self.shape, dtype=self.dtype, device="meta")
        return torch.from_numpy(self.array).to(self.device)


def all_seen(state: MemoryState) -> bool:
    """Whether the content of all arrays may be read."""
    return modes.plain(state) or (not modes.transformed() and all(map(modes.seen, state)))


def is_cast(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether a buffer has another dtype than `dtype`, its own."""
    return tensor.dtype != dtype


def writes(state: MemoryState) -> tuple[int | None, ...]:
    """For each array how often PyTorch has written to it."""
    return tuple(map(modes.writes, state))


def captured(tensor: Tensor) -> bool:
    """Whether a CUDA graph is being captured on the tensor's device: then nothing may wait for the device."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def in_numpy(tensor: Tensor) -> NDArray[Any]:
    """A NumPy array that shares the storage of a CPU tensor; a copy of any other tensor."""
    return tensor.detach().cpu().numpy()


def plain(tensor: Tensor) -> Tensor:
    """The tensor without its gradient, also of a parameter."""
    return tensor.detach() if tensor.requires_grad or isinstance(tensor, nn.Parameter) else tensor


def uncast(name: str, tensor: Tensor) -> Tensor:
    """Cast a buffer back to its own dtype. Keys that were unit rows before they were rounded become unit rows again.

    Raises:
        StateError: it holds numbers of another kind, or too large ones.
    """
    dtype = getattr(DTYPES, name)
    if tensor.dtype == dtype:
        return tensor
    floating = tensor.is_floating_point()
    if floating != dtype.is_floating_point or tensor.is_complex() or tensor.dtype == torch.bool:
        raise StateError(f"{name} are {tensor.dtype}; expected {dtype}. Load the memory again, from what was not cast.")
    if not floating and tensor.numel() and not -MAX_INT32 - 1 <= int(tensor.min()) <= int(tensor.max()) <= MAX_INT32:
        raise StateError(f"{name} reach from {tensor.min()} to {tensor.max()}; expected whole numbers of 32 bits.")
    whole = tensor.to(dtype)
    if floating and tensor.dtype != torch.float64:
        norms = torch.linalg.vector_norm(whole, dim=1, keepdim=True)
        whole = torch.where((norms - 1).abs() <= ROUNDED, whole / norms, whole)
    return whole


def fault(state: MemoryState, here: slice) -> str | None:
    """What is wrong with buffers that hold the keys of the slots `here`; None: they are a valid memory."""
    values = state.values[here]
    if len(values) != len(state.keys):
        return None  # a backend refuses other shapes
    off = (values != NO_SLOT) & ~((torch.linalg.vector_norm(state.keys, dim=1) - 1).abs() <= 1e-3)
    for name, (least, most) in RANGES.items():
        array = getattr(state, name)
        if ((array < least) | (array > most)).any():
            return f"{name} reach from {int(array.min())} to {int(array.max())}, not from {least} to {most}"
    if off.any():
        slot = int(off.int().argmax())
        return f"the key of slot {slot + (here.start or 0)} has norm {float(state.keys[slot].norm()):.3g} and not 1"
    return None


def sharing(state: MemoryState) -> str | None:
    """What shows that numbers in two places are one in memory: a write to one of them would be a write to both."""
    there = {name: tensor for name, tensor in state._asdict().items() if tensor.numel()}
    for name, tensor in there.items():
        if any(size > 1 and not stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
            return f"{name} {list(tensor.shape)} are one number expanded"
    starts: dict[int, str] = {}
    for name, tensor in there.items():
        other = starts.setdefault(tensor.data_ptr(), name)
        if other != name:
            return f"{other} and {name} are the same memory"
    return None


def keeps_content(fn: Callable[[Tensor], Tensor], like: Tensor) -> bool:
    """Whether `fn`, which `nn.Module._apply` calls on each tensor, keeps the content: that of `to_empty` does not."""
    if not modes.seen(like):
        return True
    probe = torch.frombuffer(bytearray(os.urandom(16)), dtype=torch.uint8).to(like.device)
    try:
        moved = fn(probe.clone())
    except Exception:  # made for parameters and buffers alone
        return True
    return moved.is_meta or torch.equal(moved.cpu().double(), probe.cpu().double())


def is_broadcast(keys: Tensor) -> bool:
    """Whether the running forward is of a DistributedDataParallel that overwrites these keys with those of rank 0 each time."""
    active = getattr(nn.parallel.DistributedDataParallel, "_active_ddp_module", None)
    if active is None or not active.will_sync_module_buffers() or dist.get_world_size(active.process_group) == 1:
        return False
    return any(buffer is keys for buffer in active.modules_buffers)
