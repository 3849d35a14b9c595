"""Data-parallel training over `torch.distributed`: every rank holds the whole memory and writes the rows of all ranks.

Each rank queries its own copy with its own rows, as without other ranks. `update` gathers the lookups in rank order, and every
rank makes the same update, which equals that of one process with the whole batch. Batches may differ in size; a rank without
rows passes None. A row of the whole batch costs 4 * (key_dim + 7) bytes to send.

    out = memory(network(images), labels)
    out.loss.mean().backward()
    distributed.update(memory, out)

Ranks agree before they send rows: each checks its input, and sends the result, the number of its rows and a digest of its
memory's config and step. Bad input on one rank, or memories that differ, are an error on all ranks, and nothing is written.

If a rank never calls `update`, the others raise when their process group times out. Under DistributedDataParallel, pass
`broadcast_buffers=False` (or `forward_sync_buffers=False`): the copies are equal without it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from raremem.adapters.torch import Memory
from raremem.errors import StateError
from raremem.lineage import is_current, pass_on
from raremem.rules.forget import named
from raremem.state import NO_SLOT, ForgetReport, Lookup, UpdateReport
from raremem.validation import check_to_write

Group = dist.ProcessGroup | None

LONGEST_TEXT = 4000
"""Bytes of an error message that a rank sends to the others, at most."""
SAMPLED = 4096
"""Keys that are compared at the first call, at most. All values, ages and hits are compared."""
LATE, WITH_TARGETS, WITHOUT_TARGETS = 1, 2, 3
"""Kinds of rows: to write, by a lookup made before the last update; to look up with targets; to look up without."""


class SentRows(NamedTuple):
    """The rows [B, n] i32 that a rank sends, and their kind, which the others know before the rows arrive."""

    rows: Tensor
    kind: int = 0


def update(
    memory: Memory, lookup: Lookup | None, mask: Tensor | None = None, group: Group = None, target: Tensor | None = None
) -> UpdateReport:
    """Write the rows of all ranks to each rank's memory.

    Args:
        memory: this rank's copy.
        lookup: what `memory(query, target)` returned on this rank; None if it has no rows. If the memory of any rank has
            changed since, the rows of all ranks are looked up again.
        mask: [B] bool; rows of this rank where it is False are not written.
        group: the ranks; default: those of the default group.
        target: [B] of an integer dtype, if the lookup was made without targets.

    Returns:
        The report of the whole batch, in rank order.

    Raises:
        ShapeError, DTypeError, TargetError, DeviceError: on this rank, as `Memory.update` does.
        StateError: on this rank, the lookup was made without targets or on another memory; on all ranks, another rank has
            raised an error, the memories differ in config, step or content, or the ranks make different calls.
    """
    parts = gather_agreed(memory, group, "update", lambda: rows_to_write(memory, lookup, target, mask))
    return memory._write(*_gathered_lookup(memory, parts), None)


def forget(
    memory: Memory,
    *,
    slots: Tensor | Sequence[int] | int | None = None,
    values: Tensor | Sequence[int] | int | None = None,
    older_than: int | None = None,
    group: Group = None,
) -> ForgetReport:
    """Forget on every rank what any rank names.

    Args:
        memory: this rank's copy, or its part (`ShardedMemory`).
        slots, values, older_than: as for `Backend.forget`. A rank that has nothing to name gives `slots=[]`.
        group: the ranks; all of the default group, unless given.

    Returns:
        The report of the whole memory.

    Raises:
        ForgetError, ShapeError, DTypeError, DeviceError: as `Memory.forget` does; on this rank.
        StateError: another rank has raised any of these, or the ranks' memories differ, or they make different calls; on all.
    """
    parts = gather_agreed(memory, group, "forget", lambda: _slots_to_forget(memory, slots, values, older_than))
    return memory._forget(torch.cat([part.rows[:, 0] for part in parts]), None, None)


def _slots_to_forget(memory: Memory, *given: Any) -> SentRows:
    """The slots [n, 1] that are named on this rank."""
    memory._look()
    found = named(memory.backend.primitives, memory.state, *memory.backend._named(memory.config, memory.state, *given))
    return SentRows(torch.where(found)[0].int()[:, None])


@torch.no_grad()
def rows_to_write(memory: Memory, lookup: Lookup | None, target: Tensor | None, mask: Tensor | None) -> SentRows:
    """Each row as [key_dim + 7] i32: its query, its nearest neighbor, its target in two parts, and whether it is written."""
    memory._look()
    if lookup is None:
        return SentRows(memory.values.new_zeros(0, memory.config.key_dim + 7))
    lookup, target = memory._to_write(lookup, target)
    config, state = memory.config, memory.state
    p, queries, targets, there = memory.backend._checked(config, state, lookup.queries, target, mask, False)
    check_to_write(targets, lookup, len(queries))
    current = not len(queries) or is_current(p, config, state, lookup)
    assert targets is not None, "checked"
    numbers = [
        lookup.slots[:, :1],
        lookup.values[:, :1],
        lookup.similarities[:, :1].float().contiguous().view(torch.int32),
        halves(targets, there),
        (lookup.accepted & there).int()[:, None],
        (lookup.rejected & there).int()[:, None],
    ]
    return SentRows(torch.cat([queries.float().contiguous().view(torch.int32), *numbers], dim=1), 0 if current else LATE)


def _gathered_lookup(memory: Memory, parts: list[SentRows]) -> tuple[Lookup, Tensor]:
    """The lookup of the rows of all ranks, in rank order, and their targets."""
    rows = torch.cat([part.rows for part in parts])
    late = any(part.kind == LATE for part in parts)
    queries, (slots, values, bits, low, high, accepted, rejected) = (
        rows[:, :-7].contiguous().view(torch.float32),
        rows[:, -7:].T,
    )
    targets = of_halves(low, high)
    lookup = Lookup(
        values=values[:, None].contiguous(),
        slots=slots[:, None].contiguous(),
        similarities=bits[:, None].contiguous().view(torch.float32),
        weights=torch.zeros_like(queries[:, :1]),
        found=slots != NO_SLOT,
        loss=None,
        queries=queries,
        targets=targets,
        rejected=rejected.bool(),
        accepted=accepted.bool(),
        step=None if late else torch.where(accepted.bool(), memory.step, 0),
    )
    pass_on(memory.keys, lookup.slots)
    return lookup, targets


def halves(targets: Tensor, there: Tensor) -> Tensor:
    """Targets [B] of any integer dtype as two columns [B, 2] i32, the dtype that rows are sent in; 0 for masked rows."""
    return torch.where(there, targets, 0).long()[:, None].view(torch.int32)


def of_halves(low: Tensor, high: Tensor) -> Tensor:
    """Targets [B] i64 from the two columns of `halves`."""
    return torch.stack([low, high], dim=1).view(torch.int64)[:, 0]


def gather_agreed(memory: Memory, group: Group, call: str, prepare: Callable[[], SentRows]) -> list[SentRows]:
    """The rows that `prepare` returns on each rank, after all ranks agree: on the call, and on the memory's config and step.

    Raises: what `prepare` raises, on this rank; StateError, on all ranks, if another has raised or the ranks do not agree.
    """
    error, mine = None, SentRows(memory.values.new_zeros(0, 0))
    try:
        mine = prepare()
    except Exception as raised:
        if not dist.is_initialized():
            raise
        error = raised
    account = json.dumps({"call": call, **_account(memory)})
    digest = int.from_bytes(hashlib.sha256(account.encode()).digest()[:8], "little", signed=True)
    header = [int(error is None), digest, len(mine.rows), mine.kind, int(memory._met)]
    headers = [there.tolist() for there in of_all_ranks(torch.tensor(header, device=memory.values.device), group)]
    if not all(sound for sound, *_ in headers):
        told = _tell(memory, group, "" if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        first = next(rank for rank, text in enumerate(told) if text)
        raise StateError(f"nothing was done on any rank, because rank {first} of {len(told)} raised {told[first]}")
    if any(other != headers[0][1] for _, other, *_ in headers):
        raise _disagreement(_tell(memory, group, account))
    if not all(met for *_, met in headers):
        _meet(memory, group)
    sizes, kinds = [size for _, _, size, _, _ in headers], [kind for _, _, _, kind, _ in headers]
    if {WITH_TARGETS, WITHOUT_TARGETS} <= set(kinds):
        raise StateError(
            f"rank {kinds.index(WITHOUT_TARGETS)} gives no targets and rank {kinds.index(WITH_TARGETS)} does; expected them on "
            "all ranks that have rows, or on none. Nothing was done on any rank."
        )
    return [SentRows(rows, kind) for rows, kind in zip(_gather_rows(mine.rows, sizes, group), kinds, strict=True)]


def _gather_rows(rows: Tensor, sizes: list[int], group: Group) -> list[Tensor]:
    """The rows of each rank. They are sent padded to the longest batch: all_gather takes equal shapes."""
    if not max(sizes):
        return [rows for _ in sizes]
    padded = rows.new_zeros(max(sizes), rows.shape[1])
    padded[: len(rows)] = rows
    return [part[:size] for part, size in zip(of_all_ranks(padded, group), sizes, strict=True)]


def of_all_ranks(tensor: Tensor, group: Group) -> list[Tensor]:
    """The tensor of each rank."""
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, tensor, group=group)
    return parts


def _tell(memory: Memory, group: Group, text: str) -> list[str]:
    """This rank's text as a line, and those of all other ranks."""
    line = " ".join(text.split()).encode()[:LONGEST_TEXT].ljust(LONGEST_TEXT, b"\0")
    sent = torch.frombuffer(bytearray(line), dtype=torch.uint8).to(memory.values.device)
    return [bytes(part.tolist()).rstrip(b"\0").decode(errors="replace") for part in of_all_ranks(sent, group)]


