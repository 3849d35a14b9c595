"""Laws of rule 12 for lookups whose memory is not recorded: copies, as from pickling, and lookups made by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

import raremem
from raremem.backend import Backend
from raremem.config import MemoryConfig
from raremem.reference.comparison import as_numpy, same, same_state
from raremem.reference.laws.registry import full, law
from raremem.reference.strategies import Case
from raremem.state import Lookup, PortableState, UpdateReport


@law("12", full)
def copied_lookup_is_of_its_memory(backend: Backend, case: Case) -> None:
    """A copy of a lookup writes what the lookup would. If it is late, or has no step, its rows are looked up again. On another
    memory, whatever its step, it is refused, or its rows are looked up again."""
    case = _of_keys(case)
    config = case.config
    state = backend.from_numpy(config, case.state)
    found = backend.query(config, state, case.queries, case.targets)
    for lookup in (_copied(backend, found, state), _copied(backend, found, state)._replace(step=None)):
        _check_writes(backend, case, lookup, may_refuse=False)
    seen = hasattr(backend, "primitives") and backend.primitives.peek(found.slots) is not None
    keys_seen = not hasattr(backend, "primitives") or backend.primitives.peek(state.keys) is not None
    late, _ = backend.update(config, backend.copy(state), -case.queries, case.targets + 50)
    changed = dataclasses.replace(case, state=backend.to_numpy(late))
    _check_writes(backend, changed, _copied(backend, found, state), may_refuse=True)
    for other_config, other, differs in _others(case):
        if not keys_seen and other_config == config and other["keys"] is not case.state["keys"]:
            continue  # of sharded keys each device sees its own: other values can be told, other keys cannot
        for shift in (0, 1):
            of_other = dataclasses.replace(case, config=other_config, state=other, targets=case.targets + shift)
            _check_writes(backend, of_other, _copied(backend, found, state), may_refuse=True, must_refuse=seen and differs)
    nothing = {**case.state, "filled": np.zeros_like(case.state["filled"])}
    of_nothing = backend.query(config, backend.from_numpy(config, nothing), case.queries, case.targets)
    last_empty = case.state["filled"].copy()
    last_empty[-1] = False
    almost_full = dataclasses.replace(case, state={**case.state, "filled": last_empty})
    _check_writes(backend, almost_full, _copied(backend, of_nothing, state), may_refuse=True)


@law("12", full)
def a_copy_that_was_written_to_is_looked_up_again(backend: Backend, case: Case) -> None:
    """A lookup of a memory is late for a copy of it that was written to by itself, though both have taken as many steps, and
    though all that the lookup found is still there. Here the copy has since stored the very rows that are asked."""
    config = case.config
    rows = case.queries + np.float32(0.25) * np.roll(case.queries, 1, axis=0)
    outcomes = []
    for late in (False, True):
        state = backend.from_numpy(config, case.state)
        other, _ = backend.update(config, backend.copy(state), rows, case.targets + 50)
        state, _ = backend.update(config, state, -rows, case.targets + 90)
        lookup = backend.query(config, state, rows, case.targets) if late else None
        after, report = backend.update(config, other, rows, case.targets, None, lookup)
        outcomes.append((backend.to_numpy(after), report))
    _check_same(*outcomes)


def _of_keys(case: Case) -> Case:
    """The case with keys of the memory as queries, and their values as targets; the last row has no direction."""
    slots = np.random.default_rng(case.state["step"]).integers(0, case.config.slots, len(case.queries))
    queries = case.state["keys"][slots].copy()
    if len(queries) > 1:
        queries[-1] = np.nan
    return dataclasses.replace(case, queries=queries, targets=case.state["values"][slots]).everyone()


def _others(case: Case) -> Iterator[tuple[MemoryConfig, PortableState, bool]]:
    """Other memories of the same step: with other values, with other keys, empty, and with fewer slots. Each with its config,
    and whether all nearest neighbors of a lookup are wrong for it."""
    config, state = case.config, case.state
    yield config, {**state, "values": state["values"] + 1}, True
    yield config, {**state, "keys": -state["keys"]}, True
    yield config, {**state, "filled": np.zeros_like(state["filled"])}, False
    few = -(-config.slots // 2)
    first = {name: part if name == "step" else part[:few] for name, part in state.items()}
    yield dataclasses.replace(config, slots=few), first, False


def _copied(backend: Backend, found: Lookup, state: Any) -> Lookup:
    return Lookup(*(None if field is None else backend.own(np.array(as_numpy(field)), state) for field in found))


def _check_writes(backend: Backend, case: Case, lookup: Lookup, may_refuse: bool, must_refuse: bool = False) -> None:
    """Check that an update by the lookup equals one without it, or that the lookup is refused."""
    config, outcomes = case.config, []
    for each in (None, lookup):
        state = backend.from_numpy(config, case.state)
        try:
            after, report = backend.update(config, state, case.queries, case.targets, None, each)
        except raremem.StateError as error:
            assert each is not None, error
            assert may_refuse, error
            same_state(backend.to_numpy(state), backend.to_numpy(backend.from_numpy(config, case.state)))
            return
        outcomes.append((backend.to_numpy(after), report))
    assert not must_refuse, "a lookup of another memory was taken"
    _check_same(*outcomes)


def _check_same(expected: tuple[PortableState, UpdateReport], got: tuple[PortableState, UpdateReport]) -> None:
    """Check that two updates left the same memory, and said the same."""
    same_state(got[0], expected[0])
    for name in UpdateReport._fields:
        same(name, getattr(got[1], name), getattr(expected[1], name))
