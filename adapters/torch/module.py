"""The life of a memory as a module: how its buffers are made, moved, emptied, filled, loaded, copied and watched.

PyTorch makes, casts, averages and fills buffers in many ways, and asks nobody. So a module remembers how its own calls have
left its buffers (`Known`). Where they are otherwise at the next call, they are looked at once: what was cast is put back, and
what is no memory any longer is an error.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.context import get_spawning_popen
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from raremem import checkpoint
from raremem.adapters.torch import modes
from raremem.adapters.torch.buffers import (
    DTYPES,
    NAMES,
    Known,
    LoadError,
    Sent,
    all_seen,
    captured,
    fault,
    in_numpy,
    is_broadcast,
    is_cast,
    keeps_content,
    uncast,
    writes,
)
from raremem.adapters.torch.loading import EXTRA, content_of
from raremem.backend import ArrayBackend
from raremem.config import MemoryConfig
from raremem.errors import DeviceError, RarememError, StateError
from raremem.primitives import set_all
from raremem.provenance import lineage_of, note, pass_on
from raremem.registry import get_backend
from raremem.search.live import LiveIndex
from raremem.state import NO_SLOT, MemoryState, PortableState, UpdateReport
from raremem.watch import Watch

Self = TypeVar("Self", bound="MemoryModule")


class MemoryModule(nn.Module):
    """What `Memory` and its kinds are as modules: five buffers, a config, and perhaps a projection and an index.

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
    """Whether the other ranks are known to hold the same."""
    _is_part: bool = False
    """Whether the keys are those of some slots, and other ranks have the others."""
    _is_broadcast: bool = False
    """Whether the last forward was in a DistributedDataParallel that broadcasts the buffers."""
    _has_warned: bool = False
    """Whether it was said that an update writes the rows of one rank alone."""

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
        """Where the keys of those of these slots are that are here."""
        return slots

    def _parts(self, state: Any) -> MemoryState:
        """A state of the backend as buffers."""
        return MemoryState(*state)

    def _in_turn(self, alone: bool, call: Callable[..., Any], *arguments: Any) -> Any:
        return self.backend.in_turn(self._own, alone, call, *arguments)

    # Watched.

    def _note(self, report: UpdateReport | None = None, trusted: bool = True) -> None:
        """Take the buffers as they are for known: all of them, or what our update has written.

        Not trusted: known for what they are, and looked at when they are used.
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
        """See that the buffers are what our own calls have left, or at least a memory.

        Raises:
            StateError: something else has written to them, and they are no memory any longer.
            DeviceError: some of them are on meta.
            ConcurrencyError: another thread is updating them.
        """
        if torch.compiler.is_compiling() or modes.traced() or modes.transformed():
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
        self._uncast()
        wrong = fault(self._own, self._slots())
        if wrong is not None:
            raise StateError(
                f"something other than this memory has written to its buffers, and {wrong}. Average weights without buffers "
                "(AveragedModel(use_buffers=False)); fill what was never filled with load_state_dict or reset_parameters()."
            )
        self._met = False
        self._note()

    def _uncast(self) -> None:
        """Have f32 keys and i32 numbers again. Of our own buffers the content is still there as it was."""
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
        """Make the buffers, empty."""
        for name, array in self._parts(self.backend.init(self.config))._asdict().items():
            self.register_buffer(name, array if device is None else array.to(device))
        self._note()

    def reset_parameters(self) -> None:
        """Empty the memory, and begin a learned projection anew. What makes a module on meta and then fills it calls this."""
        if self.projection is not None:
            self.projection.reset_parameters()
        self._in_turn(True, self._empty)

    @torch.no_grad()
    def _empty(self) -> None:
        set_all(self._own, (...,) * len(NAMES), (0.0, NO_SLOT, 0, 0, 0))
        self._changed()

    def _changed(self) -> None:
        """All of the content is another."""
        self._keep_normal()
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
        """Have normal tensors whatever made them: those made in `torch.inference_mode` could not be written to outside it."""
        with torch.inference_mode(False):
            for name, buffer in self._buffers.items():
                if buffer is not None and buffer.is_inference():
                    self._buffers[name] = buffer.clone()

    # Copied.

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: copies, all of one time."""
        parts: dict[str, Any] = self._parts(self.backend.copy(self.state))._asdict()
        if get_spawning_popen() is not None:
            parts = {name: Sent(part) for name, part in parts.items()}
        return {**self._without_backend(), "_buffers": {**self._buffers, **parts}}

    def _without_backend(self) -> dict[str, Any]:
        """What a copy is made of. The backend is made anew: its classes are no part of a file."""
        return {name: value for name, value in {**self.__dict__, "_known": None}.items() if name != "backend"}

    def __deepcopy__(self: Self, memo: dict[int, Any]) -> Self:
        """A module of its own, all of one time."""
        copied = memo[id(self)] = type(self).__new__(type(self))
        content = self._in_turn(False, copy.deepcopy, self._without_backend(), memo)
        copied.__setstate__(content)
        return copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        """What `copy` and `pickle` make."""
        buffers = {name: part.tensor() if isinstance(part, Sent) else part for name, part in state["_buffers"].items()}
        super().__setstate__({**state, "_buffers": buffers})  # type: ignore[no-untyped-call]
        self.backend = self._backend()
        self._keep_normal()
        self._note(trusted=False)

    # Saved and loaded.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the memory to a file, as `raremem.save` does: whole, or not at all. Any backend reads it.

        Raises:
            StateError: there is a learned projection, for which such a file has no place.
            OSError: the file cannot be written; the older one is as it was.
        """
        if self.projection is not None:
            raise StateError(
                "the memory has a learned projection, and a memory's file has no place for it; expected query_dim=None. "
                "Save both with torch.save(memory.state_dict(), path)."
            )
        checkpoint.save(path, self.config, self.state, self.backend)

    @classmethod
    def load(
        cls: type[Self], path: str | os.PathLike[str], *, slots: int | None = None, device: Any = None, **options: Any
    ) -> Self:
        """A module of the memory in a file that `save` or `raremem.save` of any backend has written.

        Args:
            path: the file.
            slots: as for `raremem.load`: make it larger or smaller.
            device: where the module is to be; by default PyTorch's default device.
            **options: of the module, such as `strict`, `index`, or `query_dim` for a new projection.

        Raises: as `raremem.load` does.
        """
        config, state = checkpoint.load(path, "numpy", slots)
        made = cls(config, device=device, **options)
        made.fill(get_backend("numpy").to_numpy(state))
        return made

    def fill(self, portable: PortableState) -> None:
        """Take the content of a memory of the same config, as `to_numpy` of any backend gives it.

        Raises:
            StateError: it does not fit the config.
        """
        self._in_turn(True, self._take, self._parts(self.backend.from_numpy(self.config, portable)), False)

    @torch.no_grad()
    def _take(self, content: MemoryState, assign: bool) -> None:
        """Have this content: as the buffers themselves, or in them, in one call into C, so that no signal leaves half of it."""
        if assign:
            known = lineage_of(content.keys) or lineage_of(self.keys)
            self._buffers.update(content._asdict())
            note(self.keys, known)
        else:
            set_all(self._own, (...,) * len(NAMES), content)
        self._changed()

    def get_extra_state(self) -> Tensor:
        """The config, and what else a state_dict must fit, as JSON in bytes [n] u8: a tensor, as all that PyTorch passes on."""
        return torch.frombuffer(bytearray(json.dumps(self._extra()).encode()), dtype=torch.uint8).to("cpu")

    def set_extra_state(self, state: Any) -> None:
        """Check that a state_dict of that config is one for this memory.

        Raises:
            LoadError: it is not.
        """
        try:
            extra = json.loads(bytes(state.cpu().to(torch.uint8).tolist()))
            saved = MemoryConfig(**extra["config"])
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, RarememError) as error:
            raise LoadError(f"the state_dict's {EXTRA!r} is no config of this version ({error}); update raremem.") from error
        self._check_extra(extra)
        own = dataclasses.asdict(self.config)
        other = {name: value for name, value in dataclasses.asdict(saved).items() if value != own[name]}
        if other:
            there = ", ".join(f"{name}={value!r}" for name, value in other.items())
            here = ", ".join(f"{name}={own[name]!r}" for name in other)
            raise LoadError(
                f"the state_dict is of a memory with {there}; expected {here}. Make the memory with the saved config; "
                "to change it on purpose, set memory.config = dataclasses.replace(memory.config, ...) once it is loaded."
            )

    def _extra(self) -> dict[str, Any]:
        return {"config": dataclasses.asdict(self.config)}

    def _check_extra(self, extra: Mapping[str, Any]) -> None:
        """Check what a state_dict says beside the config."""
        if extra.get("ranks", 1) != 1:
            raise LoadError(
                f"the state_dict is of rank {extra['rank']} of a memory over {extra['ranks']} ranks; expected a whole one. "
                "Save it with memory.save(path) on all ranks, and make this one with Memory.load(path)."
            )

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Copies, all of one time: what an update writes later, in this thread or another, is not in them."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not keep_vars:
            parts = self._parts(self.backend.copy(self.state))
            destination.update((prefix + name, part) for name, part in parts._asdict().items())

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load a memory whole, after every check, or raise, whatever `strict` is. Without one in it nothing is taken."""
        given = {name[len(prefix) :]: entry for name, entry in state_dict.items() if name.startswith(prefix)}
        if given:
            assign = bool(local_metadata.get("assign_to_params_buffers", False))
            try:
                content = content_of(self, given, assign)
            except RarememError as error:
                raise LoadError(f"{prefix[:-1] or 'the memory'} was not loaded: {error}") from error
            if content is not None:
                self._in_turn(True, self._take, content, assign)
        missing: list[str] = []
        rest = {name: entry for name, entry in state_dict.items() if name[len(prefix) :] not in (*NAMES, EXTRA)}
        super()._load_from_state_dict(
            rest, prefix, local_metadata, strict, missing, unexpected_keys, error_msgs
        )  # a subclass's
        missing_keys.extend(name for name in missing if not given or name[len(prefix) :] not in (*NAMES, EXTRA))

    # Used beside other processes and copies.

    def _check_is_written_alone(self, call: str, given: str) -> None:
        """Check that a call that changes this copy alone is what can be meant.

        Raises:
            StateError: it would be lost.
        """
        if getattr(self, "_is_replica", False):
            raise StateError(
                f"a replica that DataParallel made was changed ({call}), and is thrown away; expected the memory itself. "
                f"Return the lookup from forward, and call {call} on the module outside DataParallel."
            )
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return
        if self._is_broadcast:
            raise StateError(
                f"DistributedDataParallel replaces this memory by that of rank 0 at every forward, and Memory.{call} changes "
                f"that of one rank alone; expected raremem.adapters.distributed.{call}(memory, {given}), for all."
            )
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"Memory.{call} writes to the memory of this rank alone, of {dist.get_world_size()}: they will differ. "
                f"Call raremem.adapters.distributed.{call}(memory, {given}), which writes what all ranks give to each.",
                stacklevel=3,
            )
