"""Data-parallel training over `torch.distributed`: every rank holds the same memory, and writes the rows of all.

Each rank asks its own copy for its own rows, as without other ranks. `update` then gathers what was found, in rank order, and
every rank makes the same update: it equals that of one process with the whole batch. Batches may differ in size, and a rank
that has none calls it with None. Nothing else is sent: 4 * (key_dim + 5) bytes for each row of the whole batch.

    out = memory(network(images), labels)
    out.loss.mean().backward()
    distributed.update(memory, out)

A rank that never calls it keeps the others waiting until the timeout of their process group, which is then their error. Under
DistributedDataParallel, pass `broadcast_buffers=False`: the copies are equal as they are.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from raremem.adapters.torch import Memory
from raremem.errors import StateError
from raremem.state import Lookup, UpdateReport

Group = dist.ProcessGroup | None


def update(memory: Memory, lookup: Lookup | None, mask: Tensor | None = None, group: Group = None) -> UpdateReport:
    """Write the rows of all ranks to each rank's memory.

    Args:
        memory: this rank's copy.
        lookup: what `memory(query, target)` answered on this rank, on the memory as it is; None if it has no rows.
        mask: [B] bool, False for rows of this rank that are not to be written.
        group: the ranks; all of the default group, unless given.

    Returns:
        The report of the whole batch, in rank order.

    Raises:
        StateError: the lookup was made without targets. (Raised on this rank alone: the others wait for it.)
    """
    if lookup is None:
        nothing = memory.values.new_zeros(0)
        none = nothing[:, None]
        queries = memory.keys.new_zeros(0, memory.config.key_dim)
        lookup = Lookup(none, none, none, none, nothing, None, queries, nothing, nothing.bool(), nothing.bool())
    return memory.update(gather_lookup(lookup, mask, group))


@torch.no_grad()
def gather_lookup(lookup: Lookup, mask: Tensor | None = None, group: Group = None) -> Lookup:
    """What an update needs of the lookups of all ranks, in rank order. See `update`."""
    if lookup.targets is None:
        raise StateError("the lookup has no targets; call memory(query, target) on every rank.")
    there = lookup.accepted if mask is None else lookup.accepted & mask
    rejected = lookup.rejected if mask is None else lookup.rejected & mask
    columns = torch.stack([lookup.slots[:, 0], lookup.values[:, 0], lookup.targets, there.int(), rejected.int()], dim=1)
    rows = torch.cat(gather_rows(torch.cat([lookup.queries.view(torch.int32), columns], dim=1), group))
    queries = rows[:, :-5].contiguous().view(torch.float32)
    slots, values, targets, accepted, rejected = rows[:, -5:].T.contiguous()
    return Lookup(
        values=values[:, None],
        slots=slots[:, None],
        similarities=torch.zeros_like(queries[:, :1]),
        weights=torch.zeros_like(queries[:, :1]),
        found=slots >= 0,
        loss=None,
        queries=queries,
        targets=targets,
        rejected=rejected.bool(),
        accepted=accepted.bool(),
    )


def gather_rows(rows: Tensor, group: Group = None) -> list[Tensor]:
    """The rows of each rank: padded to the longest batch for the way, since all must send alike."""
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(dist.get_world_size(group))]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device), group=group)
    sizes = [int(count) for count in counts]
    padded = rows.new_zeros(max(sizes), rows.shape[1])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded, group=group)
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]
