"""Laws of rules 1 and 2: which rows are accepted, and the neighbors and weights of a lookup."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

import raremem
from raremem.backend import Backend
from raremem.reference import tolerance
from raremem.reference.comparison import (
    as_numpy,
    check_query,
    check_query_closely,
    check_update,
    close,
    run_query,
    same,
    same_lookup,
    same_state,
)
from raremem.reference.laws.registry import empty, full, general, law, many_neighbors, one_slot
from raremem.reference.oracle import backend as oracle
from raremem.reference.rules import nearest_first, normalize, recall
from raremem.reference.strategies import ONE_ROW, Case, cases, direction, with_config
from raremem.state import Lookup, empty_portable

# Rule 1: queries


@law("1")
def only_direction_matters(backend: Backend, case: Case) -> None:
    """A row scaled by a power of two is the same query, to the bit, over the whole range of f32."""
    plain = run_query(backend, case)
    for scale in (2.0**-70, 2.0**100):
        scaled = dataclasses.replace(case, queries=case.queries * np.float32(scale))
        same_lookup(run_query(backend, scaled), plain, case.config)


@law("1")
def bad_rows_are_rejected(backend: Backend, case: Case) -> None:
    """Rows with NaN or infinity, or of norm 0 or nearly so, are not found, have no loss, are never written, and are counted."""
    bad = (np.nan, np.inf, -np.inf, 0.0, 2.0**-101, 1e-45)
    queries = case.queries.copy()
    rows = np.arange(0, len(queries), 2)
    for place, row in enumerate(rows):
        queries[row] = 0
        queries[row, place % queries.shape[1]] = bad[(place + int(case.targets[0])) % len(bad)]
    case = dataclasses.replace(case, queries=queries)
    found = run_query(backend, case)
    assert np.array_equal(found.rejected[rows], case.mask[rows])
    assert not found.found[rows].any()
    assert found.loss is not None
    assert not found.loss[rows].any()
    check_query(backend, case)
    check_update(backend, case)


@law("2, 3", needs="vmap")
def many_memories_in_one_call(backend: Backend, case: Case) -> None:
    """The framework's vmap over memories answers as each memory by itself. The memories are that of the case, an empty one, and
    one of opposite keys, each with its own queries, targets and mask."""
    turned = {**case.state, "keys": -case.state["keys"]}
    each = [
        case,
        dataclasses.replace(case.rows(slice(None, None, -1)), state=empty_portable(case.config)),
        dataclasses.replace(case.rows(slice(None, None, -1)), state=turned, mask=~case.mask),
    ]
    states = [backend.from_numpy(case.config, one.state) for one in each]
    rows = (np.stack([getattr(one, name) for one in each]) for name in ("queries", "targets", "mask"))
    together = backend.query_many(case.config, states, *rows)
    for place, one in enumerate(each):
        got = Lookup(**{name: as_numpy(getattr(together, name))[place] for name in Lookup._fields})
        same_lookup(got, run_query(backend, one), case.config)


@law("1")
def strict_names_the_rows(backend: Backend, case: Case) -> None:
    """With `strict=True` a bad row is an error that names it, and the memory does not change."""
    case = case.everyone()
    queries = case.queries.copy()
    queries[-1] = np.nan
    state = backend.from_numpy(case.config, case.state)
    for call in (backend.query, backend.update):
        try:
            call(case.config, state, queries, case.targets, case.mask, strict=True)
        except raremem.RejectedRowsError as error:
            assert str([len(queries) - 1]) in str(error), error
        else:
            raise AssertionError(f"{call.__name__} took a row of NaN with strict=True")
    same_state(backend.to_numpy(state), case.state)


@law("1")
def half_precision_rows_are_cast(backend: Backend, case: Case) -> None:
    """A query in f16 is the query of its f32 values."""
    queries = case.queries / np.abs(case.queries).max()
    half = run_query(backend, dataclasses.replace(case, queries=queries.astype(np.float16)))
    same_lookup(half, run_query(backend, dataclasses.replace(case, queries=queries)), case.config)


# Rule 2: lookup


@law("2, 3")
def query_agrees(backend: Backend, case: Case) -> None:
    """Every field of a lookup equals the oracle's to the bit. Ties are common."""
    check_query(backend, case)


@law("2, 3", general)
def query_agrees_on_any_rows(backend: Backend, case: Case) -> None:
    """The same on arbitrary rows, within the derived tolerance."""
    check_query_closely(backend, case)


@law("2")
def query_without_targets_is_the_same(backend: Backend, case: Case) -> None:
    """Targets add a loss and change nothing else."""
    with_targets, without = run_query(backend, case), run_query(backend, case, targets=False)
    assert without.loss is None
    assert without.targets is None
    same_lookup(without, with_targets._replace(loss=None, targets=None), case.config)


@law("2", empty)
def empty_memory_finds_nothing(backend: Backend, case: Case) -> None:
    """An empty memory has no neighbor, no weight and no loss."""
    found = run_query(backend, case)
    assert not found.found.any()
    assert (found.slots == -1).all()
    assert (found.values == -1).all()
    assert not found.weights.any()
    assert found.loss is not None
    assert not found.loss.any()
    check_update(backend, case)


@law("2", one_slot)
def one_slot_is_a_memory(backend: Backend, case: Case) -> None:
    """A memory of one slot follows all rules."""
    check_query(backend, case)
    check_update(backend, case)


@law("2, 5", lambda sizes: cases((ONE_ROW,), masked=False))
def one_row_sees_every_slot(backend: Backend, case: Case) -> None:
    """One row may ask for all slots of a memory of many slots."""
    check_query(backend, case)
    check_update(backend, case)


