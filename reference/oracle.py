"""The specification as a memory: batches of rows, over the rules of one row in `raremem.reference.rules`, in plain loops.

What is stated here:

    rule 6  age
    rule 8  a masked row is not there
    rule 12 a lookup belongs to the memory that it was made on
    rule 13 keep: a row that hits takes a slot of its own, too
    rule 14 forget: slots that are named become as never filled, and no time passes

A state is never changed in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.backend import Backend
from raremem.config import MAX_INT32, MemoryConfig
from raremem.errors import StateError
from raremem.reference.rules import (
    OracleState,
    Slot,
    loss_of,
    merge,
    nearest_first,
    normalize,
    slots_for_misses,
    softmax,
)
from raremem.state import NO_SLOT, ForgetReport, Lookup, PortableState, UpdateReport, check_portable, empty_portable, wrap_int32
from raremem.validation import (
    TARGET_DTYPES,
    check_batch_size,
    check_column,
    check_kinds,
    check_named,
    check_named_numbers,
    check_no_rejects,
    check_queries,
    check_state,
    check_targets,
    check_to_write,
)


class OracleLookup(Lookup):
    """A lookup that knows its memory (rule 12); 0: that cannot be told."""

    memory: int = 0


class Oracle(Backend):
    """The specification behind the interface of every backend. Its states are never changed in place."""

    name = "reference"

    def init(self, config: MemoryConfig) -> OracleState:
        return self.from_numpy(config, empty_portable(config))

    def query(
        self,
        config: MemoryConfig,
        state: OracleState,
        queries: NDArray[Any],
        targets: NDArray[Any] | None = None,
        mask: NDArray[np.bool_] | None = None,
        *,
        strict: bool = False,
    ) -> Lookup:
        queries, targets, mask = _checked(config, state, queries, targets, mask)
        units, accepted, rejected = _units(queries, mask, strict)
        batch, k = len(queries), config.k
        values, slots = np.full((batch, k), -1, np.int32), np.full((batch, k), -1, np.int32)
        similarities, weights = np.zeros((batch, k), np.float32), np.zeros((batch, k), np.float32)
        loss = np.zeros(batch, np.float32)
        for row in np.flatnonzero(accepted):
            everyone = nearest_first(units[row], state)
            neighbors = everyone[:k]
            for place, (neighbor, weight) in enumerate(zip(neighbors, softmax(config, neighbors), strict=True)):
                values[row, place], slots[row, place] = neighbor.value, neighbor.slot
                similarities[row, place], weights[row, place] = neighbor.similarity, weight
            if targets is not None:
                loss[row] = loss_of(config, everyone, int(targets[row]))
        found = OracleLookup(
            values=values,
            slots=slots,
            similarities=similarities,
            weights=weights,
            found=slots[:, 0] >= 0,
            loss=None if targets is None else loss,
            queries=units,
            targets=None if targets is None else np.where(accepted, targets, 0).astype(np.int32),
            rejected=rejected,
            accepted=accepted,
            step=np.where(accepted, wrap_int32(state.step), 0).astype(np.int32),
        )
        found.memory = state.memory
        return found

    def update(
        self,
        config: MemoryConfig,
        state: OracleState,
        queries: NDArray[Any],
        targets: NDArray[Any],
        mask: NDArray[np.bool_] | None = None,
        lookup: Lookup | None = None,
        *,
        strict: bool = False,
    ) -> tuple[OracleState, UpdateReport]:
        queries, checked, mask = _checked(config, state, queries, targets, mask)
        check_to_write(checked, lookup, len(queries))
        units, accepted, rejected = _units(queries, mask, strict)
        if lookup is not None:
            units, accepted, rejected = _of_lookup(state, lookup, mask)
        hit, hits = _hits(state, units, accepted, targets)
        keep = config.write == "keep"
        waiting = np.flatnonzero(accepted if keep else accepted & ~hit).tolist()
        takers = list(zip(waiting, slots_for_misses(config, state, set(hits)), strict=False))

        written = {number: _hit_slot(config, state, number, rows, units) for number, rows in hits.items()}
        report_slots = np.full(len(queries), NO_SLOT, np.int32)
        for number, rows in hits.items():
            report_slots[rows] = NO_SLOT if keep else number
        for row, number in takers:
            report_slots[row] = number
            written[number] = Slot(units[row], int(targets[row]), 0, 0)

        report = UpdateReport(
            slots=report_slots,
            hit=hit,
            written=report_slots >= 0,
            rejected=np.int32(rejected.sum()),
            dropped=np.int32(len(waiting) - len(takers)),
            evicted=np.int32(sum(state.slots[number] is not None for _, number in takers)),
        )
        return _after(state, written), report

    def store(
        self, config: MemoryConfig, state: OracleState, queries: Any, targets: Any, *, batch_size: int | None = None
    ) -> tuple[OracleState, UpdateReport]:
        _checked(config, state, queries, targets, None)
        check_to_write(targets, None, len(queries))
        size = check_batch_size(batch_size, len(queries))
        reports: list[UpdateReport] = []
        for start in range(0, max(len(queries), 1), size):
            state, report = self.update(config, state, queries[start : start + size], targets[start : start + size])
            reports.append(report)
        columns = list(zip(*reports, strict=True))
        return state, UpdateReport(*map(np.concatenate, columns[:3]), *(np.int32(sum(column)) for column in columns[3:]))

    def forget(
        self,
        config: MemoryConfig,
        state: OracleState,
        *,
        slots: Any = None,
        values: Any = None,
        older_than: int | None = None,
    ) -> tuple[OracleState, ForgetReport]:
        check_kinds(config, state, OracleState)
        check_state(config, (len(state.slots), state.key_dim))
        slots, values = check_named(config, slots, values, older_than)
        check_named_numbers("slots", None if slots is None else np.asarray(slots), NO_SLOT, config.slots - 1)
        check_named_numbers("values", None if values is None else np.asarray(values), 0, MAX_INT32)
        numbers, gone = _numbers(slots), _numbers(values)
        forgotten = [
            slot is not None and (number in numbers or slot.value in gone or (older_than is not None and slot.age > older_than))
            for number, slot in enumerate(state.slots)
        ]
        left = tuple(None if goes else slot for goes, slot in zip(forgotten, state.slots, strict=True))
        return replace(state, slots=left), ForgetReport(np.array(forgotten), np.int32(sum(forgotten)))

    def to_numpy(self, state: OracleState) -> PortableState:
        empty = Slot(np.zeros(state.key_dim, np.float32), -1, 0, 0)
        slots = [slot or empty for slot in state.slots]
        return {
            "keys": np.stack([slot.key for slot in slots]),
            "values": np.array([slot.value for slot in slots], np.int32),
            "ages": np.array([slot.age for slot in slots], np.int32),
            "filled": np.array([slot is not None for slot in state.slots], np.bool_),
            "hits": np.array([slot.hits for slot in slots], np.int32),
            "step": state.step,
        }

    def from_numpy(self, config: MemoryConfig, portable: Mapping[str, Any]) -> OracleState:
        checked = check_portable(config, portable)
        slots = tuple(
            Slot(key.copy(), int(value), int(age), int(hits)) if filled else None
            for key, value, age, filled, hits in zip(
                checked["keys"], checked["values"], checked["ages"], checked["filled"], checked["hits"], strict=True
            )
        )
        return OracleState(slots, config.key_dim, checked["step"])

    def copy(self, state: OracleState) -> OracleState:
        return state


def _numbers(column: Any) -> set[int]:
    """The whole numbers that name what is forgotten: those in an array, or where a mask is True."""
    if column is None:
        return set()
    array = np.asarray(column)
    return set((np.flatnonzero(array) if array.dtype == np.bool_ else array).tolist())


def _units(
    queries: NDArray[Any], mask: NDArray[np.bool_], strict: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Rules 1 and 8: the unit rows, 0 for those left out; which rows count, and which are rejected."""
    units = np.zeros(queries.shape, np.float32)
    accepted, rejected = np.zeros(len(queries), np.bool_), np.zeros(len(queries), np.bool_)
    for row in np.flatnonzero(mask):
        unit = normalize(queries[row])
        if unit is None:
            rejected[row] = True
        else:
            accepted[row], units[row] = True, unit
    if strict:
        check_no_rejects(rejected)
    return units, accepted, rejected


