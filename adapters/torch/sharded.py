"""A memory whose keys are sharded over the ranks of `torch.distributed`, for more slots than one device can hold.

Each rank holds the keys of a range of slots, and the values, ages and hits of all slots (12 bytes a slot beside 4 * key_dim).
Each rank searches its own keys. The best of all ranks are put together, and their keys are sent to every rank. Answers,
gradients and writes equal those of a memory that is not sharded.

    memory = ShardedMemory(config)
    out = memory(network(images), labels)      # each rank its own rows
    out.loss.mean().backward()
    memory.update(out)

Under DistributedDataParallel, pass `broadcast_buffers=False`: the keys of each rank are its own. Every rank must make the same
calls. If one does not, the others raise when their process group times out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raremem.adapters.torch import distributed
from raremem.adapters.torch.buffers import LoadError
from raremem.adapters.torch.distributed import (
    WITH_TARGETS,
    WITHOUT_TARGETS,
    Group,
    SentRows,
    gather_agreed,
    halves,
    of_all_ranks,
    of_halves,
)
from raremem.adapters.torch.functional import TorchBackend
from raremem.adapters.torch.memory import Memory
from raremem.adapters.torch.primitives import EagerPrimitives, NumpyBesideTorch, TorchPrimitives
from raremem.adapters.torch.search import TorchSearch
from raremem.config import MemoryConfig
from raremem.errors import StateError
from raremem.lineage import pass_on
from raremem.primitives import Primitives, set_all
from raremem.score_order import NOTHING
from raremem.search.contract import Found
from raremem.search.shards import Shards
from raremem.state import NO_SLOT, ForgetReport, Lookup, MemoryState, PortableState, UpdateReport


class ShardedKeys:
    """Keys [slots, key_dim] of which this rank holds those from slot `start`. Indexing is a call on all ranks."""

    def __init__(self, own: Tensor, slots: int, group: Group) -> None:
        self.own, self.group = own, group
        self.start = shard(slots, group).start
        self.shape, self.device, self.dtype = (slots, own.shape[1]), own.device, own.dtype

    def __getitem__(self, slots: Tensor | slice) -> Tensor:
        """The keys [..., key_dim] of these slots: the sum over ranks, of which one has the key and the others have zeros."""
        if isinstance(slots, slice):
            slots = torch.arange(*slots.indices(self.shape[0]), device=self.device)
        there, places = self.own_places(slots)
        rows = self.own.new_zeros(*slots.shape, self.shape[1])
        rows[there] = self.own.detach()[places[there]]
        dist.all_reduce(rows.view(torch.int32), group=self.group)  # as whole numbers: -0.0 keeps its sign
        return rows

    def detach(self) -> ShardedKeys:
        return self

    def numpy(self, *, force: bool = False) -> _KeysInNumpy:
        return _KeysInNumpy(self)

    def own_places(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Which of these slots this rank holds, and the place of each in its keys, also of those that it does not hold."""
        places = slots.long() - self.start
        return (places >= 0) & (places < len(self.own)), places


class _KeysInNumpy:
    """`ShardedKeys`, indexed by NumPy arrays."""

    def __init__(self, keys: ShardedKeys) -> None:
        self.keys, self.shape, self.dtype = keys, keys.shape, np.dtype(np.float32)

    def __getitem__(self, slots: NDArray[np.int32] | slice) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = self.keys[slots if isinstance(slots, slice) else torch.as_tensor(slots)].numpy()
        return rows


class _ShardedInNumpy(NumpyBesideTorch):
    """NumPy's table, in which keys may be a `_KeysInNumpy`."""

    def write(self, state: MemoryState, slots: NDArray[np.int32], content: MemoryState) -> MemoryState:
        keys: ShardedKeys = state.keys.keys
        there, places = (array.numpy() for array in keys.own_places(torch.as_tensor(slots)))
        arrays = (keys.own.detach().numpy(), *state[1:])
        set_all(arrays, (places[there], slots, slots, slots, ...), (content.keys[there], *content[1:]))
        return state


class ShardedPrimitives(TorchPrimitives):
    """PyTorch's table, where an array may be a `ShardedKeys`."""

    def to_numpy(self, array: Any) -> NDArray[Any]:
        return super().to_numpy(array[:] if isinstance(array, ShardedKeys) else array)

    def copy(self, array: Any) -> Any:
        if isinstance(array, ShardedKeys):
            return ShardedKeys(super().copy(array.own), array.shape[0], array.group)
        return super().copy(array)

    def constant(self, array: Any) -> Any:
        return array if isinstance(array, ShardedKeys) else super().constant(array)

    def score_rows(self, queries: Tensor, array: Any, rows: Tensor) -> Tensor:
        if isinstance(array, ShardedKeys):
            return self.score(queries, array[rows])
        return super().score_rows(queries, array, rows)

    def write(self, state: MemoryState, slots: Tensor, content: MemoryState) -> MemoryState:
        keys: ShardedKeys = state.keys
        there, places = keys.own_places(slots)
        rows, own = slots.long(), places[there]
        set_all((keys.own, *state[1:]), (own, rows, rows, rows, ()), (content.keys[there], *content[1:]))
        return state

    def identity(self, array: Any) -> Tensor | None:
        return super().identity(array.own if isinstance(array, ShardedKeys) else array)

    def peek(self, array: Any, wait: bool = False) -> NDArray[Any] | None:
        return None if isinstance(array, ShardedKeys) else super().peek(array, wait)


