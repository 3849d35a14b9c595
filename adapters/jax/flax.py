"""The memory as a Flax NNX module, over the pure functions of `raremem.adapters.jax`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from flax import nnx

from raremem.adapters import jax as functional
from raremem.config import MemoryConfig, config_of
from raremem.guard import wholly
from raremem.state import ForgetReport, Lookup, MemoryState, UpdateReport
from raremem.validation import check_lookup


class MemoryVariable(nnx.Variable[jax.Array]):
    """An array of the memory's state. It is no `nnx.Param`, so optimizers do not change it."""


class Memory(nnx.Module):
    """A memory module: a call queries it and changes nothing, `update` writes to it.

    Args:
        config: the memory's size and rules.
        **fields: those of a `MemoryConfig`, instead of one: `Memory(slots=100, key_dim=8)`.

    >>> memory = Memory(MemoryConfig(slots=100, key_dim=8))
    >>> out = memory(jax.numpy.eye(8), jax.numpy.arange(8))
    >>> report = memory.update(out)
    >>> memory(jax.numpy.eye(8)[:2]).values[:, 0].tolist()
    [0, 1]
    """

    def __init__(self, config: MemoryConfig | None = None, **fields: Any) -> None:
        self.config = config_of(config, fields)
        self.keys, self.values, self.last_used, self.hits, self.step = map(MemoryVariable, functional.init(self.config))

    @property
    def state(self) -> MemoryState:
        """The arrays as a state of `raremem.adapters.jax`."""
        return MemoryState(self.keys[...], self.values[...], self.last_used[...], self.hits[...], self.step[...])

    def __call__(self, queries: jax.Array, targets: jax.Array | None = None, mask: jax.Array | None = None) -> Lookup:
        """Look up queries [B, key_dim]. With targets [B] the lookup has a `loss` [B]. See `Backend.query`."""
        return functional.query(self.config, self.state, queries, targets, mask)

    def update(self, lookup: Lookup, targets: jax.Array | None = None, mask: jax.Array | None = None) -> UpdateReport:
        """Write the rows of a lookup to the memory as it is now. See `Backend.update`.

        Args:
            lookup: what a call of this module returned.
            targets: the values [B] to write; default: the targets of that call.
            mask: [B] bool; rows where it is False are not written.
        """
        check_lookup(lookup)
        targets = lookup.targets if targets is None else targets
        queries = jax.lax.stop_gradient(lookup.queries)
        state, report = functional.update(self.config, self.state, queries, targets, mask, lookup)
        wholly(partial(self._set, jax.lax.stop_gradient(state)))
        return report

    def store(self, queries: jax.Array, targets: jax.Array, *, batch_size: int | None = None) -> UpdateReport:
        """Write a labelled set [N, key_dim], [N]: in one update, or in the order given, so many rows at a time.

        See `Backend.store` for the difference.
        """
        queries = jax.lax.stop_gradient(queries)
        state, report = functional.store(self.config, self.state, queries, targets, batch_size=batch_size)
        wholly(partial(self._set, jax.lax.stop_gradient(state)))
        return report

    def forget(
        self,
        *,
        slots: jax.Array | Sequence[int] | int | None = None,
        values: jax.Array | Sequence[int] | int | None = None,
        older_than: int | None = None,
    ) -> ForgetReport:
        """Empty slots as if they had never been filled. See `Backend.forget`."""
        state, report = functional.forget(self.config, self.state, slots=slots, values=values, older_than=older_than)
        wholly(partial(self._set, state))
        return report

    def clear(self) -> ForgetReport:
        """Forget all. The step stays."""
        return self.forget(slots=jax.numpy.ones(self.config.slots, bool))

    def counts(self) -> dict[int, int]:
        """How many slots each value has, by value, ascending."""
        return functional.counts(self.state)

    def __len__(self) -> int:
        """How many slots are filled."""
        return sum(self.counts().values())

    def __bool__(self) -> bool:
        """True, as any module is, whether anything is in it or not."""
        return True

    def _set(self, state: MemoryState) -> None:
        for name, array in state._asdict().items():
            getattr(self, name)[...] = array