def _disagreement(accounts: list[str]) -> StateError:
    """The error that names where the ranks differ."""
    told = [json.loads(account) for account in accounts]
    other = next(rank for rank in range(len(told)) if told[rank] != told[0])
    names = [name for name in {**told[0], **told[other]} if told[0].get(name) != told[other].get(name)]
    differ = ", ".join(f"{name} {told[0].get(name)!r} and {told[other].get(name)!r}" for name in names)
    return StateError(
        f"ranks 0 and {other} differ: {differ}; expected the same calls on memories of the same config, content and step. "
        "Nothing was done on any rank. Make all alike, or load the same file on all."
    )


def _meet(memory: Memory, group: Group) -> None:
    """Check at the first call that memories of equal config and step hold the same content, or parts of one memory."""
    own, keys = _content(memory)
    contents = [part.tolist() for part in of_all_ranks(torch.tensor([own, keys], device=memory.values.device), group)]
    other = next((rank for rank, content in enumerate(contents) if content[0] != contents[0][0]), None)
    if other is not None:
        raise StateError(
            f"the memories of ranks 0 and {other} hold other content at the same step; expected the same. Nothing was done on "
            "any rank. Load the same file on all."
        )
    parts = [keys for _, keys in contents if keys]
    if len(set(parts)) < len(parts):
        raise StateError(
            "two ranks hold the same keys; expected each rank its own part of the memory. Give DistributedDataParallel "
            "broadcast_buffers=False, and load a whole memory with ShardedMemory.load on every rank."
        )
    memory._met = True


def _content(memory: Memory) -> tuple[int, int]:
    """A checksum of what all ranks have alike, and one of the keys that only this rank has; 0 if these are all alike."""
    values, last_used, hits = (array.cpu().numpy() for array in (memory.values, memory.last_used, memory.hits))
    filled = values != NO_SLOT
    alike = crc32(hits[filled].tobytes(), crc32(last_used[filled].tobytes(), crc32(values.tobytes())))
    count = len(memory.keys)
    rows = np.unique(np.linspace(0, count - 1, min(count, SAMPLED)).astype(np.int64))
    keys = memory.keys.detach()[torch.from_numpy(rows).to(memory.keys.device)].cpu().numpy()
    if not memory._is_part:
        return crc32(keys.tobytes(), alike), 0
    return alike, crc32(keys.tobytes()) if len(np.unique(keys[keys.any(1)], axis=0)) > 1 else 0


def _account(memory: Memory) -> dict[str, object]:
    """By name, what must be equal on all ranks."""
    return {"memory": type(memory).__name__, **dataclasses.asdict(memory.config), "step": int(memory.step)}
