"""The keys that PyTorch keeps in bf16 beside a memory: kept when it pays, never behind the keys, and gone with them."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch

import raremem
from raremem.adapters.torch import Memory, TorchBackend, functional, low_keys
from raremem.adapters.torch.search import TorchSearch
from raremem.adapters.torch.shortlist import SHORTLIST, TorchShortlist
from raremem.rules.write import update
from raremem.search.live import LiveIndex, LivePlan
from raremem.search.shortlist import ShortlistPlan
from raremem.state import NO_SLOT

CONFIG = raremem.MemoryConfig(slots=20_011, key_dim=16, neighbors=1)
ROWS = 64
"""So many that they are compared in low precision at first."""
DECOY = CONFIG.slots - 1


@pytest.fixture(autouse=True)
def has_bf16(monkeypatch):
    """The same on a processor without instructions for it, only slower."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


@pytest.fixture
def memory():
    """Full of keys that are like no row of `rows`, but for one that is half like all of them, used last."""
    memory = Memory(CONFIG)
    memory.keys[:, 0] = -1
    memory.keys[DECOY] = 0.25
    memory.values[:], memory.hits[:], memory.step[...] = 0, 1, 1000
    memory.last_used[DECOY] = 1000
    return memory


def rows(axis):
    """Unit rows along one axis."""
    return torch.eye(16)[axis].repeat(ROWS, 1)


def kept(memory):
    """What is kept in bf16."""
    found = memory.backend.searcher.eager.low_keys.kept.get(memory.keys)
    return None if found is None else found.low


def searching(memory, **sizes):
    """Let it search by another plan."""
    memory.backend = TorchBackend(searcher=TorchSearch(TorchShortlist(ShortlistPlan(**sizes))))


def first_slot(memory, axis):
    """The nearest slot to that axis; all rows have the same."""
    slots = memory(rows(axis)).slots[:, 0]
    assert (slots == slots[0]).all()
    return int(slots[0])


def ask_twice(memory):
    """So that its keys are kept."""
    first_slot(memory, 1), first_slot(memory, 1)


def test_keys_are_kept_from_the_second_search_on(memory):
    for low in (None, memory.keys.bfloat16()):
        assert first_slot(memory, 1) == DECOY
        assert kept(memory) is None if low is None else torch.equal(kept(memory), low)


def test_few_rows_are_compared_with_what_is_kept(memory, monkeypatch):
    searching(memory, scores=0)
    seen = []
    inner = memory.backend.eager.inner
    monkeypatch.setattr(
        memory.backend.eager, "inner", lambda left, right: seen.append(left.dtype) or inner(left, right), raising=False
    )
    for dtype in (torch.float32, torch.bfloat16):
        memory(rows(1)[:2])
        assert seen[0] == dtype
        seen.clear()


def test_batches_of_many_sizes_are_compared_as_batches_of_few(memory, monkeypatch):
    """For each new size of a product in bf16 oneDNN makes a program first."""
    searching(memory, scores=2**18)
    sizes = set()
    inner = memory.backend.eager.inner

    def noted(left, right):
        sizes.add((left.dtype, len(left), len(right)))
        return inner(left, right)

    memory.keys.copy_(torch.nn.functional.normalize(torch.randn(memory.keys.shape, generator=torch.Generator().manual_seed(0))))
    queries = torch.nn.functional.normalize(torch.randn(128, 16, generator=torch.Generator().manual_seed(1)))
    expected = (queries @ memory.keys.T).argmax(1).tolist()
    monkeypatch.setattr(memory.backend.eager, "inner", noted, raising=False)
    for batch in range(65, 129, 7):
        assert memory(queries[:batch]).slots[:, 0].tolist() == expected[:batch]
    assert len([size for size in sizes if size[0] == torch.bfloat16]) == 2, sizes  # all chunks but the last, and the last


def test_what_is_written_is_found_at_once(memory):
    """In every step of a stream, hits, misses and masked rows; all the time the same keys are kept that there are."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        queries, targets = torch.randn(ROWS, 16, generator=generator), torch.randint(1, 9, (ROWS,), generator=generator)
        memory.update(memory(queries, targets, torch.rand(ROWS, generator=generator) < 0.7))
        out = memory(torch.cat([queries, rows(1)]))
        expected = (out.queries @ memory.keys.T).amax(1)
        np.testing.assert_allclose(out.similarities[:, 0], expected, rtol=0, atol=1e-6)
    assert torch.equal(kept(memory), memory.keys.bfloat16())


def written_by_an_update(memory):
    memory.update(memory(rows(1)[:1], torch.tensor([5])))


def written_by_the_functions(memory):
    memory.backend.update(CONFIG, memory.state, rows(1)[:1], torch.tensor([5]))


def written_without_numpy(memory):
    queries, targets = rows(1)[:1], torch.tensor([5])
    found = memory(queries, targets)
    with torch.no_grad():
        state, _ = update(memory.backend.primitives, CONFIG, memory.state, found, targets, torch.tensor([True]))
    memory.step.copy_(state.step)


def written_in_place(memory):
    memory.keys[7] = torch.eye(16)[1]


def written_behind_the_count_of_writes(memory):
    memory.keys.data[7] = torch.eye(16)[1]
    memory.step += 1


def written_through_numpy_and_said_so(memory):
    memory.keys.numpy()[7] = np.eye(16)[1]
    torch.autograd.graph.increment_version(memory.keys)


def loaded(memory):
    state = {name: array.clone() for name, array in memory.state_dict().items()}
    state["keys"][7] = torch.eye(16)[1]
    memory.load_state_dict(state)


def all_keys(memory):
    """What pointed away from axis 0 points along axis 1."""
    return -memory.keys.roll(1, dims=1)


def all_written_through_data(memory):
    memory.keys.data.copy_(all_keys(memory))


def all_written_through_numpy(memory):
    memory.keys.numpy()[:] = all_keys(memory).numpy()


def averaged_without_a_count(memory):
    """As an average of weights does, over `.data`, which was seen to be the usual way."""
    memory.keys.data.mul_(0.5).add_(all_keys(memory), alpha=0.5)
    memory.keys.data.div_(memory.keys.data.norm(dim=1, keepdim=True))
    memory.keys.data[7] = torch.eye(16)[1]


def taken_back_to_another_memory(memory):
    """Rows of the last update, as DistributedDataParallel writes another rank's buffers over them."""
    memory.update(memory(rows(3)[:1], torch.tensor([5])))
    memory.keys.data[int((memory.last_used == memory.step).nonzero()[0])] = torch.eye(16)[1]


