"""A memory whose keys are spread over the ranks of `torch.distributed`: more slots than one device can hold.

Each rank holds the keys of a range of slots, and the values, ages and hits of all (12 bytes a slot beside 4 * key_dim). A query
is searched by every rank among its own keys; the best of all ranks are put together, and the keys of those few are sent to all,
so that every rank goes on as a rank alone would: answers, gradients and writes equal those of a memory that is not sharded.

    memory = ShardedMemory(config)
    out = memory(network(images), labels)      # each rank its own rows
    out.loss.mean().backward()
    memory.update(out)

Under DistributedDataParallel, pass `broadcast_buffers=False`: each rank's keys are its own.
Every rank must make the same calls. One that does not keeps the others waiting until the timeout of their process group, which
is then their error.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from raremem.adapters import torch_shadow
from raremem.adapters.distributed import Group, gather_lookup, gather_rows
from raremem.adapters.torch import TorchBackend, TorchPrimitives
from raremem.config import MemoryConfig
from raremem.primitives import Primitives, set_all
from raremem.scan import NOTHING
from raremem.search import nearest_of_shards
from raremem.state import NO_SLOT, Array, Lookup, MemoryState, PortableState, UpdateReport


class ShardedKeys:
    """A key table [slots, key_dim] of which this rank holds the rows from `start`. Asked for rows, every rank is given them."""

    def __init__(self, own: Tensor, slots: int, group: Group) -> None:
        self.own, self.group = own, group
        self.start = shard(slots, group).start
        self.shape, self.device, self.dtype = (slots, own.shape[1]), own.device, own.dtype

    def __getitem__(self, slots: Tensor | slice) -> Tensor:
        """The rows of these slots [..., key_dim]: the sum over ranks of those that each has, 0 elsewhere, which is exact."""
        if isinstance(slots, slice):
            slots = torch.arange(*slots.indices(self.shape[0]), device=self.device)
        there, places = self.own_places(slots)
        rows = self.own.new_zeros(*slots.shape, self.shape[1])
        rows[there] = self.own[places[there]]
        dist.all_reduce(rows, group=self.group)
        return rows

    def own_places(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Which of these slots are this rank's, and where in its keys, or would be."""
        places = slots.long() - self.start
        return (places >= 0) & (places < len(self.own)), places


class ShardedPrimitives(TorchPrimitives):
    """PyTorch's table, where an array may be a `ShardedKeys`."""

    def __init__(self, group: Group) -> None:
        self.group = group

    def to_numpy(self, array: Any) -> NDArray[Any]:
        return super().to_numpy(array[:] if isinstance(array, ShardedKeys) else array)

    def from_numpy(self, state: MemoryState) -> MemoryState:
        slots = len(state.keys)
        whole = super().from_numpy(state._replace(keys=state.keys[shard(slots, self.group)]))
        return whole._replace(keys=ShardedKeys(whole.keys, slots, self.group))

    def copy(self, array: Any) -> Any:
        if isinstance(array, ShardedKeys):
            return ShardedKeys(super().copy(array.own), array.shape[0], array.group)
        return super().copy(array)

    def eager(self, array: Any) -> bool:
        return not isinstance(array, ShardedKeys) and super().eager(array)

    def constant(self, array: Any) -> Any:
        return array if isinstance(array, ShardedKeys) else super().constant(array)

    def take_rows(self, array: Any, rows: Tensor, into: Tensor | None = None) -> Tensor:
        return array[rows] if isinstance(array, ShardedKeys) else super().take_rows(array, rows, into)

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


class ShardedBackend(TorchBackend):
    """The functional interface, for the same rows on every rank; states hold this rank's keys. `to_numpy` gathers them all.

    Args:
        group: the ranks; all of the default group, unless given.
    """

    mode = "sharded"

    def __init__(self, group: Group = None) -> None:
        super().__init__(ShardedPrimitives(group), search=_nearest_of_all_ranks)

    def _write(
        self, config: MemoryConfig, state: MemoryState, found: Lookup, targets: Tensor, mask: Tensor
    ) -> tuple[MemoryState, UpdateReport]:
        keys: ShardedKeys = state.keys
        shadow = torch_shadow.take(state._replace(keys=keys.own))
        after, report = super()._write(config, state, found, targets, mask)
        if shadow is not None:
            there, places = keys.own_places(report.slots[report.written])
            shadow.write(keys.own, after.step, places[there])
        return after, report


