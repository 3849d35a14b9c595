"""PyTorch's backend: the functional interface. Updates are made in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raremem.adapters.numpy import NumpyShortlist
from raremem.adapters.torch import modes
from raremem.adapters.torch.primitives import EAGER, HOST, IN_NUMPY, TorchPrimitives
from raremem.adapters.torch.search import TorchSearch
from raremem.backend import ArrayBackend
from raremem.config import MemoryConfig, shown
from raremem.errors import DeviceError, ShapeError
from raremem.lineage import pass_on
from raremem.primitives import Primitives
from raremem.rules.plan import ANY_BATCH
from raremem.rules.scores import is_called, no_embedding, rows_of
from raremem.rules.write import update
from raremem.search.live import IndexedSearch, LiveIndex
from raremem.state import ForgetReport, Lookup, MemoryState, UpdateReport, backends_of, quietly

_update_quietly = quietly(update)


class TorchBackend(ArrayBackend):
    """`ArrayBackend` for PyTorch. Autograd does not record its updates.

    On a CPU NumPy writes, on the same storage: an update is many calls on few numbers, and those take a third of the time.
    """

    table = TorchPrimitives
    search = TorchSearch
    eager: Primitives | None = EAGER
    """The table for eager tensors on a CPU; None: use the table for any tensors."""
    host: Primitives = HOST
    """The table for NumPy views of tensors."""

    @property
    def capabilities(self) -> frozenset[str]:  # type: ignore[override]
        """vmap needs the eager mode: neither a compiled function nor an index can be mapped."""
        return frozenset({"gradients", "bfloat16", *({"vmap"} if self.mode == "eager" else ())})

    def random_state(self) -> bytes:
        return torch.get_rng_state().numpy().tobytes()

    def gradient(
        self,
        config: MemoryConfig,
        state: MemoryState,
        queries: Any,
        targets: Any,
        mask: Any,
        of: Callable[[Lookup], Tensor],
        by: str = "queries",
    ) -> tuple[Lookup, Callable[[], Tensor]]:
        rows: Tensor = torch.as_tensor(queries).detach().requires_grad_()
        keys: Any = getattr(state.keys, "own", state.keys)
        leaf: Tensor = rows if by == "queries" else keys.requires_grad_()
        found = self.query(config, state, rows, targets, mask)
        total = of(found).sum()

        def finish() -> Tensor:
            (gradient,) = torch.autograd.grad(total, [leaf], allow_unused=by == "keys")
            if by == "keys":
                leaf.requires_grad_(False)
            return torch.zeros_like(leaf) if gradient is None else gradient

        return found, finish

    def query_many(self, config: MemoryConfig, states: Sequence[MemoryState], queries: Any, targets: Any, mask: Any) -> Lookup:
        together = MemoryState(*(torch.stack(arrays) for arrays in zip(*states, strict=True)))
        return torch.func.vmap(partial(self.query, config))(together, *map(torch.as_tensor, (queries, targets, mask)))

    def compile(self, query: Callable[..., Any], update: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return _compiled_for_each_kind(query), torch.no_grad()(_compiled_for_each_kind(update))

    def indexed(self, index: LiveIndex) -> TorchBackend:
        search = IndexedSearch(index, self.searcher, (self.host, NumpyShortlist()), modes.writes)
        return type(self)(self.primitives, search, plan=self.plan)

    def table_for(self, *arrays: Any) -> Primitives:
        return self.primitives if self.compiled or self.eager is None or not modes.plain(arrays) else self.eager

    def update(
        self, config: MemoryConfig, state: MemoryState, *arguments: Any, **options: Any
    ) -> tuple[MemoryState, UpdateReport]:
        modes.check_may_write(state)
        return modes.without_gradients(super().update, config, state, *arguments, **options)

    def forget(self, config: MemoryConfig, state: MemoryState, **named: Any) -> tuple[MemoryState, ForgetReport]:
        modes.check_may_write(state)
        return modes.without_gradients(super().forget, config, state, **named)

    def recall(self, weights: Tensor, values: Tensor, embedding: Any) -> Tensor:
        """See `ArrayBackend.recall`. The gradient of `embedding[values]` would take five times as long on the CPU."""
        p = self.table_for(weights, values, embedding)
        if isinstance(embedding, Tensor):
            _check_has_rows(p, values, embedding)
            rows = F.embedding(values.clamp(min=0), embedding)
        elif is_called(embedding):
            if isinstance(embedding, nn.Embedding):
                _check_has_rows(p, values, embedding.weight)
            rows = rows_of(p, embedding, values)
        else:
            raise no_embedding(embedding)
        dtype = torch.promote_types(weights.dtype, rows.dtype)
        mean: Tensor = p.score(weights.to(dtype), rows.to(dtype).transpose(1, 2))
        return mean

    def moved(self, lookup: Lookup, device: Any) -> Lookup:
        try:
            there = torch.device(device)
        except (TypeError, RuntimeError) as error:
            raise DeviceError(
                f"{shown(device)} was given to Lookup.to; expected a device. To cast, cast single fields: out.weights.half()."
            ) from error
        other = Lookup(*(None if field is None else field.to(there) for field in lookup))
        pass_on(lookup.slots, other.slots)
        return other

    def _write(
        self, p: Primitives, config: MemoryConfig, state: MemoryState, found: Lookup, targets: Tensor, mask: Tensor
    ) -> tuple[MemoryState, UpdateReport]:
        if not p.eager:  # compiled, or on a GPU
            plan = ANY_BATCH if torch.compiler.is_compiling() else self.plan
            return update(p, config, state, found, targets, mask, plan)
        views = MemoryState(*map(IN_NUMPY, state))
        seen = Lookup(*(None if field is None else IN_NUMPY(field) for field in found))
        _, report = _update_quietly(self.host, config, views, seen, IN_NUMPY(targets), IN_NUMPY(mask), self.plan)
        keys = self._keys_here(state)
        if not keys.is_inference():
            torch.autograd.graph.increment_version(keys)
        return state, UpdateReport(*map(partial(torch.as_tensor, device=keys.device), report))

    def _keys_here(self, state: MemoryState) -> Tensor:
        """The tensor of the keys in this process."""
        keys: Tensor = state.keys
        return keys


def _check_has_rows(p: Primitives, values: Tensor, table: Tensor) -> None:
    """Check that an embedding has a row for each value [B, k], where values can be read."""
    if table.ndim != 2:
        raise ShapeError(f"the embedding has shape {tuple(table.shape)}; expected [values, dim], a row for each value.")
    if p.eager and values.numel() and (largest := int(values.max())) >= len(table):
        raise IndexError(
            f"the memory answers the value {largest}, and the embedding has {len(table)} rows; "
            "expected one for each value that the memory may hold."
        )


def _compiled_for_each_kind(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function(table, config, ...)`, separately for each table, config and kind of arguments.

    The compiler counts recompilations of each code object, and gives up after eight. So each program has its own copy.
    """

    @cache
    def compiled(p: Primitives, config: MemoryConfig, kinds: tuple[Any, ...]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            return function(p, config, *arguments)

        call.__code__ = call.__code__.replace()
        return torch.compile(call, fullgraph=True)

    return lambda p, config, *arguments: compiled(p, config, tuple(map(_kind, arguments)))(*arguments)


def _kind(argument: Any) -> Any:
    """All of an argument, beside its shape, that needs another program: dtype, gradient, layout."""
    if not isinstance(argument, Tensor):
        return type(argument)
    return argument.dtype, argument.requires_grad, argument.is_contiguous()


def default_device() -> str:
    """Where arrays go by default: the first CUDA device's name beside it, if there is one."""
    device = str(torch.get_default_device())
    return f"{device} (cuda: {torch.cuda.get_device_name()})" if torch.cuda.is_available() else device


backend = TorchBackend()
backends_of[Tensor] = backend
compiled_backend = TorchBackend(compiled=True)
BACKENDS = {None: backend, False: backend, True: compiled_backend}
