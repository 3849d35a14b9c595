"""Forgetting (rule 14) where laws do not look: modules, traced code, what is kept beside a memory, ranks, interrupts."""

import copy
import io
import signal
import threading
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes

import raremem
from raremem import MemoryConfig, guard
from raremem.adapters import distributed
from raremem.adapters.sharded import ShardedMemory
from raremem.adapters.torch import Memory
from raremem.reference.comparison import as_numpy, same_state
from raremem.search.live import LiveIndex, LivePlan

CONFIG = MemoryConfig(slots=20, key_dim=8, neighbors=4, age_noise=0)


def filled(kind=Memory, config=CONFIG, **options):
    """Twelve rows in slots 0 to 11, of values 0 to 3, three each; the first four are older."""
    memory = kind(config, **options)
    rows = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    for some in (slice(0, 4), slice(4, 12)):
        memory.update(memory(rows[some], torch.arange(12)[some] // 3))
    return memory, rows


def content(memory):
    return memory.backend.to_numpy(memory.state)


KEEP = MemoryConfig(slots=20, key_dim=8, neighbors=4, age_noise=0, write="keep")


def test_a_module_forgets_and_says_what_it_holds():
    memory, rows = filled(config=KEEP)
    assert (len(memory), memory.counts()) == (12, {0: 3, 1: 3, 2: 3, 3: 3})
    out, before = memory(rows), content(memory)
    report = memory.forget(values=[1, 7], slots=out.slots[:1, 0], older_than=0)
    gone = report.forgotten.numpy()
    assert np.flatnonzero(gone).tolist() == [0, 1, 2, 3, 4, 5]
    assert int(report.count) == 6
    after = content(memory)
    for name in ("keys", "values", "ages", "hits"):
        np.testing.assert_array_equal(after[name][~gone], before[name][~gone])
    assert memory.counts() == {2: 3, 3: 3}
    assert not torch.isin(memory(rows).values, torch.tensor([0, 1])).any()
    memory.update(out, torch.arange(12) // 3)  # from before: the rows are looked up again
    assert len(memory) == 18
    report = memory.clear()
    assert (int(report.count), len(memory), bool(memory)) == (18, 0, True)
    assert int(memory.step) == 3
    assert not memory(rows).found.any()


@pytest.mark.parametrize("write", ["state_dict", "pickle", "deepcopy", "file", "low"])
def test_no_byte_of_a_key_is_anywhere(write, tmp_path, monkeypatch):
    """In a module, what it saves, and its keys in bf16."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    memory = Memory(MemoryConfig(slots=20_011, key_dim=16, neighbors=1))
    memory.keys[:], memory.values[:] = -1 / 4, 99
    rows = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    forgotten, other = memory.update(memory(rows, torch.arange(64))).slots[:2].tolist()
    for _ in range(2):
        memory(rows)
    kept = memory.backend.searcher.eager.low_keys.kept[memory.keys]
    assert kept.low is not None
    held = [memory.keys[forgotten].numpy().tobytes(), kept.low[forgotten].view(torch.int16).numpy().tobytes()]
    memory.forget(slots=forgotten)
    for _ in range(2):
        memory(rows)
    if write == "low":
        kept = memory.backend.searcher.eager.low_keys.kept[memory.keys]
        parts = [kept.low.view(torch.int16).numpy(), kept.watch._content, memory._known.watch._content]
    elif write == "file":
        memory.save(tmp_path / "memory")
        parts = [np.frombuffer((tmp_path / "memory").read_bytes(), np.uint8)]
    elif write == "pickle":
        file = io.BytesIO()
        torch.save(memory, file)
        parts = [np.frombuffer(file.getvalue(), np.uint8)]
    else:
        made = memory.state_dict() if write == "state_dict" else copy.deepcopy(memory).state._asdict()
        parts = [array.numpy() for array in made.values()]
    for part in parts:
        assert not any(key in part.tobytes() for key in held)
    there = memory.keys[other].numpy().tobytes()
    assert write == "low" or any(there in part.tobytes() for part in parts)


BUILT = []


class Nearest:
    """An index that finds the nearest by the keys that it was built of, and notes what these were."""

    def __init__(self, keys, slots, seed):
        self.keys, self.slots = keys.copy(), slots
        BUILT.append(set(slots.tolist()))

    def search(self, queries, count):
        return self.slots[np.argsort(-(queries @ self.keys.T), axis=1, kind="stable")[:, :count]]


@pytest.mark.parametrize("framework", ["torch", "numpy"])
def test_an_index_never_proposes_what_is_forgotten(framework):
    plan = LivePlan(smallest=8, most_fresh=2)
    index = LiveIndex(Nearest, background=False, plan=plan)
    memory, rows = filled(index=index)
    backend, state = memory.backend, memory.state
    if framework == "numpy":
        backend = raremem.get_backend("numpy", index=index)
        state, rows = backend.from_numpy(CONFIG, content(memory)), rows.numpy()
    backend.query(CONFIG, state, rows)
    assert index.ready
    state, _ = backend.forget(CONFIG, state, slots=[3, 8])
    assert not index.ready
    found = as_numpy(backend.query(CONFIG, state, rows).slots)
    assert index.ready
    assert not {3, 8} & set(found.ravel().tolist())
    assert not {3, 8} & BUILT[-1]


WAYS = {
    "slots": {"slots": np.array([2, -1, 11, 2], np.int32)},
    "no slots": {"slots": np.array([-1, -1], np.int32)},
    "mask": {"slots": np.arange(20) % 3 == 0},
    "values": {"values": np.array([3, 0, 9], np.int32)},
    "age": {"older_than": 0},
    "all of these": {"slots": np.array([0], np.int32), "values": np.array([2], np.int32), "older_than": 5},
}


@pytest.mark.parametrize("way", WAYS)
def test_jax_code_that_is_traced_forgets(way):
    jax = pytest.importorskip("jax")
    from raremem.adapters import jax as functional

    portable, named = content(filled()[0]), WAYS[way]
    older_than = named.get("older_than")

    def forget(state, arrays):
        return functional.forget(CONFIG, state, **arrays, older_than=older_than)

    arrays = {name: array for name, array in named.items() if name != "older_than"}
    state, report = jax.jit(forget)(functional.from_numpy(CONFIG, portable), arrays)
    expected, right = functional.forget(CONFIG, functional.from_numpy(CONFIG, portable), **named)
    same_state(functional.to_numpy(state), functional.to_numpy(expected))
    np.testing.assert_array_equal(report.forgotten, right.forgotten)
    oracle = raremem.get_backend("reference")
    same_state(
        functional.to_numpy(state), oracle.to_numpy(oracle.forget(CONFIG, oracle.from_numpy(CONFIG, portable), **named)[0])
    )


def test_pytorch_code_that_is_compiled_forgets():
    (memory, rows), (expected, _) = filled(), filled()
    slots, values = torch.tensor([2, -1, 11]), torch.tensor([3, 0, 9])

    @torch.compile(fullgraph=True)
    def forget(slots, values):
        return memory.forget(slots=slots, values=values, older_than=1)

    with torch.no_grad():
        report = forget(slots, values)
    right = expected.forget(slots=slots, values=values, older_than=1)
    assert torch.equal(report.forgotten, right.forgotten)
    for name, got, other in zip(memory.state._fields, memory.state, expected.state, strict=True):
        assert torch.equal(got, other), name
    assert torch.equal(memory(rows).slots, expected(rows).slots)


def test_flax_forgets():
    pytest.importorskip("flax")
    from raremem.adapters.flax import Memory as FlaxMemory

    memory = FlaxMemory(CONFIG)
    rows = np.eye(8, dtype=np.float32)
    memory.update(memory(rows, np.arange(8) // 2))
    assert (len(memory), memory.counts()) == (8, {0: 2, 1: 2, 2: 2, 3: 2})
    assert int(memory.forget(values=[1, 2]).count) == 4
    assert memory.counts() == {0: 2, 3: 2}
    memory.clear()
    assert len(memory) == 0
    assert bool(memory)


class Interrupted(BaseException):
    """What the handler of a signal raises."""


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_an_interrupted_call_has_forgotten_all_or_nothing(name):
    def handler(number, frame):
        raise Interrupted

    backend, config = raremem.get_backend(name), MemoryConfig(slots=400, key_dim=32, neighbors=4)
    rows = np.random.default_rng(0).normal(size=(400, 32)).astype(np.float32)
    whole, _ = backend.update(config, backend.init(config), rows, np.arange(400) % 7)
    before = backend.to_numpy(whole)
    expected = backend.to_numpy(backend.forget(config, backend.copy(whole), values=[2, 3])[0])
    start = time.perf_counter()
    for _ in range(5):
        backend.forget(config, backend.copy(whole), values=[2, 3])
    usual, interrupted = (time.perf_counter() - start) / 5, 0
    earlier = signal.signal(signal.SIGALRM, handler)
    try:
        for attempt in range(60):
            state = backend.copy(whole)
            try:
                signal.setitimer(signal.ITIMER_REAL, usual * (attempt % 20 + 1) / 20)
                backend.forget(config, state, values=[2, 3])
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                interrupted += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            now = backend.to_numpy(state)
            same_state(now, before if now["values"].tolist() == before["values"].tolist() else expected)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    assert interrupted > 3
    assert not guard._turns


def test_forgetting_waits_for_its_turn():
    memory, _ = filled()
    begun, go_on = threading.Event(), threading.Event()
    reader = threading.Thread(target=lambda: memory.backend.in_turn(memory.state, False, lambda: (begun.set(), go_on.wait(30))))
    reader.start()
    begun.wait(30)
    with pytest.raises(raremem.ConcurrencyError):
        memory.forget(values=1)
    assert len(memory) == 12
    threading.Timer(0.2, go_on.set).start()
    with raremem.waiting(timeout=30):
        memory.forget(values=1)
    reader.join()
    assert 1 not in memory.counts()


def forget_on_ranks(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.set_num_threads(1)
    alone = Memory(CONFIG)
    alone.fill(torch.load(f"{folder}/content", weights_only=False))
    rows = torch.load(f"{folder}/rows")
    alone.forget(slots=[1], values=[2])
    for kind in (Memory, ShardedMemory):
        memory = kind(CONFIG)
        memory.fill(torch.load(f"{folder}/content", weights_only=False))
        named = {"values": torch.tensor([2])} if rank else {"slots": [1]}
        report = memory.forget(**named) if kind is ShardedMemory else distributed.forget(memory, **named)
        assert int(report.count) == 4
        same_state(content(memory), content(alone))
        assert torch.equal(memory(rows).slots, alone(rows).slots)
        assert memory.counts() == alone.counts()
        with pytest.raises(raremem.ForgetError if rank else raremem.StateError, match="slots have 99"):
            distributed.forget(memory, slots=[99] if rank else [])
        assert int(distributed.forget(memory, slots=[]).count) == 0
        same_state(content(memory), content(alone))
        if kind is ShardedMemory:
            memory.clear()
            assert (len(memory), memory.keys.abs().sum()) == (0, 0)
    dist.destroy_process_group()


def test_ranks_forget_what_any_of_them_names(tmp_path):
    memory, rows = filled()
    torch.save(content(memory), tmp_path / "content")
    torch.save(rows, tmp_path / "rows")
    processes.spawn(forget_on_ranks, (str(tmp_path),), 2)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def follows(payload, state, rows):
    """Whether each filled slot, and no other, has the number of the row that its key is."""
    filled = [number is not None for number in payload]
    assert filled == state["filled"].tolist()
    np.testing.assert_allclose(state["keys"][filled], unit(rows[payload[filled].astype(int)]), rtol=0, atol=1e-6)


def test_what_a_user_keeps_for_each_slot_goes_where_the_slot_goes(tmp_path):
    """Through eviction, forgetting, files and other numbers of slots: the pattern of docs/fields.md."""
    backend, config = raremem.get_backend("numpy"), MemoryConfig(slots=10, key_dim=8, neighbors=2, age_noise=0, write="keep")
    rows = np.random.default_rng(0).normal(size=(48, 8)).astype(np.float32)
    numbers, state, payload = np.arange(48), backend.init(config), np.full(config.slots, None)
    for some in np.split(numbers, 12):
        state, report = backend.update(config, state, rows[some], some % 5)
        payload[report.slots[report.written]] = some[report.written]
        follows(payload, backend.to_numpy(state), rows)
    state, report = backend.forget(config, state, values=[1, 3])
    payload[report.forgotten] = None
    follows(payload, backend.to_numpy(state), rows)
    raremem.save(tmp_path / "memory", config, state)
    for slots in (4, 13):
        other, state, kept = backend.resize(*raremem.load(tmp_path / "memory"), slots)
        moved = np.where(kept >= 0, payload[kept], None)
        follows(moved, backend.to_numpy(state), rows)
        assert other.slots == len(moved) == slots
        module, expected = Memory(other), raremem.load(tmp_path / "memory", slots=slots)[1]
        module.fill(backend.to_numpy(state))
        same_state(content(module), backend.to_numpy(expected))


@pytest.mark.parametrize("batch_size", [None, 1, 5])
def test_a_module_stores_a_set_in_batches(batch_size):
    rows, targets = torch.randn(12, 3, generator=torch.Generator().manual_seed(2), requires_grad=True), torch.arange(12) // 3
    memory, expected = Memory(CONFIG, query_dim=3), Memory(CONFIG)
    projected = memory.projection(rows)
    report = memory.store(rows, targets, batch_size=batch_size)
    for some in torch.split(torch.arange(12), batch_size or 12):
        expected.update(expected(projected[some], targets[some]))
    same_state(content(memory), content(expected))
    assert report.slots.shape == (12,)
    assert torch.equal(memory.values[report.slots.long()], targets.int())
    assert len(memory) == (12 if batch_size is None else int((~report.hit).sum()))