def shard(slots: int, group: Group) -> slice:
    """The slots of this rank: as many as of any other, or one more."""
    ranks, rank = dist.get_world_size(group), dist.get_rank(group)
    return slice(slots * rank // ranks, slots * (rank + 1) // ranks)


def _nearest_of_all_ranks(
    p: Primitives, state: MemoryState, queries: Array, targets: Array | None, k: int
) -> tuple[Array, Array | None]:
    """See `search.nearest`."""
    keys: ShardedKeys = state.keys
    own = slice(keys.start, keys.start + len(keys.own))
    part = MemoryState(keys.own, state.values[own], state.last_used[own], state.hits[own], state.step)
    return nearest_of_shards(p, part, keys.start, queries, targets, k, partial(_gather, keys.group))


def _gather(group: Group, scores: Tensor, slots: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """See `search.Gather`. All must send alike, so what is missing to k is filled up."""
    missing = (0, k - slots.shape[1])
    sent = torch.stack([F.pad(scores, missing, value=NOTHING).view(torch.int32), F.pad(slots, missing, value=NO_SLOT)])
    parts = [torch.empty_like(sent) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, sent, group=group)
    bits, slots = torch.cat(parts, dim=2)
    return bits.view(torch.float32), slots


class ShardedMemory(nn.Module):
    """The memory as a module, sharded: each rank asks and writes its own rows. See `raremem.adapters.torch.Memory`.

    Args:
        config: of the whole memory.
        group: the ranks; all of the default group, unless given.
    """

    keys: Tensor
    values: Tensor
    last_used: Tensor
    hits: Tensor
    step: Tensor

    def __init__(self, config: MemoryConfig, group: Group = None) -> None:
        super().__init__()
        self.config, self.group, self.backend = config, group, ShardedBackend(group)
        for name, array in self.backend.init(config)._asdict().items():
            self.register_buffer(name, array.own if isinstance(array, ShardedKeys) else array)

    @property
    def state(self) -> MemoryState:
        """The buffers, as the functional interface takes them; with `backend`, what `raremem.save` takes, on all ranks."""
        keys: Any = ShardedKeys(self.keys, self.config.slots, self.group)
        return MemoryState(keys, self.values, self.last_used, self.hits, self.step)

    def forward(self, query: Tensor, target: Tensor | None = None, mask: Tensor | None = None) -> Lookup:
        """Look up this rank's query [B, key_dim], B perhaps 0; with target [B] on all ranks, `loss` [B] too."""
        query = query.float()
        target_column = torch.zeros_like(query[:, 0]).int() if target is None else target.int()
        there = torch.ones_like(target_column) if mask is None else mask.int()
        columns = torch.stack([target_column, there], dim=1)
        parts = gather_rows(torch.cat([query.detach().view(torch.int32), columns], dim=1), self.group)
        first = sum(len(part) for part in parts[: dist.get_rank(self.group)])
        rows = torch.cat(parts)
        own = slice(first, first + len(query))
        queries = rows[:, :-2].contiguous().view(torch.float32)
        queries = torch.cat([queries[:first], query, queries[own.stop :]])
        targets = None if target is None else rows[:, -2].contiguous()
        found = self.backend.query(self.config, self.state, queries, targets, rows[:, -1].bool())
        return Lookup(*(None if field is None else field[own] for field in found))

    def update(self, lookup: Lookup, mask: Tensor | None = None) -> UpdateReport:
        """Write the rows of all ranks' lookups, not those where `mask` [B] is False. The report is of the whole batch."""
        found = gather_lookup(lookup, mask, self.group)
        return self.backend.update(self.config, self.state, found.queries, found.targets, lookup=found)[1]

    def fill(self, portable: PortableState) -> None:
        """Take the content of a memory of the same config, say from a checkpoint that another number of ranks has written.

        Raises:
            StateError: it does not fit the config.
        """
        for name, array in self.backend.from_numpy(self.config, portable)._asdict().items():
            getattr(self, name).copy_(array.own if isinstance(array, ShardedKeys) else array)
