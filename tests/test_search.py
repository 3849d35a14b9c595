"""The exact search where shapes may depend on data: its answers, its proof, and every law with it on the smallest memories."""

import tracemalloc

import numpy as np
import pytest
import torch

import raremem
from raremem.adapters.numpy import NumpyBackend, NumpyPrimitives, NumpyShortlist
from raremem.adapters.torch import TorchBackend
from raremem.adapters.torch.primitives import EagerPrimitives
from raremem.adapters.torch.search import TorchSearch
from raremem.adapters.torch.shortlist import TorchShortlist
from raremem.reference.laws import LAWS, run
from raremem.reference.tolerance import gamma
from raremem.rules.plan import UpdatePlan
from raremem.search import shortlist
from raremem.search.coarse import CoarseKeys
from raremem.search.portable import PortableScan, ScanPlan
from raremem.search.shortlist import Cut, ShortlistPlan
from raremem.state import NO_SLOT, MemoryState

EAGER = ("numpy", "torch")


class AlwaysCoarse(TorchShortlist):
    """Compares in bf16 at first, whatever the processor and the batch."""

    def coarse_keys(self, p, state, batch):
        return CoarseKeys(self.low_keys.of(state), "bfloat16", 2.0**-8)


@pytest.fixture(params=EAGER)
def eager(request):
    return raremem.get_backend(request.param, compiled=False)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def crowded(generator, slots, dim):
    """Keys in twenty narrow clusters: thousands are as similar to a query as bf16 can tell."""
    centers = generator.normal(size=(20, dim))
    return unit(centers[generator.integers(0, 20, slots)] + 0.02 * generator.normal(size=(slots, dim)))


def spread(generator, slots, dim):
    return unit(generator.normal(size=(slots, dim)))


def answers(backend, keys, values, queries, targets, k):
    """What the search finds: slots [B, k], and [B] with the target."""
    arrays = (keys, values, 0 * values, 0 * values, np.array(1, np.int32), queries, targets)
    if backend.name == "torch":
        arrays = tuple(map(torch.from_numpy, arrays[:4])) + tuple(map(torch.tensor, arrays[4:]))
    found, right = backend.searcher.find(backend.table_for(), MemoryState(*arrays[:5]), *arrays[5:], k)
    return np.asarray(found), np.asarray(right)[:, 0]


def check(backend, keys, values, queries, targets, k):
    """Each slot found is, but for the rounding of two sums in f32, as similar as the one that ought to be there."""
    found, right = answers(backend, keys, values, queries, targets, k)
    similar = np.where(values >= 0, queries.astype(np.float64) @ keys.T.astype(np.float64), -np.inf)
    tolerance = 2 * gamma(keys.shape[1])
    best = -np.sort(-similar, axis=1)[:, :k]
    for row, slots in enumerate(found):
        assert len(set(slots)) == k
        assert np.abs(-np.sort(-similar[row, slots]) - best[row]).max() <= tolerance
        having = np.flatnonzero(values == targets[row])
        assert (right[row] != NO_SLOT) == (len(having) > 0)
        if len(having):
            assert values[right[row]] == targets[row]
            assert similar[row, having].max() - similar[row, right[row]] <= tolerance


@pytest.mark.parametrize("keys_of", [crowded, spread])
@pytest.mark.parametrize("slots", [9001, 20_001])
@pytest.mark.parametrize(("batch", "k"), [(3, 1), (100, 1), (100, 16), (600, 5)])
def test_the_nearest_are_found(eager, keys_of, slots, batch, k):
    generator = np.random.default_rng(batch + k)
    keys = keys_of(generator, slots, 24)
    values = generator.integers(0, 400, len(keys)).astype(np.int32)
    values[generator.integers(0, len(keys), 50)] = NO_SLOT
    values[8000:8500] = NO_SLOT
    queries = unit(keys[generator.integers(0, len(keys), batch)] + 0.02 * generator.normal(size=(batch, 24)))
    check(eager, keys, values, queries, generator.integers(0, 420, batch).astype(np.int32), k)


