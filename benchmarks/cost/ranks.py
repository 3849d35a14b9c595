"""A memory spread over the ranks of `torch.distributed`: what a step costs, and what it sends, against the number of ranks.

The ranks are processes of this machine over gloo, each with its share of the cores. Bytes are those that a rank hands to the
collectives of a step; they depend on the batch, the neighbors and the key size, and not on the slots.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from raremem.command.signals import CLEANING
from raremem.config import MemoryConfig

SLOTS = 262_144
KEY_DIM = 64
NEIGHBORS = 16
BATCH = 64
"""Rows of all ranks together."""
WARM_UP = 2


@dataclass(frozen=True)
class Cost:
    """Of a step: milliseconds (median), bytes that a rank sends, calls of collectives; and bytes of keys that a rank holds."""

    ranks: int
    milliseconds: float
    sent: float
    calls: float
    keys: int


def measure(ranks: int, seconds: float) -> Cost:
    """Spawn one process for each rank, and take steps for so many seconds."""
    from torch.multiprocessing.spawn import spawn

    temporary = tempfile.TemporaryDirectory()
    CLEANING.append(temporary.cleanup)
    with temporary as folder:
        spawn(_steps, (ranks, folder, seconds), nprocs=ranks)
        return Cost(**json.loads((Path(folder) / "cost").read_text()))


def _steps(rank: int, ranks: int, folder: str, seconds: float) -> None:
    import torch
    import torch.distributed as dist

    from raremem.adapters.sharded import ShardedMemory

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    memory = ShardedMemory(MemoryConfig(SLOTS, KEY_DIM, NEIGHBORS))
    generator = torch.Generator().manual_seed(rank)
    _fill(memory, generator)
    taken: list[float] = []
    sent: list[tuple[int, int]] = []
    end = time.perf_counter() + seconds
    go_on = torch.ones(1)
    while go_on.item():
        query = torch.randn(BATCH // ranks, KEY_DIM, generator=generator, requires_grad=True)
        target = torch.randint(0, 1000, (BATCH // ranks,), generator=generator)
        started = time.perf_counter()
        with _counted() as counted:
            _step(memory, query, target)
        taken.append(time.perf_counter() - started)
        sent.append((sum(counted), len(counted)))
        go_on = torch.tensor([float(time.perf_counter() < end or len(taken) <= WARM_UP)])
        dist.broadcast(go_on, 0)
    if rank == 0:
        bytes_sent, calls = np.mean(sent[WARM_UP:], axis=0)
        cost = Cost(ranks, 1000 * statistics.median(taken[WARM_UP:]), float(bytes_sent), float(calls), memory.keys.nbytes)
        (Path(folder) / "cost").write_text(json.dumps(asdict(cost)))
    dist.destroy_process_group()


def _step(memory: Any, query: Any, target: Any) -> None:
    out = memory(query, target)
    out.loss.sum().backward()
    memory.update(out)


def _fill(memory: Any, generator: Any) -> None:
    """Fill every slot of this rank with a unit key and a value."""
    import torch

    memory.keys.copy_(torch.nn.functional.normalize(torch.randn(memory.keys.shape, generator=generator), dim=1))
    memory.values.copy_(torch.arange(SLOTS) % 1000)


@contextmanager
def _counted() -> Iterator[list[int]]:
    """The bytes that each collective of this rank is handed."""
    import torch.distributed as dist

    sizes: list[int] = []

    def counting(call: Any, place: int) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            sizes.append(arguments[place].nbytes)
            return call(*arguments, **options)

        return counted

    with (
        mock.patch.object(dist, "all_gather", counting(dist.all_gather, 1)),
        mock.patch.object(dist, "all_reduce", counting(dist.all_reduce, 0)),
    ):
        yield sizes
