"""A memory spread over processes: it is, in all that it answers and holds, the memory that one process has."""

import copy
import datetime
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes

import raremem
from raremem.adapters.torch import Memory
from raremem.adapters.torch.primitives import NumpyBesideTorch
from raremem.adapters.torch.sharded import ShardedBackend, ShardedMemory, _ShardedInNumpy, shard
from raremem.reference.laws import LAWS, run

CONFIG = raremem.MemoryConfig(slots=37, key_dim=16, neighbors=6, age_noise=2)
STEPS = 8
TIMEOUT = datetime.timedelta(seconds=60)


def on_a_rank(rank, ranks, folder, work, *arguments):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks, timeout=TIMEOUT)
    torch.set_num_threads(1)
    work(rank, ranks, folder, *arguments)
    dist.destroy_process_group()


def spawn(work, ranks, folder, *arguments):
    processes.start_processes(on_a_rank, (ranks, str(folder), work, *arguments), nprocs=ranks, start_method="forkserver")


def hold_the_laws(rank, ranks, folder, names):
    """Hypothesis draws the same cases in every process, so all make the same calls."""
    warnings.simplefilter("ignore")
    backend = ShardedBackend()
    for name in names:
        law = LAWS[name]
        if law.runs_on(backend):
            run(law, backend, 16 // ranks, shrink=False)


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_law_holds(ranks, tmp_path):
    spawn(hold_the_laws, ranks, tmp_path, list(LAWS))


def hold_the_laws_unseen(rank, ranks, folder, names):
    ShardedBackend.eager = None
    NumpyBesideTorch.put_rows = _ShardedInNumpy.write = lambda *arguments: 1 / 0
    hold_the_laws(rank, 8, folder, names)


def test_every_law_holds_where_content_is_not_seen(tmp_path):
    """As on GPUs: updates are PyTorch's then, and not NumPy's."""
    spawn(hold_the_laws_unseen, 2, tmp_path, list(LAWS))


def test_that_check_can_fail(tmp_path):
    with pytest.raises(Exception, match="query_agrees"):
        spawn(hold_a_law_wrongly, 2, tmp_path)


def hold_a_law_wrongly(rank, ranks, folder):
    from raremem.adapters.torch import sharded

    sharded.shard = lambda slots, group: slice(0, slots // 2)
    hold_the_laws(rank, ranks, folder, ["query_agrees"])


def batch(step):
    generator = np.random.default_rng(step)
    rows = torch.tensor(generator.normal(size=(12, 16)), dtype=torch.float32)
    targets = torch.tensor(generator.integers(0, 9, 12))
    rows = rows + 4 * torch.eye(9, 16)[targets]
    return rows, targets, torch.tensor(generator.random(12) < 0.8)


def shares(step, ranks):
    """Of the rows of a batch: uneven, and one rank has none."""
    cuts = np.sort(np.random.default_rng(100 + step).integers(0, 13, ranks - 2)) if ranks > 2 else []
    return np.split(np.arange(12), [0, *cuts])


def train(rank, ranks, folder):
    memory = ShardedMemory(CONFIG)
    projection = torch.nn.Linear(16, 16, bias=False)
    torch.nn.init.eye_(projection.weight)
    network = torch.nn.parallel.DistributedDataParallel(projection, broadcast_buffers=False)
    answers, gradients = [], []
    for step in range(STEPS):
        rows, targets, mask = batch(step)
        own = shares(step, ranks)[rank]
        out = memory(network(rows[own]), targets[own], mask[own])
        network.zero_grad()
        (out.loss.sum() * ranks).backward()
        gradients.append(projection.weight.grad.clone())
        answers.append((out.values, out.slots, out.similarities.detach(), out.loss.detach()))
        memory.update(out, mask=mask[own])
    raremem.save(f"{folder}/memory-{rank}", CONFIG, memory.state, memory.backend)
    torch.save((answers, gradients), f"{folder}/{rank}.pt")


@pytest.mark.parametrize("ranks", [2, 4])
def test_uneven_ranks_equal_one_memory_that_is_not_sharded(ranks, tmp_path):
    spawn(train, ranks, tmp_path)
    alone, projection = Memory(CONFIG), torch.nn.Linear(16, 16, bias=False)
    torch.nn.init.eye_(projection.weight)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(ranks)]
    for step in range(STEPS):
        rows, targets, mask = batch(step)
        out = alone(projection(rows), targets, mask)
        projection.zero_grad()
        out.loss.sum().backward()
        expected = (out.values, out.slots, out.similarities, out.loss)
        for rank, own in enumerate(shares(step, ranks)):
            for mine, theirs in zip(expected, found[rank][0][step], strict=True):
                torch.testing.assert_close(theirs, mine[own], rtol=0, atol=1e-6)
            torch.testing.assert_close(found[rank][1][step], projection.weight.grad, rtol=0, atol=1e-5)
        alone.update(out, mask=mask)
    backend = raremem.get_backend("torch")
    expected = backend.to_numpy(alone.state)
    for rank in range(ranks):
        config, state = raremem.load(tmp_path / f"memory-{rank}", backend)
        assert config == CONFIG
        portable = backend.to_numpy(state)
        np.testing.assert_allclose(portable["keys"], expected["keys"], rtol=0, atol=1e-6)
        for name in ("values", "ages", "filled", "hits", "step"):
            np.testing.assert_array_equal(portable[name], expected[name], err_msg=name)


def load_on_a_rank(rank, ranks, folder):
    memory = ShardedMemory(CONFIG)
    backend = raremem.get_backend("numpy")
    memory.fill(backend.to_numpy(raremem.load(f"{folder}/memory-0")[1]))
    raremem.save(f"{folder}/again-{rank}", CONFIG, memory.state, memory.backend)
    assert len(memory.keys) == len(range(CONFIG.slots)[shard(CONFIG.slots, None)])


def test_what_two_ranks_have_saved_three_can_load(tmp_path):
    spawn(train, 2, tmp_path)
    (tmp_path / "meeting").unlink(missing_ok=True)
    spawn(load_on_a_rank, 3, tmp_path)
    whole = (tmp_path / "memory-0").read_bytes()
    assert all((tmp_path / f"again-{rank}").read_bytes() == whole for rank in range(3))


def more_ranks_than_slots(rank, ranks, folder):
    config = raremem.MemoryConfig(slots=2, key_dim=4, neighbors=5)
    memory = ShardedMemory(config)
    memory.update(memory(torch.eye(4)[rank : rank + 1], torch.tensor([rank])))
    out = memory(torch.eye(4), torch.arange(4))
    assert out.values[:2, 0].tolist() == [0, 1]


def test_more_ranks_than_slots(tmp_path):
    spawn(more_ranks_than_slots, 3, tmp_path)


def follow_its_own_writes(rank, ranks, folder):
    """Each rank's keys are kept in bf16, as those of a memory that is not sharded are, and never behind what is written."""
    torch.cpu._is_avx512_bf16_supported = lambda: True
    memory = ShardedMemory(raremem.MemoryConfig(slots=20_011, key_dim=16, neighbors=1))
    memory.keys[:], memory.values[:], memory.hits[:] = -1 / 4, 0, 1
    torch.manual_seed(rank)
    kept = []
    for step in range(4):
        report = memory.update(memory(torch.randn(64, 16), 100 * rank + torch.arange(64)))
        assert report.evicted
        kept.append(memory.backend.searcher.part_search.eager.low_keys.kept[memory.keys].low)
        assert not step or torch.equal(kept[-1], memory.keys.bfloat16())
    assert kept[0] is None
    assert kept[3] is kept[1]


def test_keys_in_bf16_follow_the_writes_of_all_ranks(tmp_path):
    spawn(follow_its_own_writes, 2, tmp_path)


def test_a_deep_copy_keeps_what_is_tied(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        memory = ShardedMemory(CONFIG, query_dim=3)
        tied = torch.nn.Linear(3, CONFIG.key_dim, bias=False)
        tied.weight = memory.projection.weight
        copied = copy.deepcopy(torch.nn.ModuleList([memory, tied]))
        assert copied[0].projection.weight is copied[1].weight
        assert copied[0].group is memory.group
    finally:
        dist.destroy_process_group()