@pytest.mark.parametrize(
    "write",
    [
        all_written_through_data,
        all_written_through_numpy,
        averaged_without_a_count,
        taken_back_to_another_memory,
        written_by_an_update,
        written_by_the_functions,
        written_without_numpy,
        written_in_place,
        written_behind_the_count_of_writes,
        written_through_numpy_and_said_so,
        loaded,
    ],
)
@pytest.mark.parametrize("asked", [0, 1, 2])
def test_whoever_writes_it_is_found(memory, write, asked):
    for _ in range(asked):
        assert first_slot(memory, 1) == DECOY
    write(memory)
    for _ in range(3):
        slot = first_slot(memory, 1)
        assert slot != DECOY
        assert memory.keys[slot] @ torch.eye(16)[1] == (memory.keys @ torch.eye(16)[1]).max()


def test_unless_an_update_says_what_it_wrote(memory, monkeypatch):
    """The tests above can fail: so is a write missed."""
    monkeypatch.setattr(low_keys.LowKeys, "after_update", lambda self, state, slots, kept: self.kept.update({state.keys: kept}))
    monkeypatch.setattr(low_keys.Watch, "holds", lambda *_: True)
    ask_twice(memory)
    written_by_an_update(memory)
    assert first_slot(memory, 1) == DECOY


def test_a_write_between_search_and_update_is_not_taken_for_ours(memory):
    ask_twice(memory)
    out = memory(rows(2)[:1], torch.tensor([5]))
    written_in_place(memory)
    memory.update(out)
    assert first_slot(memory, 1) == 7


def test_an_update_that_fails_leaves_nothing_behind_the_keys(memory, monkeypatch):
    ask_twice(memory)
    out = memory(rows(2)[:1], torch.tensor([5]))

    def fail(p, config, state, *_):
        state.keys[7] = np.eye(16)[1]
        raise KeyboardInterrupt

    monkeypatch.setattr(functional, "_update_quietly", fail)
    with pytest.raises(KeyboardInterrupt):
        memory.update(out)
    assert first_slot(memory, 1) == 7


def test_a_memory_that_is_not_full(memory):
    """Its filled part is searched, which is a view of all."""
    memory.values[17_000:] = NO_SLOT
    memory.keys[16_999], memory.values[16_999] = memory.keys[DECOY], 0
    assert [first_slot(memory, 1) for _ in range(3)] == [16_999] * 3
    assert kept(memory).shape == memory.keys.shape
    written_by_an_update(memory)
    assert first_slot(memory, 1) >= 17_000


def test_a_view_that_is_not_the_first_slots_is_converted_each_time(memory):
    part = memory.state._replace(keys=memory.keys[::2], **{n: getattr(memory, n)[::2] for n in ("values", "last_used", "hits")})
    p = memory.backend.eager
    for _ in range(3):
        slots, _ = SHORTLIST.find(p, part, rows(1), None, 1)
        assert (slots == DECOY // 2).all()


def test_inference_mode_is_no_matter(memory):
    with torch.inference_mode():
        ask_twice(memory)
    written_by_an_update(memory)
    assert first_slot(memory, 1) != DECOY
    with torch.inference_mode():
        born_in_it = copy.deepcopy(memory)
        assert {first_slot(born_in_it, 1) for _ in range(3)} == {first_slot(memory, 1)}


def test_what_is_kept_goes_with_the_keys():
    memory = Memory(CONFIG)
    memory.keys[:, 0], memory.values[:] = 1, 0
    memory(rows(1)), memory(rows(1))
    low = weakref.ref(kept(memory))
    assert low() is not None
    assert kept(copy.deepcopy(memory)) is None
    del memory
    gc.collect()
    assert low() is None


def test_keys_are_kept_while_no_index_is_ready():
    memory = Memory(CONFIG, index=LiveIndex(None, plan=LivePlan(smallest=2**30)))
    memory.keys[:, 0], memory.values[:] = 1, 0
    for _ in range(2):
        memory.update(memory(rows(1), torch.arange(ROWS)))
    low = memory.backend.searcher.exact.eager.low_keys.kept[memory.keys].low
    assert torch.equal(low, memory.keys.bfloat16())


def test_a_copy_of_a_module_keeps_its_keys_where_all_do(memory):
    copied = pickle.loads(pickle.dumps(memory))
    ask_twice(copied)
    assert kept(copied) is SHORTLIST.low_keys.kept[copied.keys].low
    assert b"raremem.adapters.torch.search" not in pickle.dumps(memory)
