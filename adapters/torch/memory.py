"""`Memory`, the memory as an `nn.Module`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raremem.adapters.torch.functional import TorchBackend, backend
from raremem.adapters.torch.module import MemoryModule
from raremem.config import MemoryConfig, config_of
from raremem.errors import StateError
from raremem.registry import get_index
from raremem.search.live import LiveIndex
from raremem.state import NO_SLOT, ForgetReport, Lookup, UpdateReport
from raremem.validation import check_lookup, check_rows


class Memory(MemoryModule):
    """The memory as a module: query it in `forward`, write to it with `update`.

    `forward` never changes the memory. All state is in buffers of fixed shape, so `state_dict`, `.to`, `deepcopy`,
    `torch.compile(fullgraph=True)`, autocast and gradient checkpointing work as for any module. Keys stay f32 whatever
    dtype the module is moved to. Beside the buffers, a large memory on the CPU keeps its keys in bf16
    (`raremem.adapters.torch.low_keys`).

    Args:
        config: size and behaviour.
        query_dim: if given, a learned linear map without bias takes queries from this many dimensions to `key_dim`
            (the projection of the original authors' code; the paper has none).
        strict: raise for rows that would be rejected. Waits for the device at every call.
        index: approximate search (rule 10), on the CPU: "annoy", "faiss", "hnswlib", or what `raremem.get_index` gave. It is
            no part of `state_dict`: it is built anew. By default search is exact.
        device: where to make it; by default PyTorch's default device.
        **fields: those of a `MemoryConfig`, instead of one: `Memory(slots=100, key_dim=8)`.

    A state_dict is loaded whole, after every check of its shapes, dtypes and content, or not at all (`LoadError`); it holds the
    config, and another config is an error. Whatever fills buffers without content (`to_empty`) leaves the memory empty.

    >>> memory = Memory(MemoryConfig(slots=100, key_dim=8))
    >>> query, target = torch.randn(4, 8, requires_grad=True), torch.tensor([0, 1, 2, 3])
    >>> out = memory(query, target)
    >>> out.loss.mean().backward()
    >>> report = memory.update(out)
    >>> bool((memory(query).values[:, 0] == target).all())
    True
    """

    def __init__(
        self,
        config: MemoryConfig | None = None,
        query_dim: int | None = None,
        strict: bool = False,
        index: str | LiveIndex | None = None,
        device: Any = None,
        **fields: Any,
    ) -> None:
        super().__init__()
        self.config = config = config_of(config, fields)
        self.strict = strict
        self.index = get_index(index) if isinstance(index, str) else index
        self.backend = self._backend()
        with torch.inference_mode(False):
            self.projection = None if query_dim is None else nn.Linear(query_dim, config.key_dim, bias=False, device=device)
        self._register(device)

    def _backend(self) -> TorchBackend:
        return backend if self.index is None else backend.indexed(self.index)

    def forward(self, query: Tensor, target: Tensor | None = None, mask: Tensor | None = None) -> Lookup:
        """Look up query [B, key_dim or query_dim]; with target [B], `loss` [B] too. See `Backend.query`.

        Raises: as `Backend.query` does, and StateError if something else has written to the buffers: they are no memory.
        """
        self._look()
        state, query = self.state, self._projected(query)
        if state.keys.dtype != torch.float32:  # in code that is traced; else `_look` has put them back
            state = state._replace(keys=state.keys.float())
        return self.backend.query(self.config, state, query, target, mask, strict=self.strict)

    def update(self, lookup: Lookup, target: Tensor | None = None, mask: Tensor | None = None) -> UpdateReport:
        """Write the rows of a `forward` on the memory as it is now, with its targets or those given here.

        With `mask` [B], only the rows where it is True.

        Call it after `backward` where gradient checkpointing is used: what is replayed must find the memory as it was. An
        update that is itself replayed is left out, with a warning, and so never made twice.

        With several ranks of `torch.distributed` it writes the rows of this one alone, and warns once:
        `raremem.adapters.distributed.update` writes those of all.

        Raises:
            DTypeError: the lookup is none.
            StateError: the lookup was made without targets, and none are given; or what was written would be lost: this is a
                replica of DataParallel, or DistributedDataParallel broadcasts the buffers.
        """
        if not torch.compiler.is_compiling():
            self._check_is_written_alone("update", "out")
        lookup, target = self._to_write(lookup, target)
        return self._write(lookup, target, mask)

    @torch.no_grad()
    def store(self, query: Tensor, target: Tensor, *, batch_size: int | None = None) -> UpdateReport:
        """Write a labelled set [N, key_dim or query_dim], [N]: in one update, or in the order given, so many rows at a time.

        See `Backend.store` for the difference.

        Raises: as `update` does. On several ranks call `update` of `raremem.adapters.distributed` for each batch.
        """
        self._check_is_written_alone("update", "out")
        self._look()
        report = self.backend.store(self.config, self.state, self._projected(query), target, batch_size=batch_size)[1]
        self._note()
        return report

    def forget(
        self,
        *,
        slots: Tensor | Sequence[int] | int | None = None,
        values: Tensor | Sequence[int] | int | None = None,
        older_than: int | None = None,
    ) -> ForgetReport:
        """Empty slots as if they had never been filled. See `Backend.forget`.

        With several ranks of `torch.distributed` it changes the memory of this one alone, as `update` does:
        `raremem.adapters.distributed.forget` changes those of all.
        """
        if not torch.compiler.is_compiling():
            self._check_is_written_alone("forget", "values=...")
        return self._forget(slots, values, older_than)

    def clear(self) -> ForgetReport:
        """Forget all. The step stays; `reset_parameters` makes a memory that has seen nothing."""
        return self.forget(slots=self.values >= NO_SLOT)

    def counts(self) -> dict[int, int]:
        """How many slots each value has, by value, ascending."""
        return self.backend.counts(self.state)

    def __len__(self) -> int:
        """How many slots are filled."""
        return sum(self.counts().values())

    def __bool__(self) -> bool:
        """True, as any module is, whether anything is in it or not."""
        return True

    def _projected(self, query: Tensor) -> Tensor:
        if self.projection is None:
            return query
        check_rows(query, self.projection.in_features, "query_dim")
        projected: Tensor = self.projection(query)
        return projected

    def _to_write(self, lookup: Lookup, target: Tensor | None) -> tuple[Lookup, Tensor]:
        """What an update is to write of a lookup: nothing, if it is replayed."""
        check_lookup(lookup)
        target = lookup.targets if target is None else target
        if target is None:
            raise StateError("the lookup has no targets; call memory(query, target), or memory.update(out, target).")
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            warnings.warn("Memory.update was replayed by gradient checkpointing and left out.", stacklevel=3)
            unwritten = lookup.accepted & False
            lookup = lookup._replace(accepted=unwritten, rejected=unwritten)
        return lookup, target

    def _write(self, lookup: Lookup, target: Tensor, mask: Tensor | None) -> UpdateReport:
        self._look()
        report = self.backend.update(self.config, self.state, lookup.queries, target, mask, lookup)[1]
        self._note(report)
        return report

    def _forget(
        self,
        slots: Tensor | Sequence[int] | int | None,
        values: Tensor | Sequence[int] | int | None,
        older_than: int | None,
    ) -> ForgetReport:
        self._look()
        forget = self.backend.forget
        report: ForgetReport = forget(self.config, self.state, slots=slots, values=values, older_than=older_than)[1]
        self._note()
        return report

    def extra_repr(self) -> str:
        """The config, for `repr`. (In words that a compiler takes: `torch.func.vmap` asks for them.)"""
        return ", ".join([f"{name}={value!r}" for name, value in vars(self.config).items()])
