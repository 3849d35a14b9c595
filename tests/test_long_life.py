"""A memory that is never reset: what must hold after any number of updates, step for step on two backends.

`python tests/test_long_life.py 1000000 numpy torch` goes on for a million.
"""

import resource
import sys

import numpy as np

import raremem

CONFIG = raremem.MemoryConfig(slots=64, key_dim=16, neighbors=4, age_noise=4, seed=3)
BATCH = 4
CHECKED_EVERY = 500
START = 2**32 - 2000
"""The step from which a life begins: its counter wraps on the way."""


def rows_at(step):
    """Rows near some of a hundred directions, which drift, with the direction as the target; some are not finite."""
    generator = np.random.default_rng(step)
    targets = generator.integers(0, 100, BATCH)
    centers = np.random.default_rng(7).normal(size=(100, 16))
    rows = centers[targets] + 1e-4 * step * np.ones(16) % 1 + 0.3 * generator.normal(size=(BATCH, 16))
    rows[generator.random(BATCH) < 0.01] = np.nan
    return rows.astype(np.float32), targets


def live(updates, names=("numpy", "torch")):
    """Update a memory on each backend, and look at both from time to time. Returns how far their keys were apart, at most."""
    backends = [raremem.get_backend(name, compiled=False) for name in names]
    portable = {**backends[0].to_numpy(backends[0].init(CONFIG)), "step": START}
    states = [backend.from_numpy(CONFIG, portable) for backend in backends]
    apart, filled, writes, sizes = 0.0, 0, 0, []
    for step in range(updates):
        rows, targets = rows_at(step)
        reports = []
        for place, backend in enumerate(backends):
            states[place], report = backend.update(CONFIG, states[place], rows, targets)
            reports.append(report)
        writes += bool(np.asarray(reports[0].written).any())
        assert np.array_equal(np.asarray(reports[0].slots), np.asarray(reports[1].slots)), f"step {step}"
        if (step + 1) % CHECKED_EVERY == 0:
            first, second = (backend.to_numpy(state) for backend, state in zip(backends, states, strict=True))
            apart = max(apart, float(np.abs(first["keys"] - second["keys"]).max()))
            for name in ("values", "ages", "filled", "hits", "step"):
                np.testing.assert_array_equal(first[name], second[name])
            norms = np.linalg.norm(first["keys"][first["filled"]].astype(np.float64), axis=1)
            assert np.abs(norms - 1).max() <= 1e-5
            assert first["step"] == (START + writes) % 2**32
            assert first["ages"].min() >= 0
            assert first["ages"].max() <= writes
            assert first["filled"].sum() >= filled
            filled = first["filled"].sum()
            sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert filled == CONFIG.slots
    assert sizes[-1] < 1.02 * sizes[len(sizes) // 4]
    return apart


def test_three_thousand_updates():
    """Merging is a mean of what came: it forgets an error of rounding as it forgets a row, so that backends stay together."""
    assert live(3000) < 1e-5


if __name__ == "__main__":
    print(f"{live(int(sys.argv[1]), sys.argv[2:] or ('numpy', 'torch')):.1e} apart")