def test_without_its_bound_it_would_miss_some(monkeypatch):
    """The proof is needed: taken out, bf16 misses neighbors among many that are alike."""
    generator = np.random.default_rng(0)
    keys, values = crowded(generator, 20_001, 24), np.arange(20_001, dtype=np.int32)
    queries, targets = keys[:100] + np.float32(0), np.zeros(100, np.int32)
    backend = TorchBackend(searcher=AlwaysCoarse())
    check(backend, keys, values, queries, targets, 16)
    monkeypatch.setattr(shortlist, "error_of", lambda p, queries, low, roundoff: 0 * queries[:, 0] - 1)
    with pytest.raises(AssertionError):
        check(backend, keys, values, queries, targets, 16)


def worst_rounded(generator, count, dim):
    """Rows of norm 1, nearly, whose every number is rounded down by almost all that bf16 can, and their squares' sum too."""
    rows = np.repeat([2.0**-2, 2.0**-3, 2.0**-4, 2.0**-5, 2.0**-6], [15, 2, 3, 1, 3])[:dim]
    return np.tile(rows * (1 + 2.0**-8) * (1 - 2.0**-20), (count, 1)).astype(np.float32)


@pytest.mark.parametrize("width", [4, 32])
@pytest.mark.parametrize("rows_of", [spread, worst_rounded])
def test_no_slot_is_above_the_bound_of_its_block(rows_of, width):
    p, generator = EagerPrimitives(), np.random.default_rng(0)
    keys, queries = (torch.from_numpy(rows_of(generator, count, 24)) for count in (4096, 50))
    state = MemoryState(keys, *(torch.zeros(4096, dtype=torch.int32) for _ in range(3)), torch.tensor(1))
    coarse = AlwaysCoarse().scan(p, state, queries, width)
    exact = queries.double() @ keys.double().T
    for block in range(len(coarse.maxima)):
        slots = coarse.slots_of(p, torch.full((50, 1), block), len(keys)).long()
        above = exact.gather(1, slots).amax(1) - coarse.most_beyond(p, coarse.maxima[block].float()[:, None])
        assert (above <= 0).all()


