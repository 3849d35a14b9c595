"""A memory through all that PyTorch does to a module: it ends up empty, or as saved, or says what is wrong with it."""

import copy
import dataclasses
import io
import os
import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

import raremem
from raremem.adapters.torch import Memory
from raremem.reference.comparison import same_state
from raremem.search.live import LiveIndex, LivePlan

CONFIG = raremem.MemoryConfig(slots=40, key_dim=8, neighbors=5)
NAMES = ("keys", "values", "last_used", "hits", "step")
QUERIES = torch.eye(8)


def batch(seed, rows=6, dim=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=generator), torch.randint(0, 4, (rows,), generator=generator)


def written(steps=5, config=CONFIG, **options):
    memory = Memory(config, **options)
    for step in range(steps):
        memory.update(memory(*batch(step, dim=options.get("query_dim", 8))))
    return memory


def content(memory):
    return memory.backend.to_numpy(memory.state)


def same(memory, other):
    same_state(content(memory), content(other))


def is_empty(memory):
    same(memory, Memory(memory.config))
    assert (memory(torch.randn(3, 8 if memory.projection is None else memory.projection.in_features)).slots == -1).all()
    return True


# Loaded.

DAMAGES = {
    "another number of slots": (
        lambda saved: saved.update({name: saved[name][:20] for name in NAMES[:4]}),
        "keys in the state_dict",
    ),
    "another key_dim": (lambda saved: saved.update(keys=torch.ones(40, 4) / 2), r"is \[40, 4\]; expected \[40, 8\]"),
    "a step of two": (lambda saved: saved.update(step=torch.tensor([1, 2], dtype=torch.int32)), "step in the state_dict"),
    "no step": (lambda saved: saved.pop("step"), "has no step"),
    "no keys": (lambda saved: saved.pop("keys"), "has no keys"),
    "something else": (lambda saved: saved.update(other=torch.ones(1)), "has also other"),
    "a projection": (lambda saved: saved.update({"projection.weight": torch.ones(8, 3)}), r"has also projection.weight"),
    "long keys": (lambda saved: saved.update(keys=3 * saved["keys"]), "the key of slot"),
    "no numbers": (lambda saved: saved["keys"].__setitem__((0, 0), float("nan")), "the key of slot 0"),
    "zero keys": (lambda saved: saved["keys"].zero_(), "the key of slot"),
    "values that are no whole numbers": (lambda saved: saved.update(values=saved["values"] + 0.5), "values are torch.float32"),
    "integer keys": (lambda saved: saved.update(keys=saved["keys"].int()), "keys are torch.int32"),
    "negative values": (lambda saved: saved["values"].__setitem__(0, -7), "-7"),
    "values of 33 bits": (lambda saved: saved.update(values=saved["values"].long() + 2**31), "2147483647"),
    "too many hits": (lambda saved: saved["hits"].__setitem__(0, 300), "300"),
    "booleans": (lambda saved: saved.update(hits=saved["hits"] > 0), "hits are torch.bool"),
    "a list": (lambda saved: saved.update(step=5), "step in the state_dict is int"),
    "no content": (lambda saved: saved.update(keys=saved["keys"].to("meta")), "is on meta"),
    "another config": (
        lambda saved: saved.update(Memory(dataclasses.replace(CONFIG, seed=1)).state_dict()),
        "seed=1; expected seed=0",
    ),
    "what is no config": (lambda saved: saved["_extra_state"].zero_(), "no config of this version"),
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_state_dict_is_loaded_whole_or_not_at_all(damage, strict, assign, nested):
    memory, saved = written(2), written().state_dict()
    buffers, before = list(memory.buffers()), memory.state_dict()
    change, message = DAMAGES[damage]
    change(saved)
    network = nn.ModuleDict({"layer": nn.Linear(8, 8), "memory": memory}) if nested else memory
    if nested:
        layer = {name: entry for name, entry in network.state_dict().items() if "layer" in name}
        saved = {**layer, **{f"memory.{name}": entry for name, entry in saved.items()}}
    with pytest.raises(RuntimeError, match=message) as raised:
        network.load_state_dict(saved, strict=strict, assign=assign)
    assert isinstance(raised.value, raremem.StateError)
    assert "\n" not in str(raised.value)
    assert all(buffer is now for buffer, now in zip(buffers, memory.buffers(), strict=True))
    assert all(torch.equal(entry, before[name]) for name, entry in memory.state_dict().items())


ZEROS = torch.zeros(40, dtype=torch.int32)
SHARED = {
    "one number for all slots": ({"hits": ZEROS[:1].expand(40)}, r"hits \[40\] are one number expanded"),
    "one tensor for two buffers": ({"last_used": ZEROS, "hits": ZEROS}, "last_used and hits are the same memory"),
    "a view of another buffer": ({"hits": ZEROS, "step": ZEROS[0]}, "hits and step are the same memory"),
}


@pytest.mark.parametrize("given", SHARED)
def test_buffers_that_share_memory_are_refused(given):
    """A write to one would be a write to both. Without `assign` they are copied."""
    tensors, message = SHARED[given]
    memory, other, saved = written(), Memory(CONFIG), {**Memory(CONFIG).state_dict(), **tensors}
    before = content(memory)
    with pytest.raises(RuntimeError, match=f"in the state_dict {message}; expected memory of its own"):
        memory.load_state_dict(saved, assign=True)
    same_state(content(memory), before)
    other.load_state_dict(saved)
    other.update(other(*batch(0)))
    same(other, written(1))
    for name, tensor in tensors.items():
        setattr(memory, name, tensor)
    for call in (lambda: memory(QUERIES), lambda: memory.forget(slots=0)):
        with pytest.raises(raremem.StateError, match=f"{message}; expected memory of its own"):
            call()
    assert not ZEROS.any()


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_whatever_dtypes_a_state_dict_has_the_buffers_keep_theirs(dtype, assign):
    memory, source = Memory(CONFIG), written()
    saved = {
        name: entry.to(dtype if name == "keys" else torch.int64) for name, entry in source.state_dict().items() if name in NAMES
    }
    memory.load_state_dict(saved, assign=assign)
    assert [buffer.dtype for buffer in memory.buffers()] == [torch.float32] + [torch.int32] * 4
    torch.testing.assert_close(memory.keys, source.keys, rtol=0, atol=2.0**-8)
    filled = memory.values >= 0
    torch.testing.assert_close(memory.keys[filled].norm(dim=1), torch.ones(int(filled.sum())), rtol=0, atol=1e-6)
    assert content(memory)["ages"].tolist() == content(source)["ages"].tolist()
    assert memory.update(memory(*batch(9))).written.all()


def test_the_config_is_in_a_state_dict_that_torch_load_reads():
    config = dataclasses.replace(CONFIG, evict="least_hit", softmax_temperature=3.0)
    file = io.BytesIO()
    torch.save(written(config=config).state_dict(), file)
    saved = torch.load(io.BytesIO(file.getvalue()))
    memory = Memory(config)
    memory.load_state_dict(saved)
    same(memory, written(config=config))
    with pytest.raises(
        RuntimeError, match=r"softmax_temperature=3.0, evict='least_hit'; expected softmax_temperature=40.0, evict='oldest'"
    ):
        Memory(CONFIG).load_state_dict(saved)
    memory.config = dataclasses.replace(memory.config, softmax_temperature=7.0)  # on purpose
    assert memory(QUERIES).weights[0, 0] != written(config=config)(QUERIES).weights[0, 0]


def test_a_state_dict_of_version_0_1_loads():
    saved = {name: entry for name, entry in written().state_dict().items() if name in NAMES}
    memory = Memory(CONFIG)
    assert not memory.load_state_dict(saved).missing_keys
    same(memory, written())


def test_without_a_memory_in_it_a_state_dict_leaves_the_memory():
    memory = written()
    network = nn.Sequential(nn.Linear(8, 8), memory)
    saved = {name: entry for name, entry in network.state_dict().items() if name.startswith("0")}
    assert set(network.load_state_dict(saved, strict=False).missing_keys) == {f"1.{name}" for name in (*NAMES, "_extra_state")}
    with pytest.raises(RuntimeError, match="Missing key"):
        network.load_state_dict(saved)
    same(memory, written())


def test_a_subclass_s_own_parameters_are_loaded_too():
    class Scaled(Memory):
        def __init__(self, config):
            super().__init__(config)
            self.scale = nn.Parameter(torch.zeros(1))

    source, memory = Scaled(CONFIG), Scaled(CONFIG)
    nn.init.constant_(source.scale, 2.0)
    source.update(source(*batch(0)))
    memory.load_state_dict(source.state_dict())
    assert memory.scale == 2
    same(memory, source)


def test_a_projection_belongs_to_what_is_loaded():
    source, memory = written(query_dim=3), Memory(CONFIG, query_dim=3)
    memory.load_state_dict(source.state_dict())
    assert torch.equal(memory.projection.weight, source.projection.weight)
    for saved, other in ((source, Memory(CONFIG)), (written(), memory), (source, Memory(CONFIG, query_dim=4))):
        before = content(other)
        with pytest.raises(RuntimeError, match=r"projection\.weight"):
            other.load_state_dict(saved.state_dict(), strict=False)
        same_state(content(other), before)


# Made, moved and filled.


def on_meta(**options):
    with torch.device("meta"):
        return Memory(CONFIG, **options)


def init_empty_weights():
    """As accelerate does: every buffer goes to meta as it is registered."""
    register = nn.Module.register_buffer

    def to_meta(module, name, buffer, persistent=True):
        register(module, name, buffer, persistent)
        module._buffers[name] = module._buffers[name].to("meta")

    nn.Module.register_buffer = to_meta
    try:
        return Memory(CONFIG)
    finally:
        nn.Module.register_buffer = register


def reset(memory):
    memory.to_empty(device="cpu")
    memory.reset_parameters()
    return memory


def as_fsdp_does(network):
    for module in network.modules():
        module.to_empty(device="cpu", recurse=False)
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return network[0]


EMPTY = {
    "to_empty": lambda: Memory(CONFIG).to_empty(device="cpu"),
    "to_empty of a full one": lambda: written().to_empty(device="cpu"),
    "to_empty of what it is in": lambda: nn.Sequential(written()).to_empty(device="cpu")[0],
    "meta": lambda: on_meta().to_empty(device="cpu"),
    "meta, reset": lambda: reset(on_meta()),
    "meta, a projection": lambda: reset(on_meta(query_dim=3)),
    "meta, a projection, not reset": lambda: nn.Sequential(on_meta(query_dim=3)).to_empty(device="cpu")[0],
    "device=meta": lambda: Memory(CONFIG, device="meta").to_empty(device="cpu"),
    "to meta": lambda: written().to("meta").to_empty(device="cpu"),
    "skip_init": lambda: nn.utils.skip_init(Memory, CONFIG),
    "a copy of meta": lambda: copy.deepcopy(on_meta()).to_empty(device="cpu"),
    "init_empty_weights": lambda: init_empty_weights().to_empty(device="cpu"),
    "param_init_fn": lambda: as_fsdp_does(nn.Sequential(on_meta(query_dim=3))),
    "reset_parameters": lambda: reset(written()),
}


@pytest.mark.parametrize("way", EMPTY)
def test_what_was_never_filled_is_empty(way):
    junk = [torch.full((size,), 3, dtype=torch.int32) for size in (1, 40, 320)]  # what the allocator then hands out again
    del junk
    memory = EMPTY[way]()
    assert is_empty(memory)
    assert all(0 < parameter.abs().max() < 3**-0.5 + 1e-6 for parameter in memory.parameters())
    assert memory.update(memory(*batch(0, dim=8 if memory.projection is None else 3))).written.all()


@pytest.mark.parametrize("make", [on_meta, init_empty_weights, lambda: copy.deepcopy(on_meta())])
def test_meta_is_filled_by_a_state_dict(make):
    memory = make()
    with pytest.raises(RuntimeError, match="the memory is on meta"):
        memory.load_state_dict(written().state_dict())
    memory.load_state_dict(written().state_dict(), assign=True)
    same(memory, written())


def test_buffers_that_something_else_has_set_are_looked_at():
    memory = written()
    memory._buffers.update({name: torch.empty_like(buffer) for name, buffer in memory._buffers.items()})
    memory.keys.fill_(0.3), memory.values.fill_(7), memory.hits.zero_()
    with pytest.raises(raremem.StateError, match=r"the key of slot 0 has norm 0\.849"):
        memory(QUERIES)
    memory.keys = memory.keys.to("meta")
    with pytest.raises(raremem.DeviceError, match="keys of the memory are on meta"):
        memory(QUERIES)


CASTS = {
    "half": lambda memory: memory.half(),
    "bfloat16": lambda memory: memory.bfloat16(),
    "double": lambda memory: memory.double(),
    "to": lambda memory: memory.to(torch.float16),
    "type": lambda memory: memory.type(torch.bfloat16),
    "_apply": lambda memory: memory._apply(lambda tensor: tensor.to(torch.float16)),
    "buffer_dtype of FSDP": lambda memory: [setattr(memory.keys, "data", memory.keys.to(torch.bfloat16))],
    "mixed precision of DDP": lambda memory: [setattr(b, "data", b.to(torch.bfloat16)) for b in memory.buffers()],
    "share_memory": lambda memory: memory.share_memory(),
    "SyncBatchNorm": lambda memory: nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm1d(8), memory)),
}


