"""What a backend is, and how one is made from a table of primitives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from . import guard
from .config import MemoryConfig
from .errors import UnknownBackendError
from .primitives import Primitives
from .provenance import Lineage, is_current, lineage_of, note, pass_on
from .rules.query import query, sound_rows
from .rules.work import CUT, Work
from .rules.write import update
from .search.contract import Searcher
from .search.live import IndexedSearch, LiveIndex
from .search.portable import PortableScan
from .state import (
    Array,
    Lookup,
    MemoryState,
    PortableState,
    UpdateReport,
    check_portable,
    empty_portable,
    from_portable,
    to_portable,
)
from .validation import (
    TARGET_DTYPES,
    check_column,
    check_kinds,
    check_no_rejects,
    check_queries,
    check_state,
    check_targets,
    check_to_write,
    dtype_name,
)


class Backend(ABC):
    """The functional interface of a memory: what every framework's adapter offers, and the oracle too.

    A state belongs to the backend that made it. `update` consumes the state it is given, so that nothing the size of the
    memory is ever copied: go on with the one it returns, and `copy` a state that you want to keep.
    """

    name: str
    """What `raremem.get_backend` calls it."""
    compiled: bool = False
    """Whether it runs through the framework's compiler."""
    capabilities: frozenset[str] = frozenset()
    """What it can beside queries and updates: "gradients" (`gradient`), "vmap" (`query_many`), "bfloat16" (rows in it)."""

    @property
    def mode(self) -> str:
        """How it runs: "eager", "compiled", "index" (with approximate search), or "sharded" (over several devices)."""
        return "compiled" if self.compiled else "eager"

    @abstractmethod
    def init(self, config: MemoryConfig) -> Any:
        """A memory that has seen nothing."""

    @abstractmethod
    def query(
        self,
        config: MemoryConfig,
        state: Any,
        queries: Array,
        targets: Array | None = None,
        mask: Array | None = None,
        *,
        strict: bool = False,
    ) -> Lookup:
        """Look a batch up (paper, section 2). The state is only read.

        Args:
            config: the memory's config.
            state: the memory.
            queries: [B, key_dim] of any float dtype; they need not be normalised.
            targets: [B] of an integer dtype, in [0, 2**31 - 1]: the right values, for the loss.
            mask: [B] bool; False: as if the row were not there.
            strict: raise for rows that would be rejected, instead of counting them.

        Raises:
            ShapeError, DTypeError, DeviceError: the arrays do not fit the config or each other.
            TargetError: a target is out of range (where contents can be seen; else the row is rejected).
            RejectedRowsError: `strict`, and a row is not finite or has no direction.
            StateError: the state is one of another config.
            ConcurrencyError: another thread is updating the state.
        """

    @abstractmethod
    def update(
        self,
        config: MemoryConfig,
        state: Any,
        queries: Array,
        targets: Array,
        mask: Array | None = None,
        lookup: Lookup | None = None,
        *,
        strict: bool = False,
    ) -> tuple[Any, UpdateReport]:
        """Write a batch to the memory (paper, section 2.2), each row read in the memory as it was before the batch.

        Args:
            config: the memory's config.
            state: the memory. It is consumed.
            queries: [B, key_dim], as for `query`.
            targets: [B], as for `query`.
            mask: [B] bool, as for `query`.
            lookup: what `query` answered for the same queries on this memory; saves a second search. What it left out (rows
                masked then, or rejected) is left out. If the memory has changed since, as where a label comes late, the rows
                are looked up again; in traced code, which cannot tell, a row is a hit only if its slot still holds its value.
            strict: as for `query`.

        Raises:
            StateError: the lookup was made on another memory, wherever that can be told. The state is then as it was.
            RarememError: whatever `query` raises.
        """

    @abstractmethod
    def to_numpy(self, state: Any) -> PortableState:
        """The state as NumPy arrays of its own: keys, values, ages, filled, hits, and the step."""

    @abstractmethod
    def from_numpy(self, config: MemoryConfig, portable: Mapping[str, Any]) -> Any:
        """The state of what `to_numpy` of any backend gave.

        Raises:
            StateError: it does not fit `config` or breaks an invariant.
        """

    @abstractmethod
    def copy(self, state: Any) -> Any:
        """A state of the same content that no update of the other will change."""

    def own(self, array: NDArray[Any], state: Any, dtype: str | None = None) -> Array:
        """A NumPy array as one of the backend's own framework, beside `state`: with these too the kit calls the backend.

        Args:
            array: of any shape.
            state: a memory; the array comes to lie where it does.
            dtype: to cast to, by NumPy's name, or "bfloat16" where that is declared.
        """
        return array if dtype is None else array.astype(dtype)

    def random_state(self) -> Any:
        """What the framework's global random generator holds, in a form that `==` compares; None: it has none."""
        return None

    def gradient(
        self,
        config: MemoryConfig,
        state: Any,
        queries: Array,
        targets: Array | None,
        mask: Array | None,
        of: Callable[[Lookup], Array],
        by: str = "queries",
    ) -> tuple[Lookup, Callable[[], Array]]:
        """A lookup, and the way back through it: what the conformance kit checks.

        Args:
            config, state, targets, mask: as for `query`.
            queries: [B, key_dim], of NumPy or of the framework; gradients have their dtype.
            of: what is differentiated: the sum of the array that it makes of the lookup.
            by: "queries" or "keys", the keys of the memory.

        Returns:
            The lookup, and a function that gives the gradient [B, key_dim] or [slots, key_dim]. It is called once, perhaps
            after updates of the memory, and gives what it would have given before them.

        Raises:
            NotImplementedError: the backend has no gradients.
        """
        raise NotImplementedError(f"backend {self.name!r} has no gradients.")

    def loss_gradient(
        self, config: MemoryConfig, state: Any, queries: Array, targets: Array, mask: Array | None = None
    ) -> Array:
        """The gradient [B, key_dim] of the summed loss by the queries.

        Raises:
            NotImplementedError: the backend has no gradients.
        """
        return self.gradient(config, state, queries, targets, mask, lambda found: found.loss)[1]()

    def query_many(self, config: MemoryConfig, states: Sequence[Any], queries: Array, targets: Array, mask: Array) -> Lookup:
        """Queries [M, B, key_dim] of M memories in one call, through the framework's vmap: what the conformance kit checks.

        Returns:
            A lookup whose arrays have a first dimension of M.

        Raises:
            NotImplementedError: the backend has no vmap.
        """
        raise NotImplementedError(f"backend {self.name!r} has no vmap.")


