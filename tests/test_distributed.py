"""Data-parallel ranks, as processes over gloo: they hold, to the bit, what one process with the whole batch holds."""

import datetime
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from raremem import MemoryConfig
from raremem.adapters import distributed
from raremem.adapters.torch import Memory
from raremem.errors import StateError

CONFIG = MemoryConfig(slots=16, key_dim=16, neighbors=4, age_noise=2)
LARGE = MemoryConfig(slots=20_011, key_dim=16, neighbors=4)
"""So large that PyTorch keeps its keys in bf16 too."""
STEPS = 12
TIMEOUT = datetime.timedelta(seconds=20)
spawn = partial(processes.start_processes, start_method="forkserver")


def batch(step, ranks):
    """Rows of few directions, so that many hit, and each rank's share of them: uneven, and sometimes none."""
    generator = np.random.default_rng(step)
    sizes = generator.integers(0, 5, ranks)
    sizes[step % ranks] = 0
    sizes[(step + 1) % ranks] += 3
    rows = generator.choice([-0.25, 0.25], (sizes.sum(), 16)) * np.where(np.arange(16) < 6, 1, 0) + 0.25 * (np.arange(16) >= 6)
    targets = generator.integers(0, 4, len(rows))
    mask = generator.random(len(rows)) < 0.8
    shares = np.split(np.arange(len(rows)), np.cumsum(sizes)[:-1])
    return torch.tensor(rows, dtype=torch.float32), torch.tensor(targets), torch.tensor(mask), shares


def train_on_a_rank(rank, ranks, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks, timeout=TIMEOUT)
    torch.set_num_threads(1)
    memory = Memory(CONFIG)
    reports = []
    for step in range(STEPS):
        rows, targets, mask, shares = batch(step, ranks)
        own = shares[rank]
        out = memory(rows[own], targets[own]) if len(own) else None
        reports.append(distributed.update(memory, out, mask[own] if len(own) else None))
    torch.save((memory.state_dict(), [tuple(report) for report in reports]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_equal_one_process_with_the_whole_batch(ranks, tmp_path):
    spawn(train_on_a_rank, (ranks, str(tmp_path)), nprocs=ranks)
    alone = Memory(CONFIG)
    reports = []
    for step in range(STEPS):
        rows, targets, mask, _ = batch(step, ranks)
        reports.append(alone.update(alone(rows, targets), mask=mask))
    assert any(report.hit.any() for report in reports)
    assert any(report.evicted > 0 for report in reports)
    for rank in range(ranks):
        state, found = torch.load(tmp_path / f"{rank}.pt")
        for name, array in alone.state_dict().items():
            assert torch.equal(state[name], array), (rank, name)
        for mine, theirs in zip(reports, found, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def die_on_a_rank(rank, ranks, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks, timeout=TIMEOUT)
    memory = Memory(CONFIG)
    rows, targets, _, _ = batch(0, 2)
    met = Path(folder, "met")
    if rank == 1:
        while not met.exists():  # or this rank may be gone before the other has met it
            time.sleep(0.01)
        return
    met.touch()
    with pytest.raises(RuntimeError):
        distributed.update(memory, memory(rows, targets))
    assert not memory.step
    os._exit(0)  # a group that is broken may abort as it is taken down


def test_a_rank_that_dies_is_an_error_on_the_others(tmp_path):
    spawn(die_on_a_rank, (2, str(tmp_path)), nprocs=2)


def test_a_lookup_without_targets_is_a_clear_error():
    memory = Memory(CONFIG)
    with pytest.raises(StateError, match="no targets"):
        distributed.update(memory, memory(torch.ones(1, 16)))


class Network(torch.nn.Module):
    """A layer and a memory behind it."""

    def __init__(self):
        super().__init__()
        self.layer, self.memory = torch.nn.Linear(16, 16, bias=False), Memory(LARGE)

    def forward(self, rows, targets):
        return self.memory(self.layer(rows), targets)


def search_under_ddp(rank, folder):
    """With buffers broadcast before every step, past PyTorch's count of writes, and writes of each rank's own between."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=TIMEOUT)
    torch.set_num_threads(1)
    torch.cpu._is_avx512_bf16_supported = lambda: True
    torch.manual_seed(0)
    network = Network()
    memory = network.memory
    memory.keys.copy_(torch.nn.functional.normalize(torch.randn(memory.keys.shape)))
    memory.values.copy_(torch.arange(LARGE.slots) % 99)
    parallel = torch.nn.parallel.DistributedDataParallel(network)
    torch.manual_seed(1 + rank)
    wrong = []
    for _ in range(4):
        rows, targets = torch.randn(64, 16), torch.randint(0, 99, (64,))
        for update in (False, True):
            out = parallel(rows, targets)
            best = (out.queries @ memory.keys.T).max(1).values
            wrong.append(int((out.similarities[:, 0] < best - 1e-6).sum()))
            out.loss.mean().backward()
            if update:
                memory.backend.update(LARGE, memory.state, out.queries, out.targets, lookup=out)  # the module refuses that
    torch.save(wrong, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_search_is_exact_whatever_ddp_writes(tmp_path):
    spawn(search_under_ddp, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == [0] * 8
