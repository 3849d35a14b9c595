"""Comparison of a backend's answers with the oracle's: to the bit where that is possible, else within `tolerance`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.backend import Backend
from raremem.config import MemoryConfig
from raremem.reference import tolerance
from raremem.reference.oracle import backend as oracle
from raremem.reference.strategies import Case
from raremem.state import Lookup, PortableState, UpdateReport

PORTABLE = ("keys", "values", "ages", "filled", "hits", "step")
DTYPES = {"keys": "float32", "values": "int32", "ages": "int32", "filled": "bool", "hits": "int32"}


def as_numpy(array: Any) -> NDArray[Any]:
    """An array of any framework as a NumPy array; bf16 becomes f32."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        return np.asarray(array.float() if "bfloat16" in str(array.dtype) else array)
    return np.asarray(array).astype(np.float32) if str(getattr(array, "dtype", "")) == "bfloat16" else np.asarray(array)


def same(name: str, got: Any, expected: Any) -> None:
    """Assert equal content; 0.0 equals -0.0, and dtypes may differ."""
    np.testing.assert_array_equal(as_numpy(got), as_numpy(expected), err_msg=name, strict=False)


def close(name: str, got: Any, expected: Any, bound: Any) -> None:
    """Assert equal shapes, and an absolute error of each entry of `bound` at most."""
    got, expected = as_numpy(got), as_numpy(expected)
    assert got.shape == expected.shape, f"{name}: shape {got.shape}, expected {expected.shape}"
    error = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    assert np.all(error <= bound), f"{name}: off by {error.max()}, bound {np.max(bound)}\n{got}\n{expected}"


def same_state(got: PortableState, expected: PortableState) -> None:
    """Assert that portable states are equal to the bit and have the documented dtypes."""
    for name in PORTABLE:
        same(name, got[name], expected[name])
    for name, dtype in DTYPES.items():
        assert got[name].dtype == dtype, f"{name} are {got[name].dtype}, expected {dtype}"
    assert type(got["step"]) is int, f"step is {got['step']!r}, expected an int"


def same_lookup(got: Lookup, expected: Lookup, config: MemoryConfig) -> None:
    """Assert lookups equal to the bit, but for results of exp and log, where two compiled programs may round differently."""
    for name in Lookup._fields:
        if name == "weights":
            close_weights(got.weights, expected.weights, config, exact=True)
        elif name == "loss" and expected.loss is not None and config.loss == "nll":
            close("loss", got.loss, expected.loss, tolerance.loss(config, exact=True))
        elif getattr(expected, name) is None:
            assert getattr(got, name) is None, name
        else:
            same(name, getattr(got, name), getattr(expected, name))


def close_weights(got: Any, expected: NDArray[np.float32], config: MemoryConfig, exact: bool) -> None:
    """Assert weights within `tolerance.weight`, a relative error, and 2**-126, the smallest normal f32."""
    relative = tolerance.weight(config.key_dim, config.k, config.softmax_temperature, exact)
    close("weights", got, expected, relative * expected + 2.0**-126)


def run_query(backend: Backend, case: Case, targets: bool = True) -> Lookup:
    """The backend's lookup of a case, as NumPy arrays."""
    state = backend.from_numpy(case.config, case.state)
    lookup = backend.query(case.config, state, case.queries, case.targets if targets else None, case.mask)
    return Lookup(*(None if field is None else as_numpy(field) for field in lookup))


def run_update(backend: Backend, case: Case, reuse: bool = False) -> tuple[PortableState, UpdateReport]:
    """The memory after the backend has written a case, and the report, as NumPy arrays; with `reuse` by a lookup."""
    state = backend.from_numpy(case.config, case.state)
    lookup = backend.query(case.config, state, case.queries, case.targets, case.mask) if reuse else None
    state, report = backend.update(case.config, state, case.queries, case.targets, case.mask, lookup)
    return backend.to_numpy(state), UpdateReport(*(as_numpy(field) for field in report))


def check_query(backend: Backend, case: Case) -> None:
    """Check rules 1, 2, 3 and 8 on an exact case."""
    same_lookup(run_query(backend, case), run_query(oracle, case), case.config)


def check_query_closely(backend: Backend, case: Case) -> None:
    """Check rules 1, 2 and 3 on arbitrary rows.

    Of two similarities closer than the tolerance either may come first, so slots are not compared with the oracle's. Each slot
    must have the similarity that is reported for it, similarities must be in order, and no slot left out may be better.
    """
    check_answer_closely(case.config, case.state, case.queries, case.targets, case.mask, run_query(backend, case))