class EagerShardedPrimitives(ShardedPrimitives, EagerPrimitives):
    """The same for tensors whose content is seen."""


class ShardedSearch(Shards):
    """The search of all ranks: each searches its part."""

    def find(self, p: Primitives, state: MemoryState, queries: Tensor, targets: Tensor | None, k: int) -> Found:
        """See `Searcher.find`."""
        keys: ShardedKeys = state.keys
        return self.find_in_part(p, state, _own_part(state), keys.start, queries, targets, k)

    def gather(self, state: MemoryState, scores: Tensor, slots: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Shards.gather`. A rank with fewer than k slots pads them: all_gather takes equal shapes."""
        keys: ShardedKeys = state.keys
        missing = (0, k - slots.shape[1])
        sent = torch.stack([F.pad(scores, missing, value=NOTHING).view(torch.int32), F.pad(slots, missing, value=NO_SLOT)])
        bits, slots = torch.cat(of_all_ranks(sent, keys.group), dim=2)
        return bits.view(torch.float32), slots

    def before_update(self, p: Primitives, state: MemoryState) -> Any:
        """See `Searcher.before_update`."""
        return self.part_search.before_update(p, _own_part(state))

    def after_update(self, p: Primitives, state: MemoryState, slots: Tensor, taken: Any) -> None:
        """See `Searcher.after_update`."""
        keys: ShardedKeys = state.keys
        there, places = keys.own_places(slots)
        self.part_search.after_update(p, _own_part(state), places[there].int(), taken)


def _own_part(state: MemoryState) -> MemoryState:
    """The state of this rank's slots."""
    keys: ShardedKeys = state.keys
    own = slice(keys.start, keys.start + len(keys.own))
    return MemoryState(keys.own, state.values[own], state.last_used[own], state.hits[own], state.step)


class ShardedBackend(TorchBackend):
    """The functional interface over ranks, which all pass the same rows. A state has this rank's keys; `to_numpy` gathers all.

    Args:
        group: the ranks; default: those of the default group.
    """

    eager: Primitives | None = EagerShardedPrimitives()
    host = _ShardedInNumpy()

    def __init__(self, group: Group = None) -> None:
        self.group = group
        super().__init__(ShardedPrimitives(), ShardedSearch(TorchSearch()))

    def _placed(self, state: MemoryState) -> MemoryState:
        slots = len(state.keys)
        whole = super()._placed(state._replace(keys=state.keys[shard(slots, self.group)].copy()))
        return whole._replace(keys=ShardedKeys(whole.keys, slots, self.group))

    def _keys_here(self, state: MemoryState) -> Tensor:
        keys: ShardedKeys = state.keys
        return keys.own


def shard(slots: int, group: Group) -> slice:
    """The slots of this rank. The numbers of two ranks differ by one at most."""
    ranks, rank = dist.get_world_size(group), dist.get_rank(group)
    return slice(slots * rank // ranks, slots * (rank + 1) // ranks)


class ShardedMemory(Memory):
    """The memory as a module, sharded: each rank queries and writes its own rows. See `raremem.adapters.torch.Memory`.

    Call the module itself, `update`, `forget`, `clear` and `save` on every rank.

    Args:
        config: that of the whole memory.
        group: the ranks; default: those of the default group.
        query_dim, strict, device, **fields: as for `Memory`.
    """

    _is_part = True

    def __init__(
        self,
        config: MemoryConfig | None = None,
        group: Group = None,
        query_dim: int | None = None,
        strict: bool = False,
        device: Any = None,
        **fields: Any,
    ) -> None:
        self.group = group
        super().__init__(config, query_dim, strict, device=device, **fields)

    def _backend(self) -> ShardedBackend:
        return ShardedBackend(self.group)

    @property
    def state(self) -> MemoryState:
        """The buffers as a state of `backend`. `raremem.save` takes both; it is a call on all ranks."""
        keys: Any = ShardedKeys(self.keys, self.config.slots, self.group)
        return self._own._replace(keys=keys)

    def _slots(self) -> slice:
        return shard(self.config.slots, self.group)

    def _parts(self, state: Any) -> MemoryState:
        keys: ShardedKeys = state.keys
        return MemoryState(keys.own, *state[1:])

    def _places(self, slots: NDArray[np.int32]) -> NDArray[np.int32]:
        here = self._slots()
        return slots[(slots >= here.start) & (slots < here.stop)] - here.start

    def forward(self, query: Tensor, target: Tensor | None = None, mask: Tensor | None = None) -> Lookup:
        """Look up this rank's query [B, key_dim or query_dim]; B may be 0. With target [B] on all ranks there is a `loss` [B].

        Raises:
            StateError: on all ranks: another one has raised, only some pass targets, or their memories differ.
            RarememError: on this rank, whatever `Memory` raises.
        """
        asked: list[Tensor] = []
        parts = gather_agreed(self, self.group, "forward", lambda: self._rows_to_ask(asked, query, target, mask))
        first = sum(len(part.rows) for part in parts[: dist.get_rank(self.group)])
        own = slice(first, first + len(asked[0]))
        rows = torch.cat([part.rows for part in parts])
        queries, (low, high, there) = rows[:, :-3].contiguous().view(torch.float32), rows[:, -3:].T
        queries = torch.cat([queries[:first], asked[0], queries[own.stop :]])
        targets = of_halves(low, high)
        with_targets = target is not None or any(part.kind == WITH_TARGETS for part in parts)
        found = self.backend.query(self.config, self.state, queries, targets if with_targets else None, there.bool())
        answer = Lookup(*(None if field is None else field[own] for field in found))
        pass_on(found.slots, answer.slots)
        return answer

    def _rows_to_ask(self, asked: list[Tensor], query: Tensor, target: Tensor | None, mask: Tensor | None) -> SentRows:
        """Each row as [key_dim + 3] i32: query, target in two parts, and mask. Appends the f32 queries to `asked`."""
        self._look()
        if self._is_broadcast:
            raise StateError(
                "DistributedDataParallel replaces the keys of every rank by those of rank 0 at each forward; expected "
                "each rank's own. Pass it broadcast_buffers=False."
            )
        query = self._projected(query)
        _, queries, targets, there = self.backend._checked(self.config, self.state, query, target, mask, self.strict)
        asked.append(queries.float())
        numbers = torch.zeros(len(queries), 2, dtype=torch.int32, device=queries.device)
        if targets is not None:
            numbers = halves(targets, there)
        rows = torch.cat([asked[0].detach().contiguous().view(torch.int32), numbers, there.int()[:, None]], dim=1)
        return SentRows(rows, 0 if not len(rows) else WITHOUT_TARGETS if targets is None else WITH_TARGETS)

    def update(self, lookup: Lookup, target: Tensor | None = None, mask: Tensor | None = None) -> UpdateReport:
        """Write the rows of the lookups of all ranks; returns the report of the whole batch, in rank order.

        See `raremem.adapters.distributed.update`.
        """
        return distributed.update(self, lookup, mask, self.group, target)

    def store(self, query: Tensor, target: Tensor, *, batch_size: int | None = None) -> UpdateReport:
        """Not here: ranks may have unlike many batches.

        Raises:
            StateError: always.
        """
        raise StateError(
            "store was called on a sharded memory; expected memory.update(memory(query, target)) on every rank, as many times."
        )

    def forget(
        self,
        *,
        slots: Tensor | Sequence[int] | int | None = None,
        values: Tensor | Sequence[int] | int | None = None,
        older_than: int | None = None,
    ) -> ForgetReport:
        """Forget what any rank names. See `raremem.adapters.distributed.forget`."""
        return distributed.forget(self, slots=slots, values=values, older_than=older_than, group=self.group)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole memory to a file, from the first rank. A `Memory` of the same content writes the same file."""
        gather_agreed(self, self.group, "save", lambda: SentRows(self.values.new_zeros(0, 0)))
        portable = self.backend.to_numpy(self.state)
        gather_agreed(self, self.group, "saved", lambda: self._written(path, portable))

    def _written(self, path: str | os.PathLike[str], portable: PortableState) -> SentRows:
        if dist.get_rank(self.group) == 0:
            whole = Memory(self.config, device="cpu")
            whole.fill(portable)
            whole.save(path)
        return SentRows(self.values.new_zeros(0, 0))

    def _extra(self) -> dict[str, Any]:
        return {**super()._extra(), "rank": dist.get_rank(self.group), "ranks": dist.get_world_size(self.group)}

    def _check_extra(self, extra: Mapping[str, Any]) -> None:
        ranks, rank = dist.get_world_size(self.group), dist.get_rank(self.group)
        if (extra.get("rank", 0), extra.get("ranks", 1)) != (rank, ranks):
            raise LoadError(
                f"the state_dict is of rank {extra.get('rank', 0)} of {extra.get('ranks', 1)}; expected that of rank {rank} of "
                f"{ranks}. Save with memory.save(path) on all ranks; ShardedMemory.load(path) makes memories over any number."
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> ShardedMemory:
        """A module of its own, in the same group."""
        memo[id(self.group)] = self.group
        return super().__deepcopy__(memo)