@pytest.mark.parametrize("cast", CASTS)
def test_no_cast_changes_a_memory(cast):
    memory, other = written(), written()
    CASTS[cast](memory)
    assert torch.equal(memory(QUERIES).similarities, other(QUERIES).similarities)
    assert [buffer.dtype for buffer in memory.buffers()] == [torch.float32] + [torch.int32] * 4
    same(memory, other)
    for each in (memory, other):
        each.update(each(*batch(9)))
    same(memory, other)


def test_other_tensors_in_place_of_the_buffers():
    memory, other = written(2), written()
    buffers = {name: buffer.bfloat16() if name == "keys" else buffer.clone() for name, buffer in other.named_buffers()}
    found = torch.func.functional_call(memory, buffers, (QUERIES,))
    torch.testing.assert_close(found.similarities, other(QUERIES).similarities, rtol=0, atol=2.0**-7)
    same(memory, written(2))


# Averaged, copied and spread.


def averages(**options):
    memory = written()
    network = nn.Sequential(nn.Linear(8, 8), memory)
    averaged = AveragedModel(network, **options)
    for seed in range(3):
        averaged.update_parameters(network)
        memory.update(memory(torch.randn(3, 8, generator=torch.Generator().manual_seed(seed)), torch.arange(10, 13)))
    return network, averaged


