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
    """The memory after an update, and the report, are the oracle's."""
    check_update(backend, case)


@law("4, 5, 6")
def lookup_can_be_reused(backend: Backend, case: Case) -> None:
    """An update with a lookup of the same state writes what an update without one does."""
    check_update(backend, case, reuse=True)


@law("4", full)
def hits_move_the_key(backend: Backend, case: Case) -> None:
    """A row with the value of its nearest neighbor is a hit. Several rows may hit one slot."""
    nearest = run_query(backend, case).values[:, 0].astype(np.int32)
    case = dataclasses.replace(case, targets=nearest)
    state, report = run_update(backend, case)
    assert report.hit.all()
    same("values", state["values"], case.state["values"])
    check_update(backend, case)
    check_update(backend, dataclasses.replace(case, state={**case.state, "hits": np.full_like(case.state["hits"], 126)}))


@law("4", full)
def order_of_hits_is_no_matter(backend: Backend, case: Case) -> None:
    """A batch of hits in reverse order leaves the same memory; within rounding where a key merges different rows."""
    nearest = run_query(backend, case).values[:, 0].astype(np.int32)
    case = dataclasses.replace(case, targets=nearest)
    check_update(backend, case.rows(np.arange(len(nearest))[::-1]))


@law("4", full)
def opposites_leave_the_key(backend: Backend, case: Case) -> None:
    """A hit that cancels its key leaves the key as it is, and sets the age to 0."""
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
    """Rows of new values take the slots with the largest sums of age and noise, also at the largest age."""
    case = dataclasses.replace(case, targets=np.arange(len(case.targets), dtype=np.int32) + 10)
    check_update(backend, case)
    check_update(backend, dataclasses.replace(case, state={**case.state, "ages": np.full_like(case.state["ages"], 2**31 - 1)}))


@law("5")
def duplicates_take_slots_of_their_own(backend: Backend, case: Case) -> None:
    """Equal rows of a new value in one batch are misses, each with a slot of its own."""
    queries = np.tile(case.queries[:1], (len(case.queries), 1))
    case = dataclasses.replace(case, queries=queries, targets=np.full_like(case.targets, 9)).everyone()
    _, report = run_update(backend, case)
    slots = report.slots[report.written]
    assert len(set(slots.tolist())) == len(slots) == min(len(queries), case.config.slots)
    check_update(backend, case)


@law("5", crowded)
def misses_beyond_the_slots_are_dropped(backend: Backend, case: Case) -> None:
    """Rows for which no slot is left are dropped and counted."""
    case = dataclasses.replace(case, targets=np.arange(len(case.targets), dtype=np.int32) + 10)
    _, report = run_update(backend, case)
    assert report.dropped == len(case.targets) - case.config.slots
    check_update(backend, case)


def least_hit(sizes: tuple[Size, ...], **options: Any) -> st.SearchStrategy[Case]:
    """Cases with `evict="least_hit"`."""
    return cases(with_config(sizes, evict="least_hit"), **options)


@law("5", lambda sizes: least_hit(sizes, masked=False))
def those_hit_least_go_first(backend: Backend, case: Case) -> None:
    """With `evict="least_hit"` the slots hit least are evicted first, and of these the oldest."""
    check_update(backend, case)
    check_update(backend, dataclasses.replace(case, targets=np.arange(len(case.targets), dtype=np.int32) + 10))


def hit_and_noisy(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """Such cases without noise, and with more noise than ages differ by."""
    still, noisy = (with_config(sizes, evict="least_hit", age_noise=noise) for noise in (0, 1000))
    return cases((still[0], noisy[0], *noisy[2:3]), full=True, masked=False)


@law("4, 5", hit_and_noisy)
def what_was_hit_outlives_what_is_older(backend: Backend, case: Case) -> None:
    """A slot that was hit once is evicted after all that were never hit, however old it is."""
    ages, hits = np.zeros(case.config.slots, np.int32), np.zeros(case.config.slots, np.int32)
    ages[0], hits[0] = 2**31 - 1, 1
    case = dataclasses.replace(case, state={**case.state, "ages": ages, "hits": hits}, targets=np.full_like(case.targets, 10))
    _, report = run_update(backend, case)
    assert (0 in report.slots) == (len(case.targets) >= case.config.slots)
    check_update(backend, case)


# Rule 7: noise


@law("7", full)
def noise_agrees_to_the_bit(backend: Backend, case: Case) -> None:
    """If all ages are equal, slots are evicted in the order of their noise. Here every slot is."""
    repeats = -(-case.config.slots // len(case.queries))
    state = {**case.state, "ages": np.full(case.config.slots, case.state["ages"][0], np.int32)}
    for place in range(repeats):
        targets = np.arange(len(case.queries), dtype=np.int32) + 10
        step = (case.state["step"] + 977 * place) % 2**32
        check_update(backend, dataclasses.replace(case, state={**state, "step": step}, targets=targets))


# Rule 8: mask


@law("8")
def masked_rows_are_not_there(backend: Backend, case: Case) -> None:
    """The content of a masked row, be it NaN or a target out of range, changes nothing to the bit."""
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
    """A batch with masked rows writes what the batch without these rows writes."""
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
    """If all rows are masked, the memory stays the same to the bit, its step included."""
    case = dataclasses.replace(case, mask=np.zeros_like(case.mask))
    state, report = run_update(backend, case)
    same_state(state, case.state)
    assert not report.written.any()
    assert not run_query(backend, case).found.any()


@law("2, 11", full, late=True)
def a_question_is_answered_anew(backend: Backend, case: Case) -> None:
    """A query after an update answers by what the memory holds now."""
    state, rows = backend.from_numpy(case.config, case.state), (case.queries, case.targets + 50, case.mask)
    backend.query(case.config, state, *rows)
    state, _ = backend.update(case.config, state, *rows)
    again = _in_numpy(backend.query(case.config, state, *rows))
    anew = backend.query(case.config, backend.from_numpy(case.config, backend.to_numpy(state)), *rows)
    same_lookup(again, _in_numpy(anew), case.config)


def _in_numpy(found: Lookup) -> Lookup:
    return Lookup(*(None if field is None else as_numpy(field) for field in found))
