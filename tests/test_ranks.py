"""Ranks that are given something wrong, or nothing: all of them say so at once, no memory changes, and life goes on."""

import dataclasses
import datetime
import time
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes

import raremem
from raremem.adapters import distributed
from raremem.adapters.sharded import ShardedMemory
from raremem.adapters.torch import Memory

CONFIG = raremem.MemoryConfig(slots=24, key_dim=8, neighbors=4, age_noise=2)
TIMEOUT = datetime.timedelta(seconds=60)
KINDS = {"replicated": Memory, "sharded": ShardedMemory}


def rows(rank, seed=0, count=4):
    generator = torch.Generator().manual_seed(100 * seed + rank)
    queries = torch.randn(count, 8, generator=generator) - 0.0
    queries[:, 0] = -0.0
    return queries, torch.randint(0, 6, (count,), generator=generator)


def update(memory, lookup, mask=None, target=None):
    return distributed.update(memory, lookup, mask, target=target)


def filled(kind, rank, config=CONFIG, steps=3):
    memory = kind(config)
    for step in range(steps):
        update(memory, memory(*rows(rank, step)))
    return memory


def ask(**wrong):
    """Of rank 1 alone, something wrong in place of queries, target or mask."""

    def call(memory, rank):
        queries, target = rows(rank, 9)
        given = {"query": queries, "target": target, "mask": None}
        for name, change in wrong.items() if rank == 1 else ():
            given[name] = change(given[name]) if given[name] is not None else change
        memory(**given)

    return call


def write(lookup=lambda out: out, **wrong):
    def call(memory, rank):
        out = memory(*rows(rank, 9))
        if rank == 1:
            update(memory, lookup(out), **wrong)
        else:
            update(memory, out)

    return call


def of_another(out):
    other = Memory(dataclasses.replace(CONFIG, seed=5))
    other.update(other(*rows(7)))
    return other(*rows(7))


def strictly(memory, rank):
    memory.strict = True
    queries, target = rows(rank, 9)
    memory(queries * (float("nan") if rank else 1.0), target)


WRITES = {
    "an integer mask": ("DTypeError", write(mask=torch.ones(4, dtype=torch.int64))),
    "a mask of another size": ("ShapeError", write(mask=torch.ones(3, dtype=torch.bool))),
    "a mask of one column": ("ShapeError", write(mask=torch.ones(4, 1, dtype=torch.bool))),
    "no targets": ("StateError", write(lambda out: out._replace(targets=None))),
    "targets in a column": ("ShapeError", write(target=torch.zeros(4, 1, dtype=torch.int64))),
    "a target that is no whole number": ("DTypeError", write(target=torch.full((4,), 1.9))),
    "a target of 33 bits": ("TargetError", write(target=torch.full((4,), 2**32 + 7))),
    "a negative target": ("TargetError", write(target=torch.full((4,), -1))),
    "a lookup of another memory": ("StateError", write(of_another)),
    "queries of another width": ("ShapeError", write(lambda out: out._replace(queries=out.queries[:, :5]))),
    "no lookup": ("DTypeError", write(lambda out: tuple(out))),
}
ASKS = {
    "a query without a batch": ("ShapeError", ask(query=lambda query: query[0])),
    "queries of another width": ("ShapeError", ask(query=lambda query: query[:, :5])),
    "integer queries": ("DTypeError", ask(query=lambda query: query.long())),
    "no tensor": ("DTypeError", ask(query=lambda query: query.tolist())),
    "targets in a column": ("ShapeError", ask(target=lambda target: target[:, None])),
    "too few targets": ("ShapeError", ask(target=lambda target: target[:2])),
    "a target of 33 bits": ("TargetError", ask(target=lambda target: target + 2**32)),
    "a target that is no whole number": ("DTypeError", ask(target=lambda target: target + 0.9)),
    "an integer mask": ("DTypeError", ask(mask=torch.ones(4, dtype=torch.int32))),
    "a mask of another size": ("ShapeError", ask(mask=torch.ones(5, dtype=torch.bool))),
    "rows that strict refuses": ("RejectedRowsError", strictly),
}


def no_targets_on_one(memory, rank):
    queries, target = rows(rank, 9)
    memory(queries, target if rank else None)