def average(model, averaged):
    for mine, theirs in zip(averaged.buffers(), model.buffers(), strict=True):
        mine.data.copy_(0.99 * mine.data + 0.01 * theirs.data)


@pytest.mark.parametrize("mean", [None, lambda mine, theirs, _: 0.999 * mine + 0.001 * theirs], ids=["mean", "EMA"])
def test_averages_of_buffers_are_refused_at_once(mean):
    _, averaged = averages(use_buffers=True, avg_fn=mean)
    with pytest.raises(raremem.StateError, match="Average weights without buffers") as raised:
        averaged(QUERIES)
    assert "\n" not in str(raised.value)


def test_averages_past_the_count_of_writes_are_refused_too():
    memory = written()
    averaged = copy.deepcopy(memory)
    memory.update(memory(torch.randn(3, 8), torch.arange(10, 13)))
    average(memory, averaged)
    with pytest.raises(raremem.StateError, match="Average weights without buffers"):
        averaged(QUERIES)


def test_an_average_without_buffers_has_the_memory_of_its_model():
    network, averaged = averages()
    averaged.update_parameters(network)
    same(averaged.module[1], network[1])
    assert averaged(QUERIES).found.all()


def test_a_replica_of_data_parallel_is_not_updated():
    memory = written()
    replica = memory._replicate_for_data_parallel()
    out = replica(QUERIES, torch.arange(8))
    with pytest.raises(raremem.StateError, match="a replica that DataParallel made"):
        replica.update(out)
    assert memory.update(out).written.all()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])