def _of_lookup(
    state: OracleState, lookup: Lookup, mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Rule 12: what a lookup says of its rows, as `_units`. What it left out stays out; its neighbors are looked up again."""
    memory = getattr(lookup, "memory", 0)
    if memory not in (0, state.memory):
        raise StateError(
            f"the lookup is of memory {memory}; expected one of memory {state.memory}, which is updated. "
            "Give the one that query answered on it, or leave it out."
        )
    return lookup.queries, lookup.accepted & mask, lookup.rejected & mask


def _hits(
    state: OracleState, units: NDArray[np.float32], accepted: NDArray[np.bool_], targets: NDArray[Any]
) -> tuple[NDArray[np.bool_], dict[int, list[int]]]:
    """Rule 4: which rows hit, their nearest neighbor having their target, and the rows that hit each slot."""
    hit = np.zeros(len(units), np.bool_)
    hits: dict[int, list[int]] = {}
    for row in np.flatnonzero(accepted).tolist():
        nearest = nearest_first(units[row], state)[:1]
        if nearest and nearest[0].value == targets[row]:
            hit[row] = True
            hits.setdefault(nearest[0].slot, []).append(row)
    return hit, hits


def _hit_slot(config: MemoryConfig, state: OracleState, number: int, rows: list[int], units: NDArray[np.float32]) -> Slot:
    """Rules 4 and 13: a slot after these rows have hit it."""
    old = state.slots[number]
    assert old is not None
    key = old.key if config.write == "keep" else merge(old.key, [units[row] for row in rows])
    return Slot(key, old.value, 0, min(old.hits + len(rows), 127))


def _after(state: OracleState, written: dict[int, Slot]) -> OracleState:
    """Rule 6: if anything was written, every filled slot is a step older (up to 2**31 - 1), and what was written is new."""
    if not written:
        return state
    slots = [slot and replace(slot, age=min(slot.age + 1, 2**31 - 1)) for slot in state.slots]
    for number, slot in written.items():
        slots[number] = slot
    return replace(state, slots=tuple(slots), step=(state.step + 1) % 2**32)


def _checked(
    config: MemoryConfig, state: OracleState, queries: Any, targets: Any, mask: Any
) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[np.bool_]]:
    check_kinds(config, state, OracleState)
    check_state(config, (len(state.slots), state.key_dim))
    batch = check_queries(config, queries)
    if mask is not None:
        check_column("mask entries", mask, batch, ("bool",))
    mask = np.ones(batch, np.bool_) if mask is None else np.asarray(mask)
    if targets is not None:
        check_column("targets", targets, batch, TARGET_DTYPES)
        targets = np.asarray(targets)
        check_targets(targets, mask)
    return np.asarray(queries), targets, mask


def default_device() -> str:
    """Where arrays go."""
    return "cpu"


backend = Oracle()
BACKENDS = {None: backend, False: backend}