def check_answer_closely(
    config: MemoryConfig, portable: PortableState, queries: Any, targets: Any, mask: Any, got: Lookup
) -> None:
    """`check_query_closely` for a lookup that was made."""
    got = Lookup(*(None if field is None else as_numpy(field) for field in got))
    wide = dataclasses.replace(config, neighbors=config.slots)
    state = oracle.from_numpy(config, portable)
    truth = oracle.query(wide, state, queries, targets, mask)
    bound = tolerance.similarity(config.key_dim)
    filled = int(portable["filled"].sum())
    for row in np.flatnonzero(truth.accepted):
        count = min(config.k, filled)
        exact = np.zeros(config.slots)
        exact[truth.slots[row, :filled]] = truth.similarities[row, :filled]
        slots, shown = got.slots[row], got.similarities[row]
        assert np.all(slots[count:] == -1), f"row {row}: {count} neighbors expected, slots {slots}"
        assert len(set(slots[:count])) == count, f"row {row}: a slot twice in {slots}"
        assert np.all(portable["filled"][slots[:count]]), f"row {row}: an empty slot in {slots}"
        same("values", got.values[row, :count], portable["values"][slots[:count]])
        close("similarities", shown[:count], exact[slots[:count]], bound)
        assert np.all(np.diff(shown[:count]) <= 0), f"row {row}: similarities not in order: {shown}"
        left_out = np.setdiff1d(np.flatnonzero(portable["filled"]), slots[:count])
        if count and left_out.size:
            assert exact[left_out].max() <= shown[count - 1] + 2 * bound, f"row {row}: a better slot was left out"
    narrow = oracle.query(config, state, queries, targets, mask)
    for name in ("found", "rejected", "accepted", "targets"):
        if getattr(narrow, name) is not None:
            same(name, getattr(got, name), getattr(narrow, name))
    close("queries", got.queries, narrow.queries, tolerance.unit_row(config.key_dim))
    if narrow.loss is not None:
        close("loss", got.loss, narrow.loss, tolerance.loss(config, exact=False))
    close_weights(got.weights, narrow.weights, config, exact=False)


def check_write_closely(
    config: MemoryConfig,
    before: PortableState,
    queries: NDArray[Any],
    expected: PortableState,
    right: UpdateReport,
    after: PortableState,
    report: UpdateReport,
) -> None:
    """Check rules 4 to 8 on arbitrary rows: keys within a derived bound, all else to the bit.

    The case must have a definite nearest neighbor: of two similarities closer than the tolerance either may be hit.
    """
    for name in UpdateReport._fields:
        same(name, getattr(report, name), getattr(right, name))
    bounds = np.where(np.isin(np.arange(config.slots), right.slots), tolerance.unit_row(config.key_dim), 0.0)
    for slot in merged(config, right):
        rows = queries[right.hit & (right.slots == slot)].astype(np.float64)
        norm = float(np.linalg.norm(before["keys"][slot] + (rows / np.linalg.norm(rows, axis=1, keepdims=True)).sum(axis=0)))
        bounds[slot] = tolerance.merged_key(config.key_dim, len(rows), norm)
    for name in PORTABLE[1:]:
        same(name, after[name], expected[name])
    close("keys", after["keys"], expected["keys"], bounds[:, None])


def check_update(backend: Backend, case: Case, reuse: bool = False) -> None:
    """Check rules 4 to 8 on an exact case. Only keys that a hit merged have a tolerance."""
    state, report = run_update(backend, case, reuse)
    before = oracle.from_numpy(case.config, case.state)
    after, expected = oracle.update(case.config, before, case.queries, case.targets, case.mask)
    for name in UpdateReport._fields:
        same(name, getattr(report, name), getattr(expected, name))
    portable = oracle.to_numpy(after)
    bound = merge_bounds(case, expected)
    for name in PORTABLE[1:]:
        same(name, state[name], portable[name])
    close("keys", state["keys"], portable["keys"], bound[:, None])


def merged(config: MemoryConfig, report: UpdateReport) -> set[int]:
    """The slots whose keys hits have moved: none where rows are kept."""
    return set(report.slots[report.hit].tolist()) if config.write == "merge" else set()


def merge_bounds(case: Case, report: UpdateReport) -> NDArray[np.float64]:
    """The tolerance [slots] of each key after an exact update: 0 where no hit was merged."""
    bounds = np.zeros(case.config.slots)
    for slot in merged(case.config, report):
        rows = case.queries[report.hit & (report.slots == slot)].astype(np.float64)
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        old = case.state["keys"][slot].astype(np.float64)
        norm = float(np.linalg.norm(old + units.sum(axis=0)))
        parallel = bool(np.all(units == old))
        bounds[slot] = 0 if parallel or norm < 2.0**-10 else tolerance.merged_key(len(old), len(rows), norm)
    return bounds
