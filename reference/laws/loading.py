"""Laws of sets that are stored in one call, and of memories in another number of slots."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import raremem
from raremem.backend import Backend
from raremem.reference.comparison import as_numpy, same, same_state
from raremem.reference.laws.refusals import in_slots
from raremem.reference.laws.registry import law
from raremem.reference.strategies import Case


@law("4 to 6")
def a_set_is_stored_in_batches(backend: Backend, case: Case) -> None:
    """In one update, or in several in the order given: the memory and the reports are those of these updates."""
    config = case.config
    for size in (None, len(case.targets) // 2 + 1, np.int64(len(case.targets) + 3)):
        state = backend.from_numpy(config, case.state)
        state, report = backend.store(config, state, case.queries, case.targets, batch_size=size)
        expected, reports = backend.from_numpy(config, case.state), []
        for start in range(0, len(case.targets), size or len(case.targets)):
            rows = slice(start, start + (size or len(case.targets)))
            expected, part = backend.update(config, expected, case.queries[rows], case.targets[rows])
            reports.append(part)
        same_state(backend.to_numpy(state), backend.to_numpy(expected))
        for name in report._fields:
            parts = [as_numpy(getattr(part, name)) for part in reports]
            got = as_numpy(getattr(report, name))
            same(name, got, np.concatenate(parts) if parts[0].ndim else sum(parts))
            assert got.dtype == parts[0].dtype, f"{name}: {got.dtype}"


@law("errors")
def a_set_is_checked_whole(backend: Backend, case: Case) -> None:
    """Something wrong in the last row, or with the size of batches, is an error before the first row is written."""
    state = backend.from_numpy(case.config, case.state)
    bad = case.targets.copy()
    bad[-1] = -1
    wrong: list[tuple[type[Exception], Any, Any]] = [(raremem.TargetError, bad, 1), (raremem.TargetError, None, 1)]
    wrong += [(raremem.ShapeError, case.targets, size) for size in (0, -1, 2.0, True)]
    for error, targets, size in wrong:
        try:
            backend.store(case.config, state, case.queries, targets, batch_size=size)
        except error as raised:
            assert "expected" in str(raised), raised
        else:
            raise AssertionError(f"targets {targets} in batches of {size} were stored")
    same_state(backend.to_numpy(state), case.state)


@law("5, state")
def a_memory_in_other_slots(backend: Backend, case: Case) -> None:
    """In more slots, as many, and fewer: what is kept, and which slot each was before; the memory itself stays as it is."""
    config = case.config
    state = backend.from_numpy(config, case.state)
    for slots in (config.slots + 3, config.slots, max(1, config.slots // 2)):
        other, resized, kept = backend.resize(config, state, slots)
        assert other == dataclasses.replace(config, slots=slots)
        portable = backend.to_numpy(resized)
        same_state(portable, in_slots(config, case.state, slots))
        assert kept.dtype == np.int32
        same("slots before", kept[: config.slots] >= 0, np.ones(min(slots, config.slots), np.bool_))
        same("new slots", kept[config.slots :], np.full(max(0, slots - config.slots), -1))
        there = np.flatnonzero(kept >= 0)
        for name in ("keys", "values", "ages", "filled", "hits"):
            same(name, portable[name][there], case.state[name][kept[there]])
    same_state(backend.to_numpy(state), case.state)
