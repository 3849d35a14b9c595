"""Laws of rule 14: what is forgotten is as if it had never been there, and nothing else changes."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import raremem
from raremem.backend import ArrayBackend, Backend
from raremem.reference.comparison import as_numpy, same, same_lookup, same_state
from raremem.reference.laws.registry import full, law
from raremem.reference.oracle import backend as oracle
from raremem.reference.strategies import Case
from raremem.state import ForgetReport, Lookup, PortableState

Named = dict[str, Any]


def ways(case: Case) -> Iterator[Named]:
    """Slots, values and ages that belong to the case, one kind or several at a time, of several kinds of numbers."""
    slots, generator = case.config.slots, np.random.default_rng(case.state["step"])
    numbers = np.append(generator.integers(0, slots, 2), -1)
    yield {"slots": numbers.astype(np.int32)}
    yield {"slots": generator.random(slots) < 0.4}
    yield {"values": np.unique(generator.integers(0, 5, 2)).astype(np.int64)}
    yield {"older_than": int(generator.choice([0, 5, 2**31 - 2, 2**31 - 1, *case.state["ages"]]))}
    yield {"slots": int(numbers[0]), "values": [*range(100, 170), 2, 2**31 - 1], "older_than": np.int32(6)}
    yield {"slots": [], "values": range(0)}
    yield {"slots": np.ones(slots, np.bool_)}


def forgotten(backend: Backend, case: Case, named: Named) -> tuple[Any, PortableState, ForgetReport]:
    """The state without what is named, on both, held against each other; what the oracle holds then, and its report. The memory
    was asked twice before, so that whatever a backend keeps beside it is there."""
    before = oracle.from_numpy(case.config, case.state)
    left, expected = oracle.forget(case.config, before, **named)
    state = backend.from_numpy(case.config, case.state)
    for _ in range(2):
        backend.query(case.config, state, case.queries, case.targets)
    state, report = backend.forget(case.config, state, **named)
    for name, dtype in (("forgotten", "bool"), ("count", "int32")):
        same(name, getattr(report, name), getattr(expected, name))
        assert as_numpy(getattr(report, name)).dtype == dtype, name
    portable = oracle.to_numpy(left)
    same_state(backend.to_numpy(state), portable)
    return state, portable, expected


@law("14")
def what_is_named_is_forgotten(backend: Backend, case: Case) -> None:
    """By number, by a mask, by value, by age, or by any of them: these slots are as never filled, and all else is as it was."""
    for named in ways(case):
        state, portable, report = forgotten(backend, case, named)
        gone = report.forgotten
        for name, none in (("keys", 0), ("values", -1), ("ages", 0), ("filled", False), ("hits", 0)):
            same(name, portable[name][gone], np.full_like(portable[name][gone], none))
            same(name, portable[name][~gone], case.state[name][~gone])
        assert portable["step"] == case.state["step"]
        counts = backend.counts(state)
        left = portable["values"][portable["filled"]].tolist()
        assert counts == {value: left.count(value) for value in sorted(set(left))}, counts
        assert list(counts) == sorted(counts)


@law("6, 14", full)
def what_ages_no_more_is_old(backend: Backend, case: Case) -> None:
    """Slots of the largest age, after another update: by any bound below it those that it did not touch are forgotten."""
    config, ages = case.config, np.full(case.config.slots, 2**31 - 1, np.int32)
    given = {**case.state, "ages": ages}
    held = []
    for each in (backend, oracle):
        state, _ = each.update(config, each.from_numpy(config, given), case.queries, case.targets)
        for older_than in (2**31 - 1, 2**31 - 2):
            state, _ = each.forget(config, state, older_than=older_than)
            held.append(each.to_numpy(state)["filled"])
    for got, expected in zip(held[:2], held[2:], strict=True):
        same("filled", got, expected)


@law("14")
def what_is_left_answers_as_a_memory_of_it(backend: Backend, case: Case) -> None:
    """Asked and written to afterwards, the state answers as one of the same content that never held more."""
    config, rows = case.config, (case.queries, case.targets, case.mask)
    for named in list(ways(case))[case.state["step"] % 3 :: 3]:
        state, portable, _ = forgotten(backend, case, named)
        never = backend.from_numpy(config, portable)
        found, expected = (_in_numpy(backend.query(config, each, *rows)) for each in (state, never))
        same_lookup(found, expected, config)
        (state, report), (never, right) = (backend.update(config, each, *rows) for each in (state, never))
        for name in right._fields:
            same(name, getattr(report, name), getattr(right, name))
        same_state(backend.to_numpy(state), backend.to_numpy(never))


def _in_numpy(found: Lookup) -> Lookup:
    return Lookup(*(None if field is None else as_numpy(field) for field in found))


@law("11, 12, 14", full)
def a_lookup_does_not_outlive_what_it_found(backend: Backend, case: Case) -> None:
    """An update by a lookup that was made before something was forgotten, its nearest slot or another, is the one that searches
    for itself; and so is one by a copy of that lookup."""
    config = case.config
    for copied in (False, True):
        for of in (slice(0, 1), slice(1, None)):
            before = backend.from_numpy(config, case.state)
            found = backend.query(config, before, case.queries)
            named = np.unique(as_numpy(found.slots)[:, of]).astype(np.int32)
            if copied:
                fields = (None if field is None else backend.own(np.array(as_numpy(field)), before) for field in found)
                found = type(found)(*fields)
            outcomes = []
            for lookup in (None, found):
                state = before if lookup is found else backend.from_numpy(config, case.state)
                state, _ = backend.forget(config, state, slots=named)
                state, report = backend.update(config, state, case.queries, case.targets, None, lookup)
                outcomes.append((backend.to_numpy(state), report))
            (plain, expected), (got, report) = outcomes
            same_state(got, plain)
            for name in report._fields:
                same(name, getattr(report, name), getattr(expected, name))


@law("14", full)
def what_was_handed_out_is_not_forgotten(backend: Backend, case: Case) -> None:
    """A lookup, a portable state and a copy from before are as they were."""
    config = case.config
    state = backend.from_numpy(config, case.state)
    found, portable, copied = backend.query(config, state, case.queries), backend.to_numpy(state), backend.copy(state)
    held = [None if field is None else np.array(as_numpy(field)) for field in found]
    backend.forget(config, state, slots=np.ones(config.slots, np.bool_))
    for name, field, before in zip(found._fields, found, held, strict=True):
        if before is not None:
            same(name, field, before)
    same_state(portable, case.state)
    same_state(backend.to_numpy(copied), case.state)
    state, report = backend.clear(config, copied)
    assert as_numpy(report.count) == config.slots
    assert backend.counts(state) == {}


@law("14", full)
def no_byte_is_left(backend: Backend, case: Case) -> None:
    """The arrays of a state hold zeros, an index is gone, and a file has the bytes of one of a memory that never held more."""
    config, gone = case.config, np.arange(case.config.slots) % 2 == 0
    state, portable, _ = forgotten(backend, case, {"slots": gone})
    if isinstance(backend, ArrayBackend):
        keys, values, last_used, hits = (backend.primitives.to_numpy(array)[: config.slots] for array in state[:4])
        for name, array, none in (("keys", keys, 0), ("values", values, -1), ("last_used", last_used, 0), ("hits", hits, 0)):
            assert (array[gone] == none).all(), f"{name} of what was forgotten: {array[gone]}"
        assert backend.index is None or not backend.index.ready, "an index holds keys that were forgotten"
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("left", "never")]
        raremem.save(paths[0], config, state, backend)
        raremem.save(paths[1], config, oracle.from_numpy(config, portable), oracle)
        assert paths[0].read_bytes() == paths[1].read_bytes()


@law("errors, 14")
def what_cannot_be_forgotten_is_refused(backend: Backend, case: Case) -> None:
    """Nothing named, numbers that are no slots, values or ages, other shapes and dtypes: an error, and the memory as it was."""
    config = case.config
    state = backend.from_numpy(config, case.state)
    wrong: list[tuple[type[Exception], Named]] = [
        (raremem.ForgetError, {}),
        (raremem.ForgetError, {"slots": [config.slots]}),
        (raremem.ForgetError, {"slots": np.array([0, -2])}),
        (raremem.ForgetError, {"values": -1}),
        (raremem.ForgetError, {"slots": 0, "values": np.array([2**31])}),
        (raremem.ForgetError, {"older_than": -1}),
        (raremem.ForgetError, {"older_than": 2**31}),
        (raremem.ForgetError, {"older_than": 1.0}),
        (raremem.ForgetError, {"older_than": True}),
        (raremem.ShapeError, {"slots": np.ones(config.slots + 1, np.bool_)}),
        (raremem.ShapeError, {"slots": np.ones((1, config.slots), np.bool_)}),
        (raremem.ShapeError, {"values": [[1]]}),
        (raremem.DTypeError, {"slots": [0.0]}),
        (raremem.DTypeError, {"values": np.array([True])}),
        (raremem.DTypeError, {"values": ["a"]}),
        (raremem.DTypeError, {"values": {1, 2}}),
    ]
    for error, named in wrong:
        _refuses(error, partial(backend.forget, config, state, **named))
    other = dataclasses.replace(config, slots=config.slots + 1)
    _refuses(raremem.StateError, partial(backend.forget, other, state, values=1))
    _refuses(raremem.StateError, partial(backend.forget, config, None, values=1))
    same_state(backend.to_numpy(state), case.state)


def _refuses(error: type[Exception], call: Callable[[], Any]) -> None:
    """The call raises this error, in one line that says what was expected."""
    try:
        call()
    except error as raised:
        assert "expected" in str(raised), raised
        assert "\n" not in str(raised), raised
    else:
        raise AssertionError(f"what should raise {error.__name__} was forgotten")
