"""Laws of rules 4 to 8: hits, misses, ages, noise and masks."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from hypothesis import strategies as st

from raremem.backend import Backend
from raremem.reference.comparison import as_numpy, check_update, run_query, run_update, same, same_lookup, same_state
from raremem.reference.laws.registry import crowded, full, law
from raremem.reference.strategies import Case, Size, cases, direction, with_config
from raremem.state import Lookup


@law("4, 5, 6")
def update_agrees(backend: Backend, case: Case) -> None:
    """The whole memory after an update, and its report."""
    check_update(backend, case)


@law("4, 5, 6")
def lookup_can_be_reused(backend: Backend, case: Case) -> None:
    """An update with the lookup of the same state is the update that searches for itself."""
    check_update(backend, case, reuse=True)


@law("4", full)
def hits_move_the_key(backend: Backend, case: Case) -> None:
    """Rows with the value of their nearest neighbor are hits, and several may hit one slot."""
    nearest = run_query(backend, case).values[:, 0].astype(np.int32)
    case = dataclasses.replace(case, targets=nearest)
    state, report = run_update(backend, case)
    assert report.hit.all()
    same("values", state["values"], case.state["values"])
    check_update(backend, case)
    check_update(backend, dataclasses.replace(case, state={**case.state, "hits": np.full_like(case.state["hits"], 126)}))


@law("4", full)
def order_of_hits_is_no_matter(backend: Backend, case: Case) -> None:
    """A batch of hits backwards leaves the same memory; keys merged from rows that differ, within rounding."""
    nearest = run_query(backend, case).values[:, 0].astype(np.int32)
    case = dataclasses.replace(case, targets=nearest)
    check_update(backend, case.rows(np.arange(len(nearest))[::-1]))


@law("4", full)
def opposites_leave_the_key(backend: Backend, case: Case) -> None:
    """A hit that cancels its key leaves it as it is; the slot counts as used."""
    keys = np.tile(direction(case.config.key_dim, 0), (case.config.slots, 1))
    state = {**case.state, "keys": keys, "values": np.zeros_like(case.state["values"])}
    queries = case.queries.copy()
    queries[:] = np.nan
    queries[-1] = -keys[0]
    case = dataclasses.replace(case, state=state, queries=queries, targets=np.zeros_like(case.targets))
    after, report = run_update(backend, case)
    assert report.hit[-1]
    same("keys", after["keys"], keys)
    same("age", after["ages"][0], 0)


@law("5", full)
def misses_evict_the_oldest(backend: Backend, case: Case) -> None:
    """Rows of a new value each take the slot whose age and noise are largest, at the largest age too."""
    case = dataclasses.replace(case, targets=np.arange(len(case.targets), dtype=np.int32) + 10)
    check_update(backend, case)
    check_update(backend, dataclasses.replace(case, state={**case.state, "ages": np.full_like(case.state["ages"], 2**31 - 1)}))


@law("5")
def duplicates_take_slots_of_their_own(backend: Backend, case: Case) -> None:
    """A batch of one row again and again, of a new value: each is a miss, as the memory was before the batch."""
    queries = np.tile(case.queries[:1], (len(case.queries), 1))
    case = dataclasses.replace(case, queries=queries, targets=np.full_like(case.targets, 9)).everyone()
    _, report = run_update(backend, case)
    slots = report.slots[report.written]
    assert len(set(slots.tolist())) == len(slots) == min(len(queries), case.config.slots)
    check_update(backend, case)


@law("5", crowded)
def misses_beyond_the_slots_are_dropped(backend: Backend, case: Case) -> None:
    """When slots run out the remaining rows are dropped and counted."""
    case = dataclasses.replace(case, targets=np.arange(len(case.targets), dtype=np.int32) + 10)
    _, report = run_update(backend, case)
    assert report.dropped == len(case.targets) - case.config.slots
    check_update(backend, case)


def least_hit(sizes: tuple[Size, ...], **options: Any) -> st.SearchStrategy[Case]:
    """Cases whose config evicts those hit least."""
    return cases(with_config(sizes, evict="least_hit"), **options)


@law("5", lambda sizes: least_hit(sizes, masked=False))
def those_hit_least_go_first(backend: Backend, case: Case) -> None:
    """With `evict="least_hit"`, of slots hit equally often the oldest."""
    check_update(backend, case)
    check_update(backend, dataclasses.replace(case, targets=np.arange(len(case.targets), dtype=np.int32) + 10))


def hit_and_noisy(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """The same with no noise, and with so much that it would bring any slot forward."""
    still, noisy = (with_config(sizes, evict="least_hit", age_noise=noise) for noise in (0, 1000))
    return cases((still[0], noisy[0], noisy[2]), full=True, masked=False)


@law("4, 5", hit_and_noisy)
def what_was_hit_outlives_what_is_older(backend: Backend, case: Case) -> None:
    """One slot that was hit once, however old, is evicted after all that were never hit."""
    ages, hits = np.zeros(case.config.slots, np.int32), np.zeros(case.config.slots, np.int32)
    ages[0], hits[0] = 2**31 - 1, 1
    case = dataclasses.replace(case, state={**case.state, "ages": ages, "hits": hits}, targets=np.full_like(case.targets, 10))
    _, report = run_update(backend, case)
    assert (0 in report.slots) == (len(case.targets) >= case.config.slots)
    check_update(backend, case)


# Rule 7: noise


@law("7", full)
def noise_agrees_to_the_bit(backend: Backend, case: Case) -> None:
    """With all ages equal the order of eviction is the order of the noise: here of every slot."""
    repeats = -(-case.config.slots // len(case.queries))
    state = {**case.state, "ages": np.full(case.config.slots, case.state["ages"][0], np.int32)}
    for place in range(repeats):
        targets = np.arange(len(case.queries), dtype=np.int32) + 10
        step = (case.state["step"] + 977 * place) % 2**32
        check_update(backend, dataclasses.replace(case, state={**state, "step": step}, targets=targets))


# Rule 8: mask


@law("8")
def masked_rows_are_not_there(backend: Backend, case: Case) -> None:
    """What stands in a masked row changes nothing to the bit, be it NaN or a target out of range."""
    queries, targets = case.queries.copy(), case.targets.copy()
    queries[~case.mask] = np.nan
    targets[~case.mask] = -5
    padded = dataclasses.replace(case, queries=queries, targets=targets)
    same_lookup(run_query(backend, padded), run_query(backend, case), case.config)
    (state, report), (plain, plain_report) = run_update(backend, padded), run_update(backend, case)
    same_state(state, plain)
    for name, got, expected in zip(report._fields, report, plain_report, strict=True):
        same(name, got, expected)


@law("8", lambda sizes: cases(sizes, only=(0,)))
def padding_changes_nothing(backend: Backend, case: Case) -> None:
    """A batch with masked rows writes what the batch without them writes."""
    if not case.mask.any():
        return
    short = case.rows(case.mask)
    (state, report), (plain, plain_report) = run_update(backend, case), run_update(backend, short)
    for name in ("values", "ages", "filled", "hits", "step"):
        same(name, state[name], plain[name])
    same("slots", report.slots[case.mask], plain_report.slots)
    check_update(backend, case)
    check_update(backend, short)


@law("8")
def all_masked_changes_nothing(backend: Backend, case: Case) -> None:
    """No row, no write, no step: the memory is the same to the bit."""
    case = dataclasses.replace(case, mask=np.zeros_like(case.mask))
    state, report = run_update(backend, case)
    same_state(state, case.state)
    assert not report.written.any()
    assert not run_query(backend, case).found.any()


@law("2, 11", full, late=True)
def a_question_is_answered_anew(backend: Backend, case: Case) -> None:
    """The same rows asked again after a write are answered from what is there now."""
    state, rows = backend.from_numpy(case.config, case.state), (case.queries, case.targets + 50, case.mask)
    backend.query(case.config, state, *rows)
    state, _ = backend.update(case.config, state, *rows)
    again = _in_numpy(backend.query(case.config, state, *rows))
    anew = backend.query(case.config, backend.from_numpy(case.config, backend.to_numpy(state)), *rows)
    same_lookup(again, _in_numpy(anew), case.config)


def _in_numpy(found: Lookup) -> Lookup:
    return Lookup(*(None if field is None else as_numpy(field) for field in found))
