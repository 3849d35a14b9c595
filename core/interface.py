"""What a backend is: the functional interface of a memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import MemoryConfig
from .state import Array, ForgetReport, Lookup, PortableState, UpdateReport, check_portable, count_values, resized


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
    def forget(
        self,
        config: MemoryConfig,
        state: Any,
        *,
        slots: Array | Sequence[int] | int | None = None,
        values: Array | Sequence[int] | int | None = None,
        older_than: int | None = None,
    ) -> tuple[Any, ForgetReport]:
        """Empty slots as if they had never been filled (rule 14): no byte of what was in them is left.

        A slot is forgotten that any of these names. What had merged into it goes with it. No time passes: ages and step stay.
        A lookup that was made before is looked up again by an `update` that takes it. An index is dropped, and built anew by
        the queries to come: until then search is exact.

        Args:
            config: the memory's config.
            state: the memory. It is consumed.
            slots: their numbers, [n] of an integer dtype, where -1 names none, so that `report.slots` of an update can be
                given; or a mask [slots] bool.
            values: [n] of an integer dtype: every slot that holds one of them.
            older_than: every slot whose age, in updates, is above this.

        Raises:
            ForgetError: nothing is named; or a number is no slot, no value or no age (where contents can be seen; else it
                names none).
            ShapeError, DTypeError, DeviceError: the arrays are none of these, or elsewhere.
            StateError: the state is one of another config.
            ConcurrencyError: another thread is using the state.
        """

    def clear(self, config: MemoryConfig, state: Any) -> tuple[Any, ForgetReport]:
        """Forget all. The step stays; `init` makes a memory that has seen nothing."""
        return self.forget(config, state, slots=np.ones(config.slots, np.bool_))

    def resize(self, config: MemoryConfig, state: Any, slots: int) -> tuple[MemoryConfig, Any, NDArray[np.int32]]:
        """A memory of the same content in another number of slots.

        Args:
            config: the memory's config.
            state: the memory. It is only read.
            slots: how many. With more, the new ones are empty, after the others. With fewer, what would be evicted first is
                left out (rule 5, without noise), and what is kept moves together in the order of its slots.

        Returns:
            Its config; its state; and [slots] i32, in NumPy, the slot that each slot was before, or -1 if it is new: by this
            whatever you keep for each slot moves too.

        Raises:
            ConfigError: `slots` is no number of slots.
            StateError: the state does not fit the config, or breaks an invariant.
        """
        other = replace(config, slots=slots)
        portable, kept = resized(config, check_portable(config, self.to_numpy(state)), other.slots)
        return other, self.from_numpy(other, portable), kept

    @abstractmethod
    def store(
        self, config: MemoryConfig, state: Any, queries: Array, targets: Array, *, batch_size: int | None = None
    ) -> tuple[Any, UpdateReport]:
        """Write a labelled set: in one update, or streamed in the order given.

        In one update all rows are read in the memory as it was before: of an empty memory none hits, and each takes a slot of
        its own as long as there are any. Streamed, a row is read in the memory that the batches before it have left: with
        `write="merge"` most rows of a class that is known then merge into its slots, so that far fewer are filled.

        Args:
            config: the memory's config.
            state: the memory. It is consumed.
            queries: [N, key_dim], as for `query`.
            targets: [N], as for `query`.
            batch_size: rows in an update; by default all.

        Returns:
            The state, and one report of all rows; a row's slot may have been taken by a later batch.

        Raises:
            ShapeError: `batch_size` is no whole number, or less than 1.
            RarememError: whatever `update` raises; all rows are checked before the first is written.
        """

    def counts(self, state: Any) -> dict[int, int]:
        """How many slots each value has, by value, ascending; their sum is the number of filled slots."""
        return count_values(self.to_numpy(state)["values"])

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