def test_copies_are_memories_of_their_own(copied):
    memory = written()
    other = copied(memory)
    same(other, memory)
    other.update(other(*batch(9)))
    same(memory, written())


# Saved.


@pytest.mark.parametrize("slots", [None, 80, 10])
def test_a_module_is_saved_and_made_from_a_file(slots, tmp_path):
    config = dataclasses.replace(CONFIG, evict="least_hit", seed=3)
    memory = written(config=config)
    memory.save(tmp_path / "memory")
    loaded = Memory.load(tmp_path / "memory", slots=slots, device="cpu", strict=True)
    expected_config, expected = raremem.load(tmp_path / "memory", "torch", slots=slots)
    assert loaded.config == expected_config == dataclasses.replace(config, slots=slots or 40)
    assert loaded.strict
    same_state(content(loaded), loaded.backend.to_numpy(expected))
    loaded.save(tmp_path / "again")
    assert slots or (tmp_path / "again").read_bytes() == (tmp_path / "memory").read_bytes()


def test_what_a_file_has_no_place_for_is_not_lost(tmp_path):
    with pytest.raises(raremem.StateError, match="has a learned projection"):
        written(query_dim=3).save(tmp_path / "memory")
    assert not os.listdir(tmp_path)
    written().save(tmp_path / "memory")
    assert Memory.load(tmp_path / "memory", query_dim=3)(torch.randn(2, 3)).found.all()


