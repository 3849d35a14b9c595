"""What a user keeps for each slot (docs/fields.md) goes where the slot goes: modules, ranks, shards and files.

The law `what_is_kept_beside_slots_follows` holds it on every backend, and on a mesh of JAX. That it can fail is shown here.
"""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes

import raremem
from raremem import MemoryConfig
from raremem.adapters import distributed
from raremem.adapters.sharded import ShardedMemory
from raremem.adapters.torch import Memory
from raremem.reference.laws import LAWS, payloads, run
from raremem.reference.laws.payloads import Payload, rows_of, value_of

CONFIG = MemoryConfig(slots=17, key_dim=8, neighbors=3, age_noise=2, write="keep")
LAW = LAWS["what_is_kept_beside_slots_follows"]


@pytest.mark.parametrize("line", ["after_update", "after_forgetting", "after_resizing"])
def test_each_line_of_the_pattern_is_needed(line, monkeypatch):
    monkeypatch.setattr(payloads.Payload, line, lambda self, *given: None)
    with pytest.raises(AssertionError, match=LAW.name):
        run(LAW, raremem.get_backend("numpy"), 30, shrink=False)


def test_a_report_of_other_slots_is_noticed():
    backend = raremem.get_backend("numpy")

    def shifted(*given):
        state, report = type(backend).update(backend, *given)
        return state, report._replace(slots=np.where(report.slots > 0, report.slots - 1, report.slots))

    wrong = type(backend)()
    wrong.update = shifted
    with pytest.raises(AssertionError, match=LAW.name):
        run(LAW, wrong, 30, shrink=False)


class Life:
    """A module and a payload, on one process or on each of some ranks. Every rank draws the rows of all, and takes its own."""

    def __init__(self, kind, config, rank=0, ranks=1):
        self.kind, self.rank, self.ranks = kind, rank, ranks
        self.memory = kind(config)
        self.payload = Payload(config.slots, rows_of(400, config, 3))
        self.draw, self.next = np.random.default_rng(4), 0

    def check(self):
        self.payload.check(self.memory.backend.to_numpy(self.memory.state))

    def learn(self, times):
        for _ in range(times):
            sizes = self.draw.integers(0, 5, self.ranks)
            of_all = np.split(np.arange(self.next, self.next + sizes.sum()), np.cumsum(sizes)[:-1])
            self.next += int(sizes.sum())
            numbers = of_all[self.rank]
            out = self.memory(torch.tensor(self.payload.rows[numbers]), torch.tensor(value_of(numbers)))
            if self.ranks == 1:
                report, gathered = self.memory.update(out), [numbers]
            else:
                report, gathered = distributed.update(self.memory, out), [None] * self.ranks
                dist.all_gather_object(gathered, numbers)
            self.payload.after_update(report, np.concatenate(gathered))
            self.check()

    def forget(self, **named):
        forget = self.memory.forget if self.ranks == 1 else lambda **named: distributed.forget(self.memory, **named)
        self.payload.after_forgetting(forget(**named))
        self.check()

    def resize(self, slots):
        backend = self.memory.backend
        config, state, kept = backend.resize(self.memory.config, self.memory.state, slots)
        self.memory = self.kind(config)
        self.memory.fill(backend.to_numpy(state))
        self.payload.after_resizing(kept)
        self.check()

    def save_and_load(self, folder):
        path = f"{folder}/{self.kind.__name__}-{self.ranks}"
        mine = path if self.kind is ShardedMemory or self.ranks == 1 else f"{path}-{self.rank}"
        self.memory.save(mine)
        np.save(f"{mine}-{self.rank}.npy", self.payload.numbers)
        if self.ranks > 1:
            dist.barrier()
        self.memory = self.kind.load(mine)
        self.payload.numbers = np.load(f"{mine}-{self.rank}.npy")
        self.check()

    def live(self, folder):
        self.learn(12)
        assert len(self.memory) == len(self.memory.values)  # so that some were evicted
        self.forget(values=[self.rank + 1])  # each rank names another
        self.learn(3)
        self.resize(23)
        self.learn(6)
        self.forget(older_than=2)
        self.save_and_load(folder)
        self.learn(5)
        self.forget(slots=[5, 9] if self.rank == 0 else [])
        self.resize(6)
        self.learn(4)
        return self.payload.numbers


@pytest.mark.parametrize("write", ["keep", "merge"])
def test_a_module_s_payload_follows(write, tmp_path):
    Life(Memory, MemoryConfig(slots=5 if write == "merge" else 17, key_dim=8, neighbors=3, write=write)).live(tmp_path)


def live_on_a_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.set_num_threads(1)
    numbers = [Life(kind, CONFIG, rank, 2).live(folder) for kind in (Memory, ShardedMemory)]
    assert np.array_equal(*numbers)
    np.save(f"{folder}/{rank}.npy", numbers[0])
    dist.barrier()
    if rank == 0:
        assert np.array_equal(numbers[0], np.load(f"{folder}/1.npy"))
    dist.destroy_process_group()


def test_ranks_and_shards_have_payloads_that_follow(tmp_path):
    processes.start_processes(live_on_a_rank, (str(tmp_path),), nprocs=2, start_method="forkserver")


def test_a_flax_module_s_payload_follows():
    flax = pytest.importorskip("raremem.adapters.flax")
    memory, rows = flax.Memory(CONFIG), rows_of(60, CONFIG, 0)
    payload = Payload(CONFIG.slots, rows)
    for numbers in np.split(np.arange(60), 10):
        payload.after_update(memory.update(memory(rows[numbers], value_of(numbers))), numbers)
    payload.after_forgetting(memory.forget(values=[2, 4]))
    payload.check(raremem.get_backend("jax").to_numpy(memory.state))