def other_calls(memory, rank):
    out = memory(*rows(rank, 9))
    memory.update(out) if rank else memory(*rows(rank, 9))


def alone(memory, rank):
    """One rank has made one update more than the other."""
    out = memory(*rows(rank, 9))
    if rank:
        memory.step += 1
    update(memory, out)


def with_other_content(memory, rank):
    if rank:
        memory.values[0] = 5 - memory.values[0]
    update(memory, memory(*rows(rank, 9)))


def other_config(name, value):
    def call(memory, rank):
        other = filled(type(memory), rank, steps=0) if not rank else type(memory)(dataclasses.replace(CONFIG, **{name: value}))
        queries = torch.randn(2, other.config.key_dim)
        update(other, other(queries, torch.arange(2)))

    return call


def with_the_keys_of_rank_0(memory, rank):
    dist.broadcast(memory.keys, 0)
    memory(*rows(rank, 9))


OTHER = {
    "seed": 1,
    "age_noise": 3,
    "slots": 25,
    "evict": "least_hit",
    "write": "keep",
    "key_dim": 9,
    "neighbors": 5,
    "margin": 0.2,
}
BOTH = {
    **{f"another {name}": (name, other_config(name, value)) for name, value in OTHER.items()},
    "another step": ("step", alone),
    "another content": ("other content", with_other_content),
}
SHARDED = {
    "no targets on one rank": ("gives no targets", no_targets_on_one),
    "other calls": ("'forward' and 'update'", other_calls),
    "the keys of rank 0": ("the same keys", with_the_keys_of_rank_0),
}

CASES = {
    **{(kind, "update", name): case for kind in KINDS for name, case in WRITES.items()},
    **{("sharded", "forward", name): case for name, case in ASKS.items()},
    **{(kind, "both", name): case for kind in KINDS for name, case in BOTH.items()},
    **{("sharded", "both", name): case for name, case in SHARDED.items()},
}