def test_files_and_modules_taken_for_each_other(tmp_path):
    memory = written()
    with pytest.raises(raremem.StateError, match=r"is a Memory; expected a state\. .*memory.save\(path\)"):
        raremem.save(tmp_path / "memory", CONFIG, memory)
    assert not os.listdir(tmp_path)
    for new in (True, False):
        torch.save(memory.state_dict(), tmp_path / "state_dict", _use_new_zipfile_serialization=new)
        with pytest.raises(raremem.CheckpointError, match=r"by torch.save; expected.*load_state_dict\(torch.load\(path\)\)"):
            raremem.load(tmp_path / "state_dict")
        with pytest.raises(raremem.CheckpointError, match=r"by torch.save"):
            Memory.load(tmp_path / "state_dict")


# Child processes.


class Answers(Dataset):
    """What a memory in a data set answers, in whatever process."""

    def __init__(self, memory):
        self.memory = memory

    def __len__(self):
        return 4

    def __getitem__(self, place):
        return self.memory(QUERIES[place : place + 1]).slots[0]


class Slow:
    """An index of everything, which takes a while to build."""

    may_build = threading.Event()

    def __init__(self, keys, slots, seed):
        self.may_build.wait(30)
        self.slots = slots

    def search(self, queries, count):
        return np.tile(self.slots, (len(queries), 1))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader_ask_a_memory(start):
    memory = written(index="hnswlib")
    loader = DataLoader(Answers(memory), batch_size=2, num_workers=1, multiprocessing_context=start)
    assert torch.equal(torch.cat(list(loader)), memory(QUERIES[:4]).slots)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])
def test_copies_have_indexes_of_their_own(copied, monkeypatch):
    """Two memories with one would drop it at each other's calls, and in two threads take it for that of the other."""
    monkeypatch.setattr(Slow, "may_build", threading.Event())
    Slow.may_build.set()
    memory = written(8, index=LiveIndex(Slow, background=False, plan=LivePlan(smallest=20)))
    built = memory(QUERIES), memory.index._built
    other = copied(memory)
    assert not other.index.ready
    assert other.index.plan == memory.index.plan
    other.update(other(*batch(9)))
    assert other.index.ready
    assert memory.index._built is built[1]
    assert torch.equal(memory(QUERIES).slots, built[0].slots)
    assert memory.index._built is built[1]


def test_a_process_forked_while_an_index_is_built_builds_its_own(monkeypatch):
    monkeypatch.setattr(Slow, "may_build", threading.Event())
    memory = written(8, index=LiveIndex(Slow, plan=LivePlan(smallest=20)))
    expected = memory(QUERIES).slots
    assert not memory.index.ready
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's, of threads
        child = os.fork()
    if not child:
        Slow.may_build.set()
        fine = torch.equal(memory(QUERIES).slots, expected)
        memory.index.rebuild()
        os._exit(0 if fine and memory.index.ready and torch.equal(memory(QUERIES).slots, expected) else 1)
    Slow.may_build.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    memory.index.rebuild()
    assert memory.index.ready
