"""Laws of memories that are searched in several chunks, of states in other forms, and of bad input."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import raremem
from raremem.backend import Backend
from raremem.config import MemoryConfig
from raremem.reference.comparison import check_query, check_update, run_query, run_update, same, same_lookup, same_state
from raremem.reference.laws.registry import law
from raremem.reference.oracle import backend as oracle
from raremem.reference.rules import noise
from raremem.reference.strategies import Case, Size, cases, direction
from raremem.state import NO_SLOT, Lookup

LARGE = Size(MemoryConfig(20_003, 4, neighbors=5, margin=0.125, softmax_temperature=4.0), 3)
"""Larger than one chunk of a scan, and no multiple of a block. A short list may do for 5 neighbors, and not for 1,000."""
SPARSE = Size(MemoryConfig(1600, 4, neighbors=1500, margin=0.125, softmax_temperature=4.0), 4)
WHOLE, CHUNK = 2**17, 2**14
"""Slots that a portable scan takes at once, and in a chunk."""
FAR = WHOLE + 9001
"""Slots over which those of `SPARSE` are spread: too many for one chunk, and too few for a short list of so many neighbors."""
BEYOND = Size(MemoryConfig(2, 4, neighbors=2, margin=0.125, softmax_temperature=4.0, age_noise=3, seed=12), 8)
MANY_SLOTS = 2**18 + 9001, 2**18 + 30
"""More slots than have their priorities computed at a time; what is left may be a few."""
MANY_ROWS = 150
"""More rows than are compared with such a chunk at a time, or with all slots of `LARGE`."""


@law("2, 3", lambda sizes: cases((LARGE,), exact=True, full=True, masked=False), costly=True)
def large_memory_agrees(backend: Backend, case: Case) -> None:
    """In a memory of several chunks the best slot is the last, and equally similar slots follow it from all chunks."""
    slots = case.config.slots
    generator = np.random.default_rng(int(case.state["ages"][0]))
    equals = np.concatenate([generator.integers(0, slots - 1, 40), [0, CHUNK - 1, slots - CHUNK]])
    best = np.array([slots - 1, equals[0]])
    keys = np.tile(-direction(4, 0), (slots, 1))
    keys[equals], keys[best] = direction(4, 1), direction(4, 0)
    values = np.zeros(slots, np.int32)
    values[equals] = generator.integers(1, 3, len(equals))
    values[best] = 1, generator.integers(1, 3)
    queries = np.tile(direction(4, 0), (len(case.queries), 1))
    state = {**case.state, "keys": keys, "values": values}
    case = dataclasses.replace(case, state=state, queries=queries, targets=np.array([0, 1, 2], np.int32))
    check_update(backend, case)
    check_query(backend, dataclasses.replace(case, config=dataclasses.replace(case.config, neighbors=1000)))
    rows = np.arange(MANY_ROWS) % len(queries)
    same_lookup(run_query(backend, case.rows(rows)), _rows_of(run_query(oracle, case), rows), case.config)


@law("2, 3", lambda sizes: cases((SPARSE,), exact=True, masked=False), costly=True)
def slots_far_apart_agree(backend: Backend, case: Case) -> None:
    """A memory of several chunks with few filled slots answers as a memory of these alone."""
    few = case.config.slots
    config = dataclasses.replace(case.config, slots=FAR)
    ends = [0, *range(FAR - CHUNK, 0, -CHUNK), FAR - 1]
    runs = np.random.default_rng(case.state["step"]).choice(FAR // 4, few // 4, replace=False)
    others = np.setdiff1d(4 * runs[:, None] + np.arange(4), ends)
    places = np.sort([*ends, *others[: few - len(ends)]])
    state = oracle.to_numpy(oracle.init(config))
    for name in ("keys", "values", "ages", "filled", "hits"):
        state[name][places] = case.state[name]
    state["step"] = case.state["step"]
    rows = np.arange(MANY_ROWS) % len(case.queries)
    expected = _rows_of(run_query(oracle, case), rows)
    expected = expected._replace(slots=np.where(expected.slots == NO_SLOT, NO_SLOT, places[expected.slots]))
    same_lookup(run_query(backend, dataclasses.replace(case.rows(rows), config=config, state=state)), expected, config)


def _rows_of(found: Lookup, rows: NDArray[np.int64]) -> Lookup:
    return Lookup(*(None if field is None else field[rows] for field in found))


@law("5, 7", lambda sizes: cases((BEYOND,), exact=True, full=True, masked=False), costly=True)
def far_slots_are_written(backend: Backend, case: Case) -> None:
    """In a memory of `MANY_SLOTS` the last slot is hit, and misses take a few old slots in the order of age and noise. Some of
    these are on both sides of slot 2**18."""
    for slots in MANY_SLOTS:
        _check_far_slots(backend, dataclasses.replace(case, config=dataclasses.replace(case.config, slots=slots)))


def _check_far_slots(backend: Backend, case: Case) -> None:
    config = case.config
    generator = np.random.default_rng(case.state["step"])
    last, edge = config.slots - 1, 2**18
    old = np.unique([0, edge - 1, edge, last - 1, *generator.integers(1, last - 1, 20)])
    state = oracle.to_numpy(oracle.init(config))
    state["keys"][:] = -direction(4, 0)
    state["values"][:], state["filled"][:], state["step"] = 1, True, case.state["step"]
    state["ages"][:] = generator.integers(0, 5, config.slots)
    state["ages"][old] = 1000 + generator.integers(0, 2, len(old))
    state["keys"][last], state["values"][last] = direction(4, 1), 3
    queries = np.tile(direction(4, 2), (len(case.queries), 1))
    queries[0] = direction(4, 1)
    targets = np.arange(len(queries), dtype=np.int32) + 10
    targets[0] = 3
    case = dataclasses.replace(case, state=state, queries=queries, targets=targets)
    after, report = run_update(backend, case)
    oldest = sorted(old.tolist(), key=lambda slot: (-int(state["ages"][slot]) - noise(config, state["step"], slot), slot))
    written = np.array([last, *oldest[: len(queries) - 1]])
    same("slots", report.slots, written)
    same("hit", report.hit, np.arange(len(queries)) == 0)
    same("evicted", report.evicted, len(queries) - 1)
    expected = {**state, "ages": state["ages"] + 1, "step": (state["step"] + 1) % 2**32}
    expected["keys"][written], expected["values"][written], expected["ages"][written] = queries, targets, 0
    expected["hits"][last] = 1
    same_state(after, expected)


@law("state")
def states_travel(backend: Backend, case: Case) -> None:
    """A state is the same to the bit after a way through NumPy, a file or a copy."""
    state = backend.from_numpy(case.config, case.state)
    same_state(backend.to_numpy(state), case.state)
    kept = backend.copy(state)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.safetensors"
        raremem.save(path, case.config, state, backend)
        config, loaded = raremem.load(path, backend)
    assert config == case.config
    same_state(backend.to_numpy(loaded), case.state)
    backend.update(case.config, state, case.queries, case.targets, case.mask)
    same_state(backend.to_numpy(kept), case.state)


@law("errors")
def bad_input_changes_nothing(backend: Backend, case: Case) -> None:
    """Wrong shapes, dtypes and targets raise the error of their kind, and the memory does not change."""
    config = case.config
    state = backend.from_numpy(config, case.state)
    queries, targets, mask = case.queries, case.targets, np.ones_like(case.mask)
    wrong: list[tuple[Any, Any, Any, Any]] = [
        (raremem.ShapeError, queries[:, :-1] if config.key_dim > 1 else queries[0], targets, mask),
        (raremem.ShapeError, queries[None], targets, mask),
        (raremem.ShapeError, queries, targets[:-1], mask),
        (raremem.ShapeError, queries, targets, mask[:, None]),
        (raremem.DTypeError, queries.astype(np.int32), targets, mask),
        (raremem.DTypeError, queries, targets.astype(np.float32), mask),
        (raremem.DTypeError, queries, targets, mask.astype(np.int32)),
        (raremem.DTypeError, queries.tolist(), targets, mask),
        (raremem.DTypeError, queries, targets.tolist(), mask),
        (raremem.DTypeError, queries, targets.astype(np.str_), mask),
        (raremem.TargetError, queries, targets - 100, mask),
        (raremem.TargetError, queries, targets.astype(np.int64) + 2**31, mask),
    ]
    for error, *arguments in wrong:
        for call in (backend.query, backend.update):
            refuses(error, call, config, state, *arguments)
    lookup = backend.query(config, state, queries, targets)
    other = dataclasses.replace(config, slots=config.slots + 1)
    for wrong_error, *call_arguments in (
        (raremem.StateError, other, state, queries, targets),
        (raremem.StateError, config, None, queries, targets),
        (raremem.ConfigError, None, state, queries, targets),
        (raremem.TargetError, config, state, queries, None),
        (raremem.ShapeError, config, state, np.concatenate([queries, queries]), np.tile(targets, 2), None, lookup),
    ):
        refuses(wrong_error, backend.update, *call_arguments)
    same_state(backend.to_numpy(state), case.state)


def refuses(error: type[Exception], call: Callable[..., Any], *arguments: Any) -> None:
    """Check that the call raises this error, and that it says what was expected."""
    try:
        call(*arguments)
    except error as raised:
        assert "expected" in str(raised), raised
    else:
        raise AssertionError(f"{call.__name__} took what should raise {error.__name__}")
