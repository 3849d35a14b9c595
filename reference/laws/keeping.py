"""Laws of rule 13: where rows are kept, a hit moves no key, and every accepted row has a slot of its own."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from hypothesis import strategies as st

from raremem.backend import Backend
from raremem.config import MemoryConfig
from raremem.reference.comparison import check_query, check_update, run_query, run_update, same
from raremem.reference.laws.registry import law
from raremem.reference.strategies import Case, Size, cases, direction, with_config

MANY = Size(MemoryConfig(2400, 4, neighbors=2, margin=0.125, softmax_temperature=4.0, age_noise=1, seed=13), 6)
"""More slots than are told apart at a time where room is made for so few rows."""


def kept(sizes: tuple[Size, ...], evict: str = "oldest", **options: Any) -> st.SearchStrategy[Case]:
    """Cases whose config keeps every row."""
    return cases(with_config(sizes, write="keep", evict=evict), **options)


@law("13", kept)
def kept_rows_agree(backend: Backend, case: Case) -> None:
    """The whole memory after an update, and its report, with a lookup and without one; and what is then looked up."""
    check_update(backend, case)
    check_update(backend, case, reuse=True)
    after, _ = run_update(backend, case)
    check_query(backend, dataclasses.replace(case, state=after))


@law("13", lambda sizes: kept(sizes, "least_hit"))
def kept_rows_agree_where_those_hit_least_go(backend: Backend, case: Case) -> None:
    """The same where those hit least are evicted: a row that is kept has no hits of its own."""
    check_update(backend, case)
    check_update(backend, dataclasses.replace(case, state={**case.state, "hits": np.full_like(case.state["hits"], 126)}))


@law("13", lambda sizes: kept(sizes, full=True, masked=False))
def a_hit_moves_no_key(backend: Backend, case: Case) -> None:
    """Rows that all hit: keys and values of the slots they hit are the same to the bit, the age is 0, and the hits are counted;
    beside them each row has a slot of its own, as far as there are any."""
    found = run_query(backend, case)
    case = dataclasses.replace(case, targets=found.values[:, 0].astype(np.int32))
    after, report = run_update(backend, case)
    assert report.hit.all()
    nearest, times = np.unique(found.slots[:, 0], return_counts=True)
    for name in ("keys", "values"):
        same(name, after[name][nearest], case.state[name][nearest])
    same("ages", after["ages"][nearest], np.zeros(len(nearest)))
    same("hits", after["hits"][nearest], np.minimum(case.state["hits"][nearest] + times, 127))
    own = report.slots[report.written]
    assert not set(own.tolist()) & set(nearest.tolist()), "a row was put where another has hit"
    assert len(set(own.tolist())) == len(own) == min(len(case.targets), case.config.slots - len(nearest))
    same("keys", after["keys"][own], found.queries[report.written])
    check_update(backend, case)


@law("13", lambda sizes: kept(sizes, full=False, masked=False))
def a_batch_is_kept_whole(backend: Backend, case: Case) -> None:
    """Two batches into an empty memory, the second with the rows and values of the first: each row has a slot of its own."""
    config, batch = case.config, len(case.targets)
    state = backend.from_numpy(config, case.state)
    for _ in range(2):
        state, _ = backend.update(config, state, case.queries, case.targets)
    after, room = backend.to_numpy(state), min(2 * batch, config.slots)
    if config.slots >= 2 * batch:
        assert after["filled"].sum() == room
        same("values", np.sort(after["values"][:room]), np.sort(np.tile(case.targets, 2)))


@law("5, 13", lambda sizes: kept((MANY,), full=True, masked=False), costly=True)
def there_is_room_beside_the_oldest(backend: Backend, case: Case) -> None:
    """In a memory of many slots the rows hit the very slots that would go first: each row takes one of those that go next."""
    rows = np.stack([direction(4, place) for place in range(0, 3 * len(case.queries), 3)])
    oldest = np.random.default_rng(case.state["step"]).choice(case.config.slots, len(rows), replace=False)
    state = {name: part if name == "step" else part.copy() for name, part in case.state.items()}
    state["keys"][:], state["values"][:] = direction(4, 2), 1
    state["ages"] %= 1000
    state["keys"][oldest], state["values"][oldest], state["ages"][oldest] = rows, 7, 2000
    case = dataclasses.replace(case, state=state, queries=rows, targets=np.full_like(case.targets, 7))
    _, report = run_update(backend, case)
    assert report.hit.all()
    assert report.written.all()
    assert report.evicted == len(rows)
    check_update(backend, case)
