"""Updates of more rows than are merged at a time, and of few among many that are masked."""

import tracemalloc

import numpy as np
import pytest

import raremem
from raremem.rules import write
from raremem.state import MAX_HITS

ROWS = 8192
CONFIG = raremem.MemoryConfig(64, key_dim=64, neighbors=1)
KEYS = np.eye(64, dtype=np.float32)


@pytest.fixture(params=["numpy", "torch", "jax"])
def backend(request):
    return raremem.get_backend(request.param)


def full(backend):
    """A memory with a value of its own in each slot."""
    return backend.update(CONFIG, backend.init(CONFIG), KEYS, np.arange(CONFIG.slots, dtype=np.int32))[0]


def test_the_same_key_for_all_hits_of_a_slot(backend):
    """Rows come to a slot from all parts of the batch: its key moves by their sum, and each counts.

    A sum of n rows of norm 1 is off by n units of its size at most, and so is the norm that divides it.
    """
    generator = np.random.default_rng(0)
    targets = generator.integers(0, CONFIG.slots, ROWS).astype(np.int32)
    aside = KEYS[(targets + 1) % CONFIG.slots] * generator.integers(0, 2, ROWS)[:, None]
    queries = 4 * KEYS[targets] + aside.astype(np.float32)
    state, report = backend.update(CONFIG, full(backend), queries, targets)
    after, count = backend.to_numpy(state), np.bincount(targets, minlength=CONFIG.slots)
    assert backend.primitives.to_numpy(report.hit).all()
    np.testing.assert_array_equal(after["hits"], np.minimum(count, MAX_HITS))
    sums = KEYS.astype(np.float64)
    np.add.at(sums, targets, queries / np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True))
    expected = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    np.testing.assert_allclose(after["keys"], expected, rtol=0, atol=2 * count.max() * 2**-24)


def test_no_matrix_of_all_rows_is_held():
    backend = raremem.get_backend("numpy")
    state = full(backend)
    targets = np.arange(ROWS, dtype=np.int32) % CONFIG.slots
    tracemalloc.start()
    backend.update(CONFIG, state, KEYS[targets], targets)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6 < ROWS * ROWS


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_what_is_masked_costs_nothing(name, monkeypatch):
    backend = raremem.get_backend(name)
    state = full(backend)
    merged, together = [], write._together
    monkeypatch.setattr(write, "_together", lambda p, unit, *whose: merged.append(len(unit)) or together(p, unit, *whose))
    targets = np.arange(ROWS, dtype=np.int32) % CONFIG.slots
    state, report = backend.update(CONFIG, state, KEYS[targets], targets, targets < 3)
    assert merged == [3 * ROWS // CONFIG.slots]
    np.testing.assert_array_equal(backend.primitives.to_numpy(report.written), targets < 3)
    np.testing.assert_array_equal(backend.primitives.to_numpy(report.slots), np.where(targets < 3, targets, -1))