@pytest.mark.parametrize("slots", [12_000, 20_000])
@pytest.mark.parametrize("batch", [1, 700])
def test_equal_keys_go_to_the_lowest_slot(eager, slots, batch):
    keys = np.tile(np.eye(4, dtype=np.float32), (slots // 4, 1))
    values = np.arange(slots, dtype=np.int32) % 7
    queries = np.tile(np.eye(4, dtype=np.float32)[2:3], (batch, 1))
    found, right = answers(eager, keys, values, queries, np.full(batch, 3, np.int32), 5)
    assert (found == [2, 6, 10, 14, 18]).all()
    assert (right == 10).all()


@pytest.mark.parametrize("name", EAGER)
@pytest.mark.parametrize(("count", "k"), [(1000, 3), (1003, 3), (1003, 60), (50, 20), (4, 4)])
def test_the_largest_of_many_columns(name, count, k):
    """Each once, and with their values; a third of them equal, and the last among the largest."""
    scores = np.random.default_rng(0).integers(0, 2 * count // 3, (20, count)).astype(np.float32)
    scores[:, -1] = count
    given = torch.from_numpy(scores) if name == "torch" else scores
    search = TorchShortlist() if name == "torch" else NumpyShortlist()
    columns = np.asarray(search.largest_of_columns(raremem.get_backend(name).table_for(), given.T, k))
    assert all(len(set(row)) == k for row in columns)
    found = np.sort(np.take_along_axis(scores, columns, axis=1), axis=1)
    np.testing.assert_array_equal(found, np.sort(scores, axis=1)[:, -k:])


@pytest.mark.parametrize("kind", ["f32", "zeros", "i32"])
@pytest.mark.parametrize(("rows", "count", "k"), [(1, 9001, 16), (20, 1003, 3), (7, 5000, 256), (2500, 4, 2), (600, 4, 4)])
def test_the_best_of_wide_rows_are_in_the_order_of_their_columns(rows, count, k, kind):
    """Whole numbers down to -2**31, zeros of both signs, and f32, most of them equal to others."""
    numbers = np.random.default_rng(count).integers(0, count // 3 + 2, (rows, count))
    numbers[:, -1] = count
    floats = (numbers - count // 6).astype(np.float32)
    scores = {"f32": floats, "zeros": floats * np.float32(0), "i32": (numbers - 2**31).astype(np.int32)}[kind]
    for given in (scores, np.asfortranarray(scores)):
        best, columns = NumpyPrimitives().top_k(given, k)
        expected = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(columns, expected)
        np.testing.assert_array_equal(best, np.take_along_axis(scores, expected, axis=1))
        assert (best.dtype, columns.dtype) == (scores.dtype, np.int32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_maxima_of_blocks_are_never_below(dtype):
    """Of bf16 they are 0 where all of a block is below."""
    p = EagerPrimitives()
    scores = p.cast(torch.randn(64, 33, generator=torch.Generator().manual_seed(0)) - 1, dtype)
    scores[:3] = -0.0
    for width in (1, 2, 8, 64):
        expected = torch.stack([scores[start :: 64 // width].amax(0) for start in range(64 // width)])
        maxima = TorchShortlist().block_maxima(p, scores, width)
        assert maxima.dtype == scores.dtype
        assert torch.equal(maxima, expected.clamp(min=0) if dtype == "bfloat16" else expected)


class Short(ShortlistPlan):
    """Blocks of two slots, few of them scored at first."""

    def cut(self, slots, k, *sizes):
        return Cut(min(2, slots), k // 2 + 1, 7) if slots > 1 else Cut(1, k + 1, 7)


OF_LARGE_MEMORIES = "far_slots_are_written", "large_memory_agrees", "slots_far_apart_agree"


def short_of(name, large):
    """All in bf16 at first on torch; similarities taken from those with all keys; slots to evict chosen block by block, and
    hits merged three rows at a time. Two slots are scanned at a time, and the priorities of five worked out; of a large memory,
    where this took 130,000 turns for every seven rows, and 52,000 for an update, more."""
    shortlist, plan = Short(share=0.01, scores=0), UpdatePlan(rows=3, slots=5, block=1)
    if large:
        shortlist, plan = Short(scores=2**14), UpdatePlan(rows=3, slots=1001, block=1)
    table = NumpyPrimitives() if name == "numpy" else EagerPrimitives()
    table.always_gathered = 0
    if name == "numpy":
        return NumpyBackend(table, NumpyShortlist(shortlist), plan=plan)
    backend = TorchBackend(searcher=TorchSearch(AlwaysCoarse(shortlist)), plan=plan)
    backend.eager = table
    return backend


@pytest.mark.parametrize("name", EAGER)
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_every_law_holds_with_short_lists_of_the_smallest_memories(law, name):
    backend = short_of(name, law.name in OF_LARGE_MEMORIES)
    if not law.runs_on(backend):
        pytest.skip(f"{name} declares no {law.needs}")
    run(law, backend, 20)


def test_a_search_takes_less_than_64_mb():
    """Of NumPy's memory, which says what it has given out: what is kept of the blocks (32 MB), and what is gathered of them."""
    generator = np.random.default_rng(0)
    config = raremem.MemoryConfig(slots=2**17, key_dim=64, neighbors=16)
    backend = raremem.get_backend("numpy")
    state = backend.init(config)._replace(keys=spread(generator, 2**17, 64), values=np.zeros(2**17, np.int32))
    queries = spread(generator, 256, 64)
    tracemalloc.start()
    backend.query(config, state, queries)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64e6


@pytest.mark.parametrize("held", [1, 100, 2**21])
def test_a_scan_holds_at_least_one_row(held):
    keys, queries = spread(np.random.default_rng(0), 300, 8), spread(np.random.default_rng(1), 5, 8)
    state = MemoryState(keys, *(np.zeros(300, np.int32),) * 3, np.array(1, np.int32))
    found = PortableScan(ScanPlan(held=held, whole=64, chunk=64)).find(NumpyPrimitives(), state, queries, None, 1)
    np.testing.assert_array_equal(found.slots[:, 0], (queries @ keys.T).argmax(1))


def test_backends_by_their_classes_search_as_those_by_their_names():
    assert type(NumpyBackend().searcher) is type(raremem.get_backend("numpy").searcher)
    assert type(TorchBackend().searcher) is type(raremem.get_backend("torch").searcher)
