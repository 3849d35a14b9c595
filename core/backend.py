"""`ArrayBackend`, a backend made from a table of primitives. Its base class `Backend` is in `raremem.interface`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import guard
from .config import MAX_INT32, MemoryConfig, check_config, shown
from .errors import DeviceError, UnknownBackendError
from .interface import Backend
from .lineage import Lineage, is_current, note, pass_on, pass_on_changed
from .primitives import Primitives
from .rules.forget import forget
from .rules.plan import USUAL, UpdatePlan
from .rules.query import query, sound_rows
from .rules.scores import mean_of_rows, rows_of, scores
from .rules.write import update
from .search.contract import Searcher
from .search.live import IndexedSearch, LiveIndex
from .search.portable import PortableScan
from .state import (
    NO_SLOT,
    Array,
    ForgetReport,
    Lookup,
    MemoryState,
    PortableState,
    UpdateReport,
    check_portable,
    count_values,
    empty_portable,
    from_portable,
    to_portable,
)
from .validation import (
    TARGET_DTYPES,
    check_batch_size,
    check_column,
    check_kinds,
    check_lookup,
    check_named,
    check_named_numbers,
    check_no_rejects,
    check_padding,
    check_queries,
    check_state,
    check_targets,
    check_to_write,
    dtype_name,
)

__all__ = ["ArrayBackend", "Backend"]


class ArrayBackend(Backend):
    """The rules (`raremem.rules`) over one framework's primitives.

    Args:
        primitives: the framework's table; by default, one made by the class attribute `table`.
        searcher: how the nearest slots are found; by default, one made by the class attribute `search`.
        compiled: run `query` and `update` through the framework's compiler.
        plan: the sizes that an update is cut by.
    """

    table: Callable[[], Primitives] = Primitives
    """Makes the default table."""
    search: Callable[[], Searcher] = PortableScan
    """Makes the default searcher."""

    def __init__(
        self,
        primitives: Primitives | None = None,
        searcher: Searcher | None = None,
        *,
        compiled: bool = False,
        plan: UpdatePlan = USUAL,
    ) -> None:
        self.primitives = self.table() if primitives is None else primitives
        self.searcher = self.search() if searcher is None else searcher
        self.name = self.primitives.name
        self.compiled = compiled
        self.plan = plan
        self._query: Callable[..., Lookup] = partial(query, searcher=self.searcher)
        self._update: Callable[..., tuple[MemoryState, UpdateReport]] = self._search_and_write
        self._forget: Callable[..., tuple[MemoryState, ForgetReport]] = self._emptied
        if compiled:
            self._query, self._update = self.compile(self._query, self._update)

    @property
    def mode(self) -> str:
        return self.searcher.mode or super().mode

    @property
    def index(self) -> LiveIndex | None:
        """The live index that it searches with; None if its search is exact."""
        return self.searcher.index if isinstance(self.searcher, IndexedSearch) else None

    def compile(self, query: Callable[..., Any], update: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Both functions as the framework's compiler gives them; the first two arguments, table and config, are static.

        Raises:
            UnknownBackendError: it has none.
        """
        raise UnknownBackendError(f"backend {self.name!r} has no compiler; use it eager.")

    def indexed(self, index: LiveIndex) -> ArrayBackend:
        """A backend like this one that searches one memory with a live index."""
        return type(self)(self.primitives, IndexedSearch(index, self.searcher), plan=self.plan)

    def init(self, config: MemoryConfig) -> MemoryState:
        check_config(config)
        return self.from_numpy(config, empty_portable(config))

    def query(
        self,
        config: MemoryConfig,
        state: MemoryState,
        queries: Array,
        targets: Array | None = None,
        mask: Array | None = None,
        *,
        strict: bool = False,
    ) -> Lookup:
        p, queries, targets, mask = self._checked(config, state, queries, targets, mask, strict)
        keys, alone = p.identity(state.keys), self.searcher.alone
        memory = keys if p.in_place else None
        return guard.in_turn(memory, alone, self._answered, p, keys, config, state, queries, targets, mask)

    def _answered(
        self, p: Primitives, keys: Any, config: MemoryConfig, state: MemoryState, queries: Array, targets: Any, mask: Array
    ) -> Lookup:
        """`query`, once its arguments are checked and its turn has come. A batch without rows is looked up with one masked row
        added, and that row is removed from the answer."""
        if queries.shape[0]:
            lookup = self._query(p, config, state, queries, targets, mask)
        else:
            found = self._query(p, config, state, *_one_masked_row(p, config, state, queries, targets, mask))
            lookup = Lookup(*(None if field is None else field[:0] for field in found))
        if keys is not None:
            pass_on(keys, lookup.slots)
        return lookup

    def update(
        self,
        config: MemoryConfig,
        state: MemoryState,
        queries: Array,
        targets: Array,
        mask: Array | None = None,
        lookup: Lookup | None = None,
        *,
        strict: bool = False,
    ) -> tuple[MemoryState, UpdateReport]:
        p, queries, targets, mask = self._checked(config, state, queries, targets, mask, strict, lookup)
        check_to_write(targets, lookup, queries.shape[0])
        if not queries.shape[0]:
            return state, _nothing_written(p, state)
        keys = p.identity(state.keys)
        memory = keys if p.in_place else None
        return guard.in_turn(memory, True, self._updated, p, keys, config, state, queries, targets, mask, lookup)

    def _updated(
        self,
        p: Primitives,
        keys: Any,
        config: MemoryConfig,
        state: MemoryState,
        queries: Array,
        targets: Array,
        mask: Array,
        lookup: Any,
    ) -> tuple[MemoryState, UpdateReport]:
        """`update`, once its arguments are checked and its turn has come."""
        if lookup is not None and not is_current(p, config, state, lookup):
            again = self._query(p, config, state, queries, None, mask & lookup.accepted)
            lookup = again._replace(queries=lookup.queries, rejected=lookup.rejected)
        state, report = self._update(p, config, state, queries, targets, mask, lookup)
        pass_on_changed(keys, p.identity(state.keys))
        return state, report

    def table_for(self, *arrays: Any) -> Primitives:
        """The table for a call with these arrays. An adapter with several tables chooses one here, once a call."""
        return self.primitives

    def forget(
        self,
        config: MemoryConfig,
        state: MemoryState,
        *,
        slots: Array | Sequence[int] | int | None = None,
        values: Array | Sequence[int] | int | None = None,
        older_than: int | None = None,
    ) -> tuple[MemoryState, ForgetReport]:
        named = self._named(config, state, slots, values, older_than)
        return self.in_turn(state, True, self._forgotten, config, state, *named)

    def _forgotten(self, config: MemoryConfig, state: MemoryState, *named: Array | None) -> tuple[MemoryState, ForgetReport]:
        """`forget`, once its arguments are checked and its turn has come. An index is dropped first: it copies keys."""
        p = self.table_for(state.values, *named)
        if self.index is not None:
            self.index.drop()
        keys, taken = p.identity(state.keys), self.searcher.before_update(p, state)
        state, report = self._forget(config, state, *named)
        gone = None if taken is None else p.peek(report.forgotten)
        if gone is not None:
            self.searcher.after_update(p, state, p.asarray(np.flatnonzero(gone).astype(np.int32), state.values), taken)
        pass_on_changed(keys, p.identity(state.keys))
        return state, report

    def _emptied(self, config: MemoryConfig, state: MemoryState, *named: Array | None) -> tuple[MemoryState, ForgetReport]:
        """`rules.forget.forget`. A backend that compiles `forget` compiles this."""
        return forget(self.table_for(state.values, *named), config, state, *named)

    def _search_and_write(
        self,
        p: Primitives,
        config: MemoryConfig,
        state: MemoryState,
        queries: Array,
        targets: Array,
        mask: Array,
        lookup: Lookup | None,
    ) -> tuple[MemoryState, UpdateReport]:
        """Search, if there is no lookup, and `rules.write.update`. A compiled backend compiles this."""
        if lookup is None:
            lookup = query(p, config, state, queries, None, mask, self.searcher)
        taken = self.searcher.before_update(p, state)
        state, report = self._write(p, config, state, lookup, targets, mask)
        if taken is not None:
            self.searcher.after_update(p, state, report.slots[report.written], taken)
        return state, report

    def _write(
        self, p: Primitives, config: MemoryConfig, state: MemoryState, lookup: Lookup, targets: Array, mask: Array
    ) -> tuple[MemoryState, UpdateReport]:
        return update(p, config, state, lookup, targets, mask, self.plan)

    def recall(self, weights: Array, values: Array, embedding: Any) -> Array:
        """`Lookup.recall`: [B, dim], by weights and values [B, k] and an embedding, [values, dim] or called."""
        return mean_of_rows(weights, rows_of(self.primitives, embedding, values))

    def scores(self, weights: Array, values: Array, classes: int) -> Array:
        """`Lookup.scores`, of weights and values [B, k]: [B, classes]."""
        return scores(self.table_for(weights, values), weights, values, classes)

    def detached(self, lookup: Lookup) -> Lookup:
        """`Lookup.detach`."""
        p = self.table_for(*lookup)
        detached = Lookup(*(None if field is None else p.constant(field) for field in lookup))
        slots = p.identity(lookup.slots)
        if slots is not None:
            pass_on(slots, detached.slots)
        return detached

    def moved(self, lookup: Lookup, device: Any) -> Lookup:
        """`Lookup.to`."""
        raise DeviceError(
            f"a lookup of the backend {self.name!r} was asked to move to {shown(device)}; expected one of PyTorch. "
            "In JAX call jax.device_put(out, device)."
        )

    def in_numpy(self, lookup: Lookup) -> Lookup:
        """`Lookup.numpy`."""
        return Lookup(*(None if field is None else self.primitives.to_numpy(field) for field in lookup))

    def store(
        self, config: MemoryConfig, state: MemoryState, queries: Array, targets: Array, *, batch_size: int | None = None
    ) -> tuple[MemoryState, UpdateReport]:
        _, queries, targets, _ = self._checked(config, state, queries, targets, None, False)
        check_to_write(targets, None, queries.shape[0])
        size = check_batch_size(batch_size, queries.shape[0])
        reports: list[UpdateReport] = []
        for start in range(0, max(queries.shape[0], 1), size):
            rows = slice(start, start + size)
            state, report = self.update(config, state, queries[rows], targets[rows])
            reports.append(report)
        joined = self.primitives.xp.concatenate
        columns = [list(column) for column in zip(*reports, strict=True)]
        return state, UpdateReport(*map(joined, columns[:3]), *map(sum, columns[3:]))

    def counts(self, state: MemoryState) -> dict[int, int]:
        return count_values(self.in_turn(state, False, lambda: self.primitives.to_numpy(state.values)))

    def to_numpy(self, state: MemoryState) -> PortableState:
        arrays = self.in_turn(state, False, lambda: [self.primitives.to_numpy(array) for array in state])
        keys, values, last_used, hits, step = arrays
        return to_portable(keys, values, last_used, hits, int(step))

    def from_numpy(self, config: MemoryConfig, portable: Mapping[str, Any]) -> MemoryState:
        state = self._placed(from_portable(check_portable(config, portable)))
        note(self.primitives.identity(state.keys), Lineage())
        return state

    def _placed(self, state: MemoryState) -> MemoryState:
        """A NumPy state as arrays of this framework, on its device. Nothing else refers to the given arrays."""
        return MemoryState(*map(self.primitives.asarray, state))

    def copy(self, state: MemoryState) -> MemoryState:
        arrays = self.in_turn(state, False, lambda: [self.primitives.copy(array) for array in state])
        copied = MemoryState(*arrays)
        pass_on(self.primitives.identity(state.keys), self.primitives.identity(copied.keys))
        return copied

    def in_turn(self, state: MemoryState, alone: bool, call: Callable[..., Any], *arguments: Any) -> Any:
        """`call(*arguments)`, once no call of another thread on this memory excludes it. See `raremem.guard`."""
        memory = self.primitives.identity(state.keys) if self.primitives.in_place else None
        return guard.in_turn(memory, alone, call, *arguments)

    def _rows(self, slots: int) -> int:
        """How many rows the keys of so many slots have."""
        return slots

    def own(self, array: NDArray[Any], state: MemoryState, dtype: str | None = None) -> Array:
        own = self.primitives.asarray(array, state.keys)
        return own if dtype is None else self.primitives.cast(own, dtype)

    def _named(
        self, config: MemoryConfig, state: MemoryState, slots: Any, values: Any, older_than: int | None
    ) -> tuple[Array | None, Array | None, Array | None]:
        """The arguments of `forget` as arrays of this framework, checked; None for those that name nothing."""
        p = self.primitives
        check_kinds(config, state, MemoryState)
        check_state(config, (len(state.values), state.keys.shape[1]))
        check_padding(state.keys.shape[0], self._rows(config.slots))
        columns: list[Array | None] = []
        checked = zip(("slots", "values"), check_named(config, slots, values, older_than), strict=True)
        for (name, column), (least, most) in zip(checked, ((NO_SLOT, config.slots - 1), (0, MAX_INT32)), strict=True):
            if column is None or not column.shape[0]:
                columns.append(None)
                continue
            check_named_numbers(name, p.peek(column), least, most)
            column = p.asarray(column, state.values)
            if dtype_name(column) != "bool":
                column = p.cast(p.xp.where((column >= least) & (column <= most), column, NO_SLOT), "int32")
            columns.append(column)
        return columns[0], columns[1], None if older_than is None else p.asarray(np.asarray(older_than, np.int32), state.values)

    def _checked(
        self,
        config: MemoryConfig,
        state: MemoryState,
        queries: Array,
        targets: Any,
        mask: Any,
        strict: bool,
        lookup: Lookup | None = None,
    ) -> tuple[Primitives, Array, Array | None, Array]:
        """Check the arguments of a call. Returns the table for it, and queries, targets and mask as arrays of this framework on
        the state's device."""
        check_kinds(config, state, MemoryState)
        if lookup is not None:
            check_lookup(lookup)
        p = self.table_for(state.values, queries, targets, mask, *(lookup or ()))
        check_state(config, (len(state.values), state.keys.shape[1]))
        check_padding(state.keys.shape[0], self._rows(config.slots))
        batch = check_queries(config, queries)
        queries = p.asarray(queries, state.keys)
        seen_mask = None
        if mask is not None:
            check_column("mask entries", mask, batch, ("bool",))
            seen_mask = p.peek(mask)
        if targets is not None:
            dtype = check_column("targets", targets, batch, TARGET_DTYPES)
            seen = p.peek(targets)
            if seen is not None and (mask is None or seen_mask is not None):
                check_targets(seen, seen_mask)
            targets = p.asarray(targets, state.keys)
            if dtype != "int64":
                targets = p.cast(targets, "int32")
        rows = p.arange(batch, state.keys)
        mask = rows == rows if mask is None else p.asarray(mask, state.keys)  # a number would be a transfer to JAX's device
        if strict:
            rejected = mask & ~sound_rows(p, queries)
            check_no_rejects(p.peek(rejected, wait=True))
        return p, queries, targets, mask


def _one_masked_row(
    p: Primitives, config: MemoryConfig, state: MemoryState, queries: Array, targets: Array | None, mask: Array
) -> tuple[Array, Array | None, Array]:
    """A batch without rows, with one masked row added. Queries [0, key_dim] still get a gradient."""
    zero, joined = p.arange(1, state.values), p.xp.concatenate
    row = p.xp.broadcast_to(p.cast(zero, "float32")[:, None], (1, config.key_dim))
    return (
        joined([p.cast(queries, "float32"), row]),
        None if targets is None else joined([targets, zero]),
        joined([mask, zero != zero]),
    )


def _nothing_written(p: Primitives, state: MemoryState) -> UpdateReport:
    """The report of an update without rows."""
    none = p.arange(0, state.values)
    zero = p.cast(p.xp.sum(none, axis=0), "int32")
    return UpdateReport(none, none != none, none != none, zero, zero, zero)