class ArrayBackend(Backend):
    """The rules (`raremem.rules`) over one framework's primitives.

    Args:
        primitives: the framework's table; by default a `table`.
        searcher: how the nearest slots are found; by default a `search`.
        compiled: run `query` and `update` through the framework's compiler.
        work: how much of an update is worked out at a time.
    """

    table: Callable[[], Primitives] = Primitives
    """Makes the table of a backend that is given none."""
    search: Callable[[], Searcher] = PortableScan
    """Makes its searcher; by default one for any compiler."""

    def __init__(
        self,
        primitives: Primitives | None = None,
        searcher: Searcher | None = None,
        *,
        compiled: bool = False,
        work: Work = CUT,
    ) -> None:
        self.primitives = self.table() if primitives is None else primitives
        self.searcher = self.search() if searcher is None else searcher
        self.name = self.primitives.name
        self.compiled = compiled
        self.work = work
        self._query: Callable[..., Lookup] = self._answer
        self._update: Callable[..., tuple[MemoryState, UpdateReport]] = self._search_and_write
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
        """Both functions as the framework's compiler gives them; `config`, the first argument, is static.

        Raises:
            UnknownBackendError: it has none.
        """
        raise UnknownBackendError(f"backend {self.name!r} has no compiler; use it eager.")

    def indexed(self, index: LiveIndex) -> ArrayBackend:
        """A backend like this one that searches one memory with a live index."""
        return type(self)(self.primitives, IndexedSearch(index, self.searcher), work=self.work)

    def init(self, config: MemoryConfig) -> MemoryState:
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
        keys = p.identity(state.keys)
        memory = _memory(p, keys)
        return guard.in_turn(memory, self.searcher.alone, self._answered, keys, config, state, queries, targets, mask)

    def _answered(self, keys: Any, config: MemoryConfig, state: MemoryState, *rows: Any) -> Lookup:
        """`query` of what was checked, when it is its turn."""
        found = self._query(config, state, *rows)
        if keys is not None:
            pass_on(keys, found.slots)
        return found

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
        p, queries, targets, mask = self._checked(config, state, queries, targets, mask, strict)
        check_to_write(targets, lookup, queries.shape[0])
        keys = p.identity(state.keys)
        memory = _memory(p, keys)
        return guard.in_turn(memory, True, self._updated, keys, config, state, queries, targets, mask, lookup)

    def _updated(
        self, keys: Any, config: MemoryConfig, state: MemoryState, queries: Array, targets: Array, mask: Array, lookup: Any
    ) -> tuple[MemoryState, UpdateReport]:
        """`update` of what was checked, when it is its turn."""
        if lookup is not None and not is_current(self.table_for(state.values, *lookup), config, state, lookup):
            again = self._query(config, state, queries, None, mask & lookup.accepted)
            lookup = again._replace(queries=lookup.queries, rejected=lookup.rejected)
        state, report = self._update(config, state, queries, targets, mask, lookup)
        lineage = None if keys is None else lineage_of(keys)
        if lineage is not None:
            lineage.updates += 1
            note(self.primitives.identity(state.keys), lineage)
        return state, report

    def table_for(self, *arrays: Any) -> Primitives:
        """The table for a call with these arrays; a framework that has several asks here, and once, which of them it is."""
        return self.primitives

    def _answer(self, config: MemoryConfig, state: MemoryState, queries: Array, targets: Array | None, mask: Array) -> Lookup:
        """`rules.query.query`: what is compiled."""
        p = self.table_for(state.values, queries, targets, mask)
        return query(p, config, state, queries, targets, mask, self.searcher)

    def _search_and_write(
        self, config: MemoryConfig, state: MemoryState, queries: Array, targets: Array, mask: Array, lookup: Lookup | None
    ) -> tuple[MemoryState, UpdateReport]:
        """`rules.write.update`, of a lookup that is made if none is given: what is compiled."""
        found = self._answer(config, state, queries, None, mask) if lookup is None else lookup
        p = self.table_for(state.values, *found, targets, mask)
        taken = self.searcher.take(p, state)
        state, report = self._write(p, config, state, found, targets, mask)
        if taken is not None:
            self.searcher.written(p, state, report.slots[report.written], taken)
        return state, report

    def _write(
        self, p: Primitives, config: MemoryConfig, state: MemoryState, found: Lookup, targets: Array, mask: Array
    ) -> tuple[MemoryState, UpdateReport]:
        return update(p, config, state, found, targets, mask, self.work)

    def to_numpy(self, state: MemoryState) -> PortableState:
        arrays = self.in_turn(state, False, lambda: [self.primitives.to_numpy(array) for array in state])
        keys, values, last_used, hits, step = arrays
        return to_portable(keys, values, last_used, hits, int(step))

    def from_numpy(self, config: MemoryConfig, portable: Mapping[str, Any]) -> MemoryState:
        state = self._placed(from_portable(check_portable(config, portable)))
        note(self.primitives.identity(state.keys), Lineage())
        return state

    def _placed(self, state: MemoryState) -> MemoryState:
        """A NumPy state, which nothing else holds, in this framework's arrays, where the backend has its memories."""
        return MemoryState(*map(self.primitives.asarray, state))

    def copy(self, state: MemoryState) -> MemoryState:
        arrays = self.in_turn(state, False, lambda: [self.primitives.copy(array) for array in state])
        copied = MemoryState(*arrays)
        pass_on(self.primitives.identity(state.keys), self.primitives.identity(copied.keys))
        return copied

    def in_turn(self, state: MemoryState, alone: bool, call: Callable[..., Any], *arguments: Any) -> Any:
        """`call(*arguments)` when no other thread's call on this memory is in its way. See `raremem.guard`."""
        return guard.in_turn(_memory(self.primitives, self.primitives.identity(state.keys)), alone, call, *arguments)

    def own(self, array: NDArray[Any], state: MemoryState, dtype: str | None = None) -> Array:
        own = self.primitives.asarray(array, state.keys)
        return own if dtype is None else self.primitives.cast(own, dtype)

    def _checked(
        self, config: MemoryConfig, state: MemoryState, queries: Array, targets: Any, mask: Any, strict: bool, least: int = 1
    ) -> tuple[Primitives, Array, Array | None, Array]:
        """The table for the call, and its inputs as this framework's arrays on the state's device, after every check that can
        be made here."""
        check_kinds(config, state, MemoryState)
        p = self.table_for(state.values, queries, targets, mask)
        check_state(config, (len(state.values), state.keys.shape[1]))
        batch = check_queries(config, queries, least)
        queries = p.asarray(queries, state.keys)
        seen_mask = None
        if mask is not None:
            check_column("mask entries", mask, batch, ("bool",))
            seen_mask = p.peek(mask)
        if targets is not None:
            check_column("targets", targets, batch, TARGET_DTYPES)
            seen = p.peek(targets)
            if seen is not None and (mask is None or seen_mask is not None):
                check_targets(seen, seen_mask)
            targets = p.asarray(targets, state.keys)
            if dtype_name(targets) != "int64":
                targets = p.cast(targets, "int32")
        rows = p.arange(batch, state.keys)
        mask = rows == rows if mask is None else p.asarray(mask, state.keys)  # a number would be a transfer to JAX's device
        if strict:
            rejected = mask & ~sound_rows(p, queries)
            check_no_rejects(p.peek(rejected, wait=True))
        return p, queries, targets, mask


def _memory(p: Primitives, keys: Any) -> int | None:
    """What stands for a memory in `raremem.guard`, by what stands for its keys; None where no turns need be taken."""
    return id(keys) if p.in_place and keys is not None else None
