"""Approximate search that follows a memory: its answers, what it may lose, and every law with it on the smallest memories."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch

import raremem
from raremem.adapters.torch import Memory
from raremem.reference.laws import LAWS, run
from raremem.search.live import LiveIndex, LivePlan

INDEXES = ("annoy", "faiss", "hnswlib")
NOTHING_SEARCHED = (
    "empty_memory_finds_nothing",
    "misses_beyond_the_slots_are_dropped",
    "strict_names_the_rows",
    "bad_input_changes_nothing",
    "slots_far_apart_agree",
    "configs_are_checked",
    "states_are_checked",
    "files_are_whole_or_refused",
    "what_cannot_be_forgotten_is_refused",
    "a_set_is_checked_whole",
    "a_memory_in_other_slots",
)
"""Laws in which no filled memory is searched, or for more neighbors than an index is asked for."""
CONFIG = raremem.MemoryConfig(slots=3000, key_dim=16, neighbors=10)


SMALL = LivePlan(smallest=1000, most_fresh=100)
"""An index for a thousand slots, and no more than a hundred searched beside it."""


class Smallest(LivePlan):
    """An index for any memory, that is asked for all slots of a small one."""

    def proposals(self, k):
        return 512


def live(build, plan=SMALL, background=False, **options):
    """A live index by a name, or by what builds one."""
    build = raremem.get_index(build).build if isinstance(build, str) else build
    return LiveIndex(build, background, plan=plan, **options)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(generator, count, dim=16, centers=200):
    return unit(
        generator.normal(size=(centers, dim))[generator.integers(0, centers, count)] + 0.1 * generator.normal(size=(count, dim))
    )


def indexed(name, **options):
    return raremem.get_backend("numpy", index=live(name, **options))


def filled(backend, config=CONFIG):
    """A full memory, each key with a value of its own, and its keys."""
    keys = clustered(np.random.default_rng(0), config.slots, config.key_dim)
    state = backend.from_numpy(
        config,
        {
            "keys": keys,
            "values": np.arange(config.slots, dtype=np.int32),
            "ages": np.arange(config.slots, dtype=np.int32),
            "filled": np.ones(config.slots, np.bool_),
            "step": config.slots,
        },
    )
    return state, keys


def stream(backend, steps, batch=32):
    """A full memory, and batches of new keys written to it; each is asked for at once. Yields the lookups."""
    generator = np.random.default_rng(1)
    state, _ = filled(backend)
    for step in range(steps):
        rows = unit(generator.normal(size=(batch, CONFIG.key_dim)))
        targets = np.arange(batch, dtype=np.int32) + 10_000 + step * batch
        state, _ = backend.update(CONFIG, state, rows, targets)
        yield backend.query(CONFIG, state, rows, targets), targets


def check_newest(backend):
    for found, targets in stream(backend, 60):
        np.testing.assert_array_equal(found.values[:, 0], targets)


class Everything:
    """An index that proposes what it was built of."""

    def __init__(self, keys, slots, seed):
        self.slots = slots

    def search(self, queries, count):
        return np.tile(np.pad(self.slots, (0, max(0, count - len(self.slots))), constant_values=-1), (len(queries), 1))


class Growing(Everything):
    """The same; what is added comes again beside it."""

    def add(self, keys, slots):
        self.slots = np.concatenate([self.slots, slots])


class Blind(Everything):
    """An index that proposes the same slots whatever it is asked; it takes more in, and finds none of it."""

    def search(self, queries, count):
        return np.tile(self.slots[:count], (len(queries), 1))

    def add(self, keys, slots):
        pass


class Failing(Blind):
    """The same, and as long as it is full it takes nothing in."""

    full = True

    def add(self, keys, slots):
        if self.full:
            raise RuntimeError("no more")


@pytest.mark.parametrize("build", [Everything, Growing, *INDEXES], ids=lambda build: getattr(build, "__name__", build))
@pytest.mark.parametrize("law", [law for law in LAWS.values() if law.needs is None], ids=lambda law: law.name)
def test_every_law_holds_with_an_index_of_the_smallest_memories(law, build):
    if (law.costly or law.late) and build in INDEXES:
        build = Growing  # among thousands of equal keys no approximate index finds those of the lowest slots
    index = live(build, Smallest(smallest=1, most_fresh=2))
    sizes = []
    make, index.build = index.build, lambda keys, slots, seed: (sizes.append(len(slots)), make(keys, slots, seed))[1]
    run(law, raremem.get_backend("numpy", index=index), 50 if law.name == "a_memory_lives_and_forgets" else 10)
    assert sizes or law.name in NOTHING_SEARCHED


@pytest.mark.parametrize("law", [law for law in LAWS.values() if law.needs == "gradients"], ids=lambda law: law.name)
def test_gradients_go_through_what_an_index_finds(law):
    run(law, raremem.get_backend("torch", index=live(Everything, Smallest(smallest=1))), 10)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("name", INDEXES)
def test_what_was_just_written_is_found(name, background):
    check_newest(indexed(name, background=background))


def test_what_was_just_written_is_found_whatever_the_index_finds():
    backend = raremem.get_backend("numpy", index=live(Blind))
    check_newest(backend)
    assert backend.index.ready


def test_an_index_that_takes_nothing_more_in_raises_and_loses_nothing(monkeypatch):
    backend = raremem.get_backend("numpy", index=live(Failing))
    state, keys = filled(backend)
    backend.query(CONFIG, state, keys[:1])
    rows = unit(np.random.default_rng(2).normal(size=(200, CONFIG.key_dim)))
    targets = np.arange(200, dtype=np.int32) + 10_000
    for part in (slice(100), slice(100, 200)):
        state, _ = backend.update(CONFIG, state, rows[part], targets[part], lookup=backend.query(CONFIG, state, rows[part]))
    before = backend.to_numpy(state)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no more"):
            backend.query(CONFIG, state, rows)
    np.testing.assert_equal(backend.to_numpy(state), before)
    monkeypatch.setattr(Failing, "full", False)
    np.testing.assert_array_equal(backend.query(CONFIG, state, rows[100:]).values[:, 0], targets[100:])


def test_that_check_can_fail(monkeypatch):
    def note(self, followed, stamp, slots):
        self._watch.follow(self._keys, stamp, slots[:0])

    monkeypatch.setattr(LiveIndex, "note", note)
    with pytest.raises(AssertionError):
        check_newest(indexed("hnswlib"))


@pytest.mark.parametrize("name", INDEXES)
def test_most_neighbors_are_found_and_similarities_are_true(name):
    backend, exact = indexed(name), raremem.get_backend("numpy")
    state, keys = filled(backend)
    queries = unit(keys[::10] + 0.02)
    found, truth = (some.query(CONFIG, state, queries) for some in (backend, exact))
    assert backend.index.ready
    assert (found.slots[:, 0] == truth.slots[:, 0]).mean() >= 0.99
    shared = [len(set(a) & set(b)) / len(b) for a, b in zip(found.slots, truth.slots, strict=True)]
    assert np.mean(shared) >= 0.95
    np.testing.assert_allclose(found.similarities, np.einsum("bd,bkd->bk", queries, keys[found.slots]), atol=1e-6)


@pytest.mark.parametrize("name", INDEXES)
def test_the_same_calls_give_the_same_answers(name):
    first, second = ([found.slots for found, _ in stream(indexed(name, seed=3), 30)] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("proposed", [-1, 10**6, -(2**31), 7])
def test_an_index_that_proposes_nonsense_loses_nothing(proposed):
    class Nonsense(Everything):
        def search(self, queries, count):
            return np.full((len(queries), count), proposed, np.int32)

    backend, exact = raremem.get_backend("numpy", index=live(Nonsense)), raremem.get_backend("numpy")
    state, keys = filled(backend)
    targets = np.arange(40, dtype=np.int32)
    found, truth = (some.query(CONFIG, state, keys[:40], targets) for some in (backend, exact))
    for got, expected in zip(found, truth, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_an_index_follows_the_state_it_is_given():
    backend = indexed("hnswlib")
    state, keys = filled(backend)
    backend.query(CONFIG, state, keys[:1])
    other = backend.copy(state)
    other, _ = backend.update(CONFIG, other, -keys[:5], np.arange(5) + 5000)
    assert (backend.query(CONFIG, other, -keys[:5]).values[:, 0] == np.arange(5) + 5000).all()
    state, _ = raremem.get_backend("numpy").update(CONFIG, state, -keys[5:9], np.arange(4) + 6000)
    assert (backend.query(CONFIG, state, -keys[5:9]).values[:, 0] == np.arange(4) + 6000).all()


def test_queries_go_on_while_an_index_is_built():
    may_build = threading.Event()

    class Slow(Everything):
        def __init__(self, keys, slots, seed):
            assert may_build.wait(30)
            super().__init__(keys, slots, seed)

    index = live(Slow, background=True)
    backend = raremem.get_backend("numpy", index=index)
    state, keys = filled(backend)
    assert (backend.query(CONFIG, state, keys[:9]).values[:, 0] == np.arange(9)).all()
    state, _ = backend.update(CONFIG, state, -keys[:9], np.arange(9) + 5000)
    assert not index.ready
    may_build.set()
    index._building.result(30)
    assert (backend.query(CONFIG, state, -keys[:9]).values[:, 0] == np.arange(9) + 5000).all()
    assert index.ready


def test_an_index_that_cannot_be_built_says_so():
    class Broken(Everything):
        def __init__(self, keys, slots, seed):
            raise MemoryError("no room for the index")

    backend = raremem.get_backend("numpy", index=live(Broken))
    state, keys = filled(backend)
    with pytest.raises(MemoryError, match="no room"):
        backend.query(CONFIG, state, keys[:1])


@pytest.mark.parametrize("name", INDEXES)
def test_a_module_with_an_index_is_copied_saved_and_loaded(name):
    memory = Memory(CONFIG, index=live(name))
    rows = torch.from_numpy(clustered(np.random.default_rng(0), 2000))
    targets = torch.arange(2000)
    memory.update(memory(rows, targets))
    assert (memory(rows).values[:, 0] == targets).float().mean() > 0.99
    assert memory.index.ready
    for other in (copy.deepcopy(memory), pickle.loads(pickle.dumps(memory))):
        assert not other.index.ready
        assert (other(rows).values[:, 0] == targets).float().mean() > 0.99
        other.load_state_dict(Memory(CONFIG).state_dict())
        assert not other(rows).found.any()
    assert memory.state_dict().keys() == Memory(CONFIG).state_dict().keys()
    queries = rows[:8].clone().requires_grad_()
    memory(queries, targets[1:9]).loss.sum().backward()
    assert queries.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "numpy", "index": "balltree"}, "no index 'balltree'; expected one of annoy, faiss, hnswlib"),
        ({"name": "jax", "index": "annoy"}, "backend 'jax' .* takes no index; expected 'numpy' or 'torch'"),
        ({"name": "torch", "index": "annoy", "compiled": True}, r"'torch' \(compiled\) takes no index"),
        ({"name": "reference", "index": "annoy"}, "'reference' takes no index"),
    ],
)
def test_where_there_is_no_index(options, message):
    with pytest.raises(raremem.UnknownBackendError, match=message):
        raremem.get_backend(options.pop("name"), **options)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(raremem.registry.INDEXES, "hnswlib", "no_such_package")
    with pytest.raises(raremem.MissingPackageError, match=r"pip install 'raremem\[hnswlib\]'"):
        raremem.get_index("hnswlib")


def test_an_index_in_compiled_code_is_an_error():
    memory = Memory(CONFIG, index="hnswlib")
    with pytest.raises(Exception, match="Leave out index="):
        torch.compile(memory, fullgraph=True)(torch.ones(2, 16))


def test_a_build_of_annoy_that_finds_one_neighbor_is_refused(monkeypatch):
    from raremem.adapters.indexes import annoy

    class One:
        def get_nns_by_vector(self, *arguments):
            return [0]

    monkeypatch.setattr(annoy, "_trees", lambda *arguments: One())
    annoy._check_this_build.cache_clear()
    with pytest.raises(raremem.MissingPackageError, match="finds 1 of 8 neighbors"):
        annoy._check_this_build()
    annoy._check_this_build.cache_clear()


def turned_round(memory):
    """Keys in the opposite order, so that the index would propose none that is right."""
    return memory.keys.flip(0)


@pytest.mark.parametrize(
    "write",
    [
        lambda memory: memory.keys.copy_(turned_round(memory)),
        lambda memory: memory.keys.data.copy_(turned_round(memory)),
        lambda memory: memory.keys.numpy().__setitem__(..., turned_round(memory).numpy()),
        lambda memory: memory.load_state_dict({**memory.state_dict(), "keys": turned_round(memory)}),
    ],
    ids=["copy_", "data", "numpy", "load_state_dict"],
)
def test_an_index_begins_anew_whatever_has_written_to_the_keys(write):
    exact = raremem.get_backend("numpy")
    state, keys = filled(exact)
    memory = Memory(CONFIG, index=live("hnswlib"))
    for name, array in zip(state._fields, state, strict=True):
        getattr(memory, name).copy_(torch.as_tensor(np.array(array)))
    memory(torch.from_numpy(keys[:10]))
    assert memory.index.ready
    write(memory)
    found = memory(torch.from_numpy(keys[::10]))
    assert (found.values[:, 0].numpy() == CONFIG.slots - 1 - np.arange(CONFIG.slots)[::10]).mean() > 0.95


def test_a_backend_with_an_index_is_pickled():
    backend = pickle.loads(pickle.dumps(raremem.get_backend("numpy", index=live(Everything))))
    check_newest(backend)