def try_all(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=TIMEOUT)
    torch.set_num_threads(1)
    found = {}
    for name, (_, call) in CASES.items():
        memory = filled(KINDS[name[0]], rank)
        before, start = memory.state_dict(), time.perf_counter()
        try:
            call(memory, rank)
            error = ("nothing", "")
        except Exception as raised:
            error = (type(raised).__name__, str(raised))
        seconds = time.perf_counter() - start
        same = all(torch.equal(array, before[entry]) for entry, array in memory.state_dict().items())
        fresh = filled(KINDS[name[0]], rank)
        report = update(fresh, fresh(*rows(rank, 20)))  # the ranks are still together
        found[name] = (*error, same, seconds, int(report.written.sum()))
    torch.save((found, live(rank, folder)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def live(rank, folder):
    """What is right, and a few things that only one rank finds wrong."""
    found = {}
    for name, kind in KINDS.items():
        memory = filled(kind, rank)
        before = memory.state_dict()
        report = update(memory, memory(torch.zeros(0, 8), torch.zeros(0, dtype=torch.int64)) if kind is ShardedMemory else None)
        found[name, "empty"] = (
            tuple(report.slots.shape),
            int(report.evicted),
            all(torch.equal(array, before[entry]) for entry, array in memory.state_dict().items()),
        )
        late = memory(*rows(rank, 30))
        update(memory, memory(*rows(rank, 31)))
        mask = torch.tensor([True, True, False, True])
        update(memory, late, mask, None if rank else rows(rank, 30)[1])
        found[name, "state"] = memory.backend.to_numpy(memory.state)
        if kind is ShardedMemory:
            none = memory(torch.zeros(0, 8))
            found["empty lookup"] = tuple(none.values.shape), none.loss
            memory.save(f"{folder}/sharded")
            raremem.save(f"{folder}/sharded-{rank}", CONFIG, memory.state, memory.backend)
            again = ShardedMemory.load(f"{folder}/sharded")
            found["loaded"] = all(torch.equal(a, b) for a, b in zip(again.buffers(), memory.buffers(), strict=True))
            torch.save(memory.state_dict(), f"{folder}/part-{rank}")
            dist.barrier()
            for part in range(2):
                try:
                    ShardedMemory(CONFIG).load_state_dict(torch.load(f"{folder}/part-{part}"))
                    found["part", part] = ""
                except raremem.StateError as error:
                    found["part", part] = str(error)
            memory.half()
            found["half"] = memory.keys.dtype, memory(rows(rank)[0].half()).values.shape
            with pytest.raises(OSError, match="nowhere" if not rank else "") if not rank else pytest.raises(raremem.StateError):
                memory.save("/nowhere/at/all")
    found["ddp"] = under_ddp(rank)
    return found


class Network(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer, self.memory = torch.nn.Linear(8, 8), kind(CONFIG)

    def forward(self, queries, target):
        return self.memory(self.layer(queries), target)


def under_ddp(rank):
    """What PyTorch's wrapper for many ranks does by default, and what the module says of it."""
    said = []
    for kind in KINDS.values():
        for broadcast in (True, False):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("ignore")
                parallel = torch.nn.parallel.DistributedDataParallel(Network(kind), broadcast_buffers=broadcast)
                warnings.filterwarnings("always", message="Memory.update writes")
                try:
                    for step in range(2):
                        parallel.module.memory.update(parallel(*rows(rank, step)))
                    said.append([str(warning.message) for warning in caught])
                except raremem.StateError as error:
                    said.append(str(error))
    return said


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    processes.spawn(try_all, (str(folder),), nprocs=2)
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", CASES, ids=" ".join)
def test_what_is_wrong_on_one_rank_is_an_error_on_all(name, answers):
    expected = CASES[name][0]
    (other, told, *_), (error, message, *_) = (found[name] for found, _ in answers[1])
    if expected.endswith("Error"):
        assert error == expected, message
        assert other == "StateError"
        assert f"rank 1 of 2 raised {error}: {message[:40]}" in told
    else:
        assert (error, other) == ("StateError", "StateError"), (message, told)
        assert expected in message
        assert expected in told
    for found, _ in answers[1]:
        *_, same, seconds, written = found[name]
        assert same or name[2] in ("another step", "another content", "the keys of rank 0")  # made by the test
        assert seconds < 20
        assert written == 8


@pytest.fixture(scope="module")
def whole():
    """What one process holds after what `live` does."""
    memory = Memory(CONFIG)

    def batch(seed):
        return [torch.cat(column) for column in zip(rows(0, seed), rows(1, seed), strict=True)]

    for seed in (0, 1, 2, 31):
        memory.update(memory(*batch(seed)))
    memory.update(memory(*batch(30)), mask=torch.tensor([True, True, False, True] * 2))
    return memory


@pytest.mark.parametrize("kind", KINDS)
def test_late_lookups_on_ranks_are_looked_up_again(kind, answers, whole):
    expected = whole.backend.to_numpy(whole.state)
    for _, found in answers[1]:
        for name, array in found[kind, "state"].items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_may_be_empty_on_all_ranks(kind, answers):
    for _, found in answers[1]:
        assert found[kind, "empty"] == ((0,), 0, True)
        assert found["empty lookup"] == ((0, 4), None)


def test_a_sharded_memory_s_file_is_that_of_one_process(answers, whole):
    folder, ranks = answers
    whole.save(folder / "whole")
    for name in ("sharded", "sharded-0", "sharded-1"):
        assert (folder / name).read_bytes() == (folder / "whole").read_bytes()
    assert all(found["loaded"] for _, found in ranks)


def test_the_state_dict_of_another_rank_is_refused(answers):
    for rank, (_, found) in enumerate(answers[1]):
        assert found["part", rank] == ""
        assert f"is of rank {1 - rank} of 2; expected that of rank {rank} of 2" in found["part", 1 - rank]
        assert "ShardedMemory.load" in found["part", 1 - rank]
    with pytest.raises(RuntimeError, match="is of rank 1 of a memory over 2 ranks"):
        Memory(CONFIG).load_state_dict(torch.load(answers[0] / "part-1"))


def test_a_sharded_memory_s_keys_stay_f32(answers):
    assert all(found["half"] == (torch.float32, (4, 4)) for _, found in answers[1])


def test_who_updates_one_rank_alone_is_told(answers):
    for _, found in answers[1]:
        broadcast, kept, sharded, right = found["ddp"]
        assert "replaces this memory by that of rank 0 at every forward" in broadcast
        assert len(kept) == 1
        assert "distributed.update(memory, out)" in kept[0]
        assert "replaces the keys of every rank by those of rank 0" in sharded
        assert right == []
