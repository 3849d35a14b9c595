"""The buffers of a memory module: how they are made, moved, emptied and watched.

PyTorch casts, averages and fills the buffers of modules in many ways, without calling the module. So the module notes how its
own calls have left its buffers (`Known`). If they differ at the next call, they are checked once: buffers that were cast are
cast back, and buffers that are no valid memory are an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from raremem.adapters.torch import modes
from raremem.adapters.torch.buffers import (
    DTYPES,
    NAMES,
    Known,
    all_seen,
    captured,
    fault,
    in_numpy,
    is_broadcast,
    is_cast,
    keeps_content,
    sharing,
    uncast,
    writes,
)
from raremem.backend import ArrayBackend
from raremem.config import MemoryConfig
from raremem.errors import DeviceError, StateError
from raremem.lineage import pass_on, pass_on_changed
from raremem.primitives import set_all
from raremem.search.live import LiveIndex
from raremem.state import NO_SLOT, MemoryState, UpdateReport
from raremem.watch import Watch

Self = TypeVar("Self", bound="WatchedModule")


class WatchedModule(nn.Module):
    """A module with the five buffers of a memory, which are watched for changes by anything else.

    Attributes:
        keys: [slots, key_dim] f32, a buffer. For this and the next four see `raremem.MemoryState`.
        values: [slots] i32, a buffer.
        last_used: [slots] i32, a buffer.
        hits: [slots] i32, a buffer.
        step: [] i32, a buffer.
        config: size and behaviour.
        backend: the functional interface that the module calls.
        index: approximate search, or None.
        projection: the learned linear map of `query_dim`, or None.
    """

    keys: Tensor
    values: Tensor
    last_used: Tensor
    hits: Tensor
    step: Tensor
    config: MemoryConfig
    backend: ArrayBackend
    index: LiveIndex | None
    projection: nn.Linear | None
    _known: Known | None = None
    _met: bool = False
    """Whether the content was compared with that of the other ranks."""
    _is_part: bool = False
    """Whether this rank has the keys of some slots only."""
    _is_broadcast: bool = False
    """Whether the last forward was in a DistributedDataParallel that broadcasts the buffers."""
    _has_warned: bool = False
    """Whether the warning was given that an update writes the rows of one rank alone."""

    def _backend(self) -> ArrayBackend:
        """The backend of this kind of module."""
        raise NotImplementedError

    @property
    def state(self) -> MemoryState:
        """The buffers, as the functional interface takes them. They are shared, not copied."""
        return self._own

    @property
    def _own(self) -> MemoryState:
        """The buffers."""
        return MemoryState(self.keys, self.values, self.last_used, self.hits, self.step)

    def _slots(self) -> slice:
        """The slots whose keys are here."""
        return slice(None)

    def _places(self, slots: NDArray[np.int32]) -> NDArray[np.int32]:
        """The rows of this rank's keys that hold those of these slots that are here."""
        return slots

    def _parts(self, state: Any) -> MemoryState:
        """A state of the backend as buffers."""
        return MemoryState(*state)

    def _in_turn(self, alone: bool, call: Callable[..., Any], *arguments: Any) -> Any:
        return self.backend.in_turn(self._own, alone, call, *arguments)

    # Watched.

    def _note(self, report: UpdateReport | None = None, trusted: bool = True) -> None:
        """Note the buffers as they are now.

        Args:
            report: of the update that has written to them; None: note all of their content.
            trusted: False: they will be checked at the next call, though they are known for the module's own.
        """
        if torch.compiler.is_compiling():
            return
        state = self._own
        if not all_seen(state):
            self._known = None
            return
        watch = self._known.watch if self._known is not None and report is not None else None
        if state.keys.device.type == "cpu" and len(state.keys):
            keys, step = in_numpy(state.keys), int(state.step)
            if watch is None or report is None:
                watch = Watch(keys, step)
            else:
                watch.follow(keys, step, self._places(in_numpy(report.slots)[in_numpy(report.written)]))
        with torch.inference_mode(False):
            content = tuple(tensor.detach() for tensor in state)
        self._known = Known(tuple(state), content, writes(state) if trusted else None, watch)

    def _look(self) -> None:
        """Check that the buffers are as the module's own calls have left them, or at least a valid memory.

        Raises:
            StateError: something else has written to them, and they are no valid memory.
            DeviceError: some of them are on meta.
            ConcurrencyError: another thread is updating them.
        """
        if modes.traced() or modes.transformed():
            return
        if self._known is None or not self._known.holds(self._own):
            self._in_turn(False, self._look_again)
        if dist.is_available() and dist.is_initialized():
            self._is_broadcast = is_broadcast(self.keys)

    def _look_again(self) -> None:
        on_meta = [name for name, tensor in self._own._asdict().items() if tensor.is_meta]
        if 0 < len(on_meta) < len(NAMES):
            raise DeviceError(f"{', '.join(on_meta)} of the memory are on meta and the rest is not; expected all of it loaded.")
        if (self._known is not None and self._known.holds(self._own)) or not all_seen(self._own) or captured(self.keys):
            return
        shared = sharing(self._own)
        if shared is not None:
            raise StateError(
                f"buffers were given to the memory, and {shared}; expected memory of its own for each. Clone them."
            )
        self._uncast()
        wrong = fault(self._own, self._slots())
        if wrong is not None:
            raise StateError(
                f"something other than this memory has written to its buffers, and {wrong}. Average weights without buffers "
                "(AveragedModel(use_buffers=False)); fill what was never filled with load_state_dict or reset_parameters()."
            )
        pass_on_changed(self.keys, self.keys)
        self._met = False
        self._note()

    def _uncast(self) -> None:
        """Cast the buffers back to their own dtypes. Those in `Known` get back their content from before the cast."""
        known = {} if self._known is None else dict(zip(map(id, self._known.tensors), self._known.content, strict=True))
        for name, tensor, dtype in zip(NAMES, self._own, DTYPES, strict=True):
            if not is_cast(tensor, dtype):
                continue
            with torch.inference_mode(False), torch.no_grad():
                whole = known[id(tensor)].to(tensor.device) if id(tensor) in known else uncast(name, tensor)
                if tensor.is_inference():
                    self._buffers[name] = whole
                else:
                    tensor.data = whole

    # Made, moved and emptied.

    def _register(self, device: Any) -> None:
        """Make the buffers of an empty memory."""
        for name, array in self._parts(self.backend.init(self.config))._asdict().items():
            self.register_buffer(name, array if device is None else array.to(device))
        self._note()

    def reset_parameters(self) -> None:
        """Empty the memory, and initialise the projection anew. Called by libraries that make modules on the device meta."""
        if self.projection is not None:
            self.projection.reset_parameters()
        self._in_turn(True, self._empty)

    @torch.no_grad()
    def _empty(self) -> None:
        set_all(self._own, (...,) * len(NAMES), (0.0, NO_SLOT, 0, 0, 0))
        self._changed()

    def _changed(self) -> None:
        """Note that all of the content was replaced."""
        self._keep_normal()
        pass_on_changed(self.keys, self.keys)
        self._met = False
        self._note()
        if self.index is not None:
            self.index.drop()

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Let `.to`, `.half()`, `.type()` and the like move the buffers, dtypes as they are; `to_empty` empties the memory."""
        moved: Self = self._in_turn(True, self._moved, fn, recurse)
        return moved

    def _moved(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool) -> Self:
        before, kept = dict(self._buffers), keeps_content(fn, self.keys)
        try:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
            for name, old in before.items():
                new = self._buffers[name]
                if old is not None and new is not None and new.dtype != old.dtype:
                    unfilled = old.is_meta and not new.is_meta
                    self._buffers[name] = torch.empty_like(old, device=new.device) if unfilled else old.to(new.device)
                kept = kept and not (old is not None and new is not None and old.is_meta and not new.is_meta)
        except BaseException:
            self._buffers.update(before)
            raise
        if kept:
            self._keep_normal()
            self._note()
            if self.keys is not before["keys"]:
                pass_on(before["keys"], self.keys)
        else:
            if self.projection is not None:
                self.projection.reset_parameters()
            self._empty()
        return self

    def _keep_normal(self) -> None:
        """Replace tensors that were made in `torch.inference_mode`, since they cannot be written to outside it."""
        with torch.inference_mode(False):
            for name, buffer in self._buffers.items():
                if buffer is not None and buffer.is_inference():
                    self._buffers[name] = buffer.clone()
                    pass_on(buffer, self._buffers[name])
