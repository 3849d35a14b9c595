"""A memory module: how it is copied, pickled, saved, loaded and filled, and what is an error with several ranks."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import warnings
from collections.abc import Mapping
from multiprocessing.context import get_spawning_popen
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from raremem import checkpoint
from raremem.adapters.torch.buffers import (
    NAMES,
    LoadError,
    Sent,
)
from raremem.adapters.torch.loading import EXTRA, loaded_state
from raremem.adapters.torch.watched import WatchedModule
from raremem.config import MemoryConfig
from raremem.errors import ConfigError, RarememError, StateError
from raremem.lineage import lineage_of, note
from raremem.primitives import set_all
from raremem.registry import get_backend
from raremem.state import MemoryState, PortableState

Self = TypeVar("Self", bound="MemoryModule")


class MemoryModule(WatchedModule):
    """The base class of `Memory`: copying, pickling, saving and loading."""

    # Copied.

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: copies of all buffers, made at the same step."""
        parts: dict[str, Any] = self._parts(self.backend.copy(self.state))._asdict()
        if get_spawning_popen() is not None:
            parts = {name: Sent(part) for name, part in parts.items()}
        return {**self._without_backend(), "_buffers": {**self._buffers, **parts}}

    def _without_backend(self) -> dict[str, Any]:
        """The attributes that a copy gets. Its backend is made anew, so that no class of a backend is pickled. An index is of
        one memory: the copy has one that begins anew."""
        content = {**self.__dict__, "_known": None, "index": copy.copy(self.index)}
        return {name: value for name, value in content.items() if name != "backend"}

    def __deepcopy__(self: Self, memo: dict[int, Any]) -> Self:
        """An independent module. All buffers are copied at the same step."""
        copied = memo[id(self)] = type(self).__new__(type(self))
        content = self._in_turn(False, copy.deepcopy, self._without_backend(), memo)
        copied.__setstate__(content)
        return copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a module that `copy` or `pickle` makes."""
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

        Raises: as `raremem.load` does, and ConfigError if an option is a field of the config, which the file has.
        """
        fields = [name for name in options if name in MemoryConfig.__dataclass_fields__]
        if fields:
            raise ConfigError(
                f"{', '.join(fields)}: the file has the config; expected slots=, or options of the module. Load it as it is, "
                "then set memory.config = dataclasses.replace(memory.config, ...)."
            )
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
        """Replace the buffers by this content, or copy it into them, in one call into C: no signal leaves half of it."""
        if assign:
            known = lineage_of(content.keys) or lineage_of(self.keys)
            self._buffers.update(content._asdict())
            note(self.keys, known)
        else:
            set_all(self._own, (...,) * len(NAMES), content)
        self._changed()

    def get_extra_state(self) -> Tensor:
        """The config, and what else a state_dict must fit, as JSON in a tensor of bytes [n] u8."""
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
        """Check the entries of a state_dict's extra state beside the config."""
        if extra.get("ranks", 1) != 1:
            raise LoadError(
                f"the state_dict is of rank {extra['rank']} of a memory over {extra['ranks']} ranks; expected a whole one. "
                "Save it with memory.save(path) on all ranks, and make this one with Memory.load(path)."
            )

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Put copies into the state_dict, made at the same step: later updates do not change them."""
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
        """Load the whole memory after every check, or raise, whatever `strict` is. Without a memory in it nothing changes."""
        given = {name[len(prefix) :]: entry for name, entry in state_dict.items() if name.startswith(prefix)}
        if given:
            assign = bool(local_metadata.get("assign_to_params_buffers", False))
            try:
                content = loaded_state(self, given, assign)
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