@law("2", many_neighbors)
def more_neighbors_than_slots(backend: Backend, case: Case) -> None:
    """If `neighbors` is above the number of slots, there are as many neighbors as slots."""
    assert run_query(backend, case).slots.shape == (len(case.queries), case.config.slots)
    check_query(backend, case)


@law("2", full)
def ties_go_to_the_lowest_slot(backend: Backend, case: Case) -> None:
    """If all keys are equal, neighbors are in the order of their slots."""
    keys = np.tile(direction(case.config.key_dim, int(case.targets[0])), (case.config.slots, 1))
    case = dataclasses.replace(case, state={**case.state, "keys": keys})
    found = run_query(backend, case)
    same("slots", found.slots, np.tile(np.arange(case.config.k), (len(case.queries), 1)))


@law("2")
def weights_sum_to_one(backend: Backend, case: Case) -> None:
    """The weights of a row sum to 1 if something was found, else to 0."""
    found = run_query(backend, case)
    close("sums", found.weights.sum(axis=1), found.found, 2 * tolerance.gamma(case.config.k + 2))


@law("2")
def query_changes_nothing(backend: Backend, case: Case) -> None:
    """A query does not change the memory."""
    state = backend.from_numpy(case.config, case.state)
    backend.query(case.config, state, case.queries, case.targets, case.mask)
    same_state(backend.to_numpy(state), case.state)


@law("2", lambda sizes: cases(sizes, exact=False, full=True, masked=False, only=(0,)))
def every_key_finds_its_slot(backend: Backend, case: Case) -> None:
    """With all keys as queries, each finds its own slot first, and no slot twice."""
    keys, values = case.state["keys"], case.state["values"]
    every = dataclasses.replace(case, queries=keys, targets=values, mask=np.ones(len(keys), np.bool_))
    check_query_closely(backend, every)
    same("nearest slots", run_query(backend, every).slots[:, 0], np.arange(len(keys)))


@law("2, 3", lambda sizes: cases(with_config(sizes, key_dim=1), only=(0,)))
def one_dimension_is_enough(backend: Backend, case: Case) -> None:
    """Keys of one entry, 1 or -1, follow all rules: most scores are equal, and most targets beyond the neighbors."""
    check_query(backend, case)
    check_query(backend, dataclasses.replace(case, queries=-case.queries))


@law("2, 8")
def no_rows_are_a_batch(backend: Backend, case: Case) -> None:
    """Of no rows a query answers none, in the same shapes and dtypes; an update by them changes and reports nothing."""
    config, none = case.config, slice(0, 0)
    state = backend.from_numpy(config, case.state)
    for targets in (None, case.targets):
        whole = backend.query(config, state, case.queries, targets, case.mask)
        found = backend.query(config, state, case.queries[none], None if targets is None else targets[none], case.mask[none])
        for name, field, other in zip(Lookup._fields, found, whole, strict=True):
            assert (field is None) == (other is None), name
            if other is not None:
                assert field.shape == (0, *other.shape[1:]), f"{name} has shape {field.shape}"
                assert as_numpy(field).dtype == as_numpy(other).dtype, name
        assert tuple(found.scores(3).shape) == (0, 3)
        table = backend.own(np.ones((int(case.state["values"].max()) + 2, 3), np.float32), state)
        assert tuple(found.recall(table).shape) == (0, 3)
    for given in (None, found):
        state, report = backend.update(config, state, case.queries[none], case.targets[none], None, given)
        state, stored = backend.store(config, state, case.queries[none], case.targets[none])
        for made in (report, stored):
            assert [as_numpy(field).size for field in made[:3]] == [0, 0, 0]
            assert [int(count) for count in made[3:]] == [0, 0, 0]
            assert [as_numpy(field).dtype for field in made] == [np.int32, np.bool_, np.bool_] + 3 * [np.int32]
    same_state(backend.to_numpy(state), case.state)


class PlainEmbedding:
    """An embedding of no known framework, which can only be indexed."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self.rows = rows

    def __getitem__(self, places: NDArray[np.int32]) -> NDArray[np.float32]:
        return self.rows[places]


@law("2")
def recall_is_the_mean_by_weight(backend: Backend, case: Case) -> None:
    """A recall is the mean of the embedding's rows by the weights; 0 where nothing was found."""
    config = case.config
    table = np.random.default_rng(case.state["step"]).normal(size=(int(case.state["values"].max()) + 2, 3)).astype(np.float32)
    state = backend.from_numpy(config, case.state)
    found = backend.query(config, state, case.queries, None, case.mask)
    recalled, accepted = as_numpy(found.recall(backend.own(table, state))), as_numpy(found.accepted)
    plain = Lookup(*(None if field is None else as_numpy(field) for field in found))
    close("recall of a table of another kind", plain.recall(PlainEmbedding(table)), recalled, 1e-5 * np.abs(table).max())
    assert recalled.dtype == np.float32, recalled.dtype
    relative = tolerance.weight(config.key_dim, config.k, config.softmax_temperature, exact=True) + tolerance.gamma(
        config.k + 2
    )
    memory = oracle.from_numpy(config, case.state)
    for row, query in enumerate(case.queries):
        unit = normalize(query)
        neighbors = nearest_first(unit, memory)[: config.k] if unit is not None and accepted[row] else []
        expected = recall(config, neighbors, table)
        close(f"recall of row {row}", recalled[row], expected, relative * np.abs(table).max() if neighbors else 0.0)
