"""Slots to evict, chosen block by block in a large memory: the same as those chosen from all."""

import numpy as np
import pytest

import raremem
from raremem.rules.eviction import free_slots
from raremem.rules.plan import UpdatePlan


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("evict", ["oldest", "least_hit"])
@pytest.mark.parametrize("filled", [1.0, 0.999])
@pytest.mark.parametrize("chunk", [512, 2**15], ids=["fewer blocks in a chunk than rows", "more"])
def test_block_by_block(name, evict, filled, chunk):
    """With the oldest just hit, and one of the youngest, a last block that is not whole,
    and a counter that has wrapped."""
    slots, rows = 140_007, 16
    config = raremem.MemoryConfig(slots, key_dim=2, evict=evict)
    generator = np.random.default_rng(0)
    ages = generator.integers(0, 3000, slots)
    ages[[11, slots - 3, 12]] = 2**31 - np.array([1, 2, 3])
    oldest = np.argsort(-ages)
    there = generator.random(slots) < filled
    there[oldest[:100]] = True
    portable = {
        "keys": np.where(there[:, None], np.float32([1, 0]), np.float32(0)),
        "values": np.where(there, 7, -1),
        "ages": np.where(there, ages, 0),
        "filled": there,
        "hits": np.where(there, generator.integers(0, 2, slots), 0),
        "step": 100,
    }
    backend = raremem.get_backend(name)
    p, state = backend.table_for(), backend.from_numpy(config, portable)
    hit = np.arange(rows) % 2 == 0
    hits = np.concatenate([oldest[: rows - 2], oldest[-2:]]).astype(np.int32)
    taken = p.asarray(np.stack([hits, hits], axis=1), state.values)[:, 0]  # not contiguous, as in a lookup
    given = config, state, taken, p.asarray(hit, state.values)
    found = [p.to_numpy(array) for array in free_slots(p, *given, UpdatePlan(slots=chunk))]
    of_all = [p.to_numpy(array) for array in free_slots(p, *given, UpdatePlan(block=slots))]
    misses = rows - hit.sum()
    for array, expected in zip(found, of_all, strict=True):
        np.testing.assert_array_equal(array[:misses], expected[:misses])
    assert not set(found[0]) & set(hits[hit])
    assert found[2].all() == (filled == 1)
