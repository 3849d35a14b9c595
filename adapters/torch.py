"""The PyTorch backend, and `Memory`, the same as an `nn.Module`. Updates are made in place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from raremem import algorithm
from raremem.adapters import torch_modes, torch_ops, torch_shadow
from raremem.adapters.numpy import NumpyPrimitives
from raremem.adapters.torch_module import MemoryModule
from raremem.backend import ArrayBackend
from raremem.config import MAX_INT32, MemoryConfig
from raremem.errors import DeviceError, ShapeError, StateError
from raremem.index import LiveIndex
from raremem.primitives import Primitives, set_all
from raremem.registry import get_index
from raremem.state import Lookup, MemoryState, UpdateReport, means_of_rows, quietly

KERNELS = torch.cuda.is_available() and find_spec("triton") is not None
if KERNELS:
    from raremem.adapters import torch_gpu

LARGE = 2**14
"""Slots from which on a compiled program for the CPU searches as an eager one does: what a compiler makes of the search, with
shapes that do not depend on data, takes two to ten times as long, and minutes to be made."""

Carry = TypeVar("Carry")


class TorchPrimitives(Primitives):
    """The table for PyTorch."""

    name = "torch"
    xp: Any = torch

    def asarray(self, array: Any, like: Tensor) -> Tensor:
        if not isinstance(array, Tensor):
            return torch.as_tensor(array if torch.compiler.is_compiling() else torch_modes.native(array), device=like.device)
        if array.device != like.device:
            raise DeviceError(
                f"an input is on {array.device}; expected {like.device}, where the memory is. "
                "Move one of them with .to(device)."
            )
        return array

    def to_numpy(self, array: Tensor) -> NDArray[Any]:
        if not torch_modes.has_content(array):
            raise DeviceError(
                "a tensor on meta, in a trace or in a transform of torch.func was asked for its content; expected one that has "
                "it. Make the memory on a device (and load its state_dict), and call this outside the trace."
            )
        return np.array(array.detach().cpu().numpy())

    def from_numpy(self, state: MemoryState) -> MemoryState:
        with torch.inference_mode(False):
            device = torch.get_default_device()
            return MemoryState(*(torch.tensor(array, device=device) for array in state))

    def copy(self, array: Tensor) -> Tensor:
        with torch.inference_mode(False):
            return array.detach().clone()

    def peek(self, array: Any, wait: bool = False) -> NDArray[Any] | None:
        if not isinstance(array, Tensor):
            return np.asarray(array)
        if not torch_modes.seen(array):
            return None
        return array.detach().cpu().numpy() if wait or array.device.type == "cpu" else None

    def identity(self, array: Tensor) -> Tensor | None:
        return None if torch_modes.traced() else array

    def writes(self, array: Tensor) -> int | None:
        return torch_modes.writes(array)

    def eager(self, array: Tensor) -> bool:
        return array.device.type == "cpu" and torch_modes.seen(array)

    def in_numpy(self) -> Primitives:
        return NumpyBesideTorch()

    def coarse(self, state: MemoryState, batch: int) -> tuple[Tensor, str, float]:
        """bf16 has 8 significant bits. For fewer queries, to convert the keys costs what it saves."""
        if not torch.cpu._is_avx512_bf16_supported():
            return super().coarse(state, batch)
        keys = torch_shadow.in_bf16(state)
        if keys is state.keys and batch < 8:
            return super().coarse(state, batch)
        return keys, "bfloat16", 2.0**-8

    def cast(self, array: Tensor, dtype: str) -> Tensor:
        return array.to(getattr(torch, dtype))

    def constant(self, array: Tensor) -> Tensor:
        return array.detach()

    def arange(self, count: int, like: Tensor) -> Tensor:
        return torch.arange(count, dtype=torch.int32, device=like.device)

    def multiply(self, array: Tensor, factor: int) -> Tensor:
        return (array.long() * factor).to(torch.int32)

    def power_of_two(self, array: Tensor) -> Tensor:
        return _bits_as(_bits_as(array, torch.int32) & 0x7F800000, torch.float32)

    def inner(self, left: Tensor, right: Tensor) -> Tensor:
        with torch_modes.without_autocast(left):
            if torch_modes.rounded(left):
                return (left.double() @ right.double().T).float()
            if self.eager(right) and len(right) == 1 and right.shape[1] > 64:  # MKL takes twice as long for one row as for two
                return (left @ right.repeat(2, 1).T)[:, :1]
            return left @ right.T

    def score(self, queries: Tensor, keys: Tensor) -> Tensor:
        if keys.is_cuda or torch_modes.rounded(keys):  # on CUDA as if always: nothing waits for a product to be tried
            return (keys * queries[:, None, :]).sum(2)
        with torch_modes.without_autocast(keys):  # MKL takes six times as long for keys times a column
            return torch.matmul(queries[:, None, :], keys.transpose(1, 2))[:, 0]

    def top_k(self, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
        columns = torch.arange(scores.shape[1], device=scores.device)
        ranks = _rank_high_first(scores, columns)
        ranks = ranks.amax(1, keepdim=True) if k == 1 else torch.topk(ranks, k, dim=1).values
        best = ranks.to(torch.int32) ^ MAX_INT32
        return self.take_along(scores, best), best

    def blocks(self) -> bool:
        """Not compiled: for blocks of a batch of any size torch 2.13 writes C++ that does not compile."""
        return not torch.compiler.is_compiling()

    def held(self, queries: Tensor) -> int:
        return super().held(queries) * (32 if queries.is_cuda else 1)

    def take_rows(self, array: Tensor, rows: Tensor, into: Tensor | None = None) -> Tensor:
        """On the CPU `array[rows]` copies number by number, and this row by row."""
        if not self.eager(array):
            return array[rows]
        out = None if into is None else into[: len(rows)].flatten(0, rows.ndim - 1)
        return torch.index_select(array, 0, rows.reshape(-1), out=out).reshape(*rows.shape, *array.shape[1:])

    def sums(self, chosen: Tensor, rows: Tensor) -> Tensor:
        return (chosen.double() @ rows.double()).float() if rows.is_cuda else super().sums(chosen, rows)  # not in tf32

    def nearest(
        self, state: MemoryState, queries: Tensor, targets: Tensor | None, k: int
    ) -> tuple[Tensor, Tensor | None] | None:
        if _searched_by_an_operator(state, queries):
            slots, best = torch_ops.nearest(list(state), queries, targets, k)
        elif KERNELS and queries.is_cuda:
            slots, best = torch_gpu.nearest(state.keys, state.values, queries, targets, k)
        else:
            return None
        return slots, None if targets is None else best

    def block_maxima(self, scores: Tensor, width: int) -> Tensor:
        """Those of bf16 by their bits, in a quarter of the time: from 0.0 on these order as the numbers do; what is below
        counts as 0.0."""
        if scores.dtype != torch.bfloat16:
            return super().block_maxima(scores, width)
        bits = scores.view(torch.int16).view(width, -1, scores.shape[1]).amax(0)
        return bits.clamp_(min=0).view(torch.bfloat16)

    def largest(self, scores: Tensor, k: int) -> Tensor:
        return torch.topk(scores, k, dim=1, sorted=False).indices

    def sort_order(self, scores: Tensor, slots: Tensor, k: int | None = None) -> Tensor:
        return torch.topk(_rank_high_first(scores, slots), scores.shape[1] if k is None else k, dim=1).indices

    def take_along(self, array: Tensor, columns: Tensor) -> Tensor:
        return torch.gather(array, 1, columns.long())

    def slice_rows(self, array: Tensor, start: int, count: int) -> Tensor:
        return array[start : start + count]

    def put_rows(self, array: Tensor, rows: Tensor, content: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            content = torch_ops.computed_before(content)
        return array.index_copy_(0, rows.long(), content)

    def write(self, state: MemoryState, slots: Tensor, content: MemoryState) -> MemoryState:
        if torch.compiler.is_compiling():
            after = super().write(state, slots, content)
            return MemoryState(after.keys, after.values, after.last_used, after.hits, state.step.copy_(after.step))
        slots = slots.long()
        set_all(state, (slots, slots, slots, slots, ()), content)
        return state

    def snapshot(self, array: Tensor, rows: Tensor) -> Tensor:
        return array.clone() if rows.requires_grad and torch.is_grad_enabled() else array

    def gather_rows(self, array: Tensor, rows: Tensor, unit: Tensor) -> Tensor:
        """Compiled code would rather gather the keys again on the way back, and find them written to."""
        if torch.compiler.is_compiling() and unit.requires_grad and torch.is_grad_enabled():
            return torch_ops.gathered(array, rows)
        return self.take_rows(array, rows)

    def compiled(self, query: Callable[..., Any], update: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return _compiled_for_each_kind(query), torch.no_grad()(_compiled_for_each_kind(update))


def _compiled_for_each_kind(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(config, ...)` compiled, a program of its own for each config and each kind of arguments.

    The compiler counts recompilations by code object and gives up after eight; a copy has a count of its own.
    """

    @cache
    def compiled(config: MemoryConfig, kinds: tuple[Any, ...]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            return function(config, *arguments)

        call.__code__ = call.__code__.replace()
        return torch.compile(call, fullgraph=True)

    return lambda config, *arguments: compiled(config, tuple(map(_kind, arguments)))(*arguments)


def _kind(argument: Any) -> Any:
    """What a compiler makes another program for, beside shapes."""
    if not isinstance(argument, Tensor):
        return type(argument)
    return argument.dtype, argument.requires_grad, argument.is_contiguous()


def _searched_by_an_operator(state: MemoryState, queries: Tensor) -> bool:
    """Where a compiler would make a slow search, and in transforms of `torch.func`: it is then that of the plain tensors."""
    if torch.compiler.is_compiling():
        return queries.device.type == "cpu" and state.values.shape[0] >= LARGE
    return torch_modes.transformed()


def _bits_as(array: Tensor, dtype: torch.dtype) -> Tensor:
    operator = not torch.compiler.is_compiling() and torch_modes.transformed()
    return torch_ops.bits_as(array, dtype) if operator else array.view(dtype)


def _rank_high_first(scores: Tensor, ties: Tensor) -> Tensor:
    """One i64 for each entry, largest where it comes first: highest score, then lowest tie-breaker of i32.

    The bits of an f32, its magnitude bits flipped where it is negative, order as the numbers do; one more makes -0.0 equal 0.0.
    """
    if scores.dtype == torch.float32:
        bits = _bits_as(scores, torch.int32)
        sign = bits >> 31
        scores = (bits ^ (sign & 0x7FFFFFFF)) - sign
    return (scores.long() << 32) + (ties ^ MAX_INT32)


def _mean_of_rows(weights: Tensor, values: Tensor, embedding: Tensor) -> Tensor:
    """To differentiate `embedding[values]` takes five times as long on the CPU."""
    if TorchPrimitives().eager(values) and values.numel() and (largest := int(values.max())) >= len(embedding):
        raise IndexError(
            f"the memory answers the value {largest}, and the embedding has {len(embedding)} rows; "
            "expected one for each value that the memory may hold."
        )
    rows = F.embedding(values.clamp(min=0), embedding)
    dtype = torch.promote_types(weights.dtype, rows.dtype)
    return TorchPrimitives().score(weights.to(dtype), rows.to(dtype).transpose(1, 2))


means_of_rows[Tensor] = _mean_of_rows


class NumpyBesideTorch(NumpyPrimitives):
    """NumPy's table with PyTorch's products: the threads of two libraries for these would get in each other's way."""

    def inner(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
        return TorchPrimitives().inner(torch.from_numpy(left), torch.from_numpy(right)).numpy()

    def score(self, queries: NDArray[Any], keys: NDArray[Any]) -> NDArray[Any]:
        return TorchPrimitives().score(torch.from_numpy(queries), torch.from_numpy(keys)).numpy()


class TorchBackend(ArrayBackend):
    """`ArrayBackend` whose writes leave no trace in the autograd graph, and are NumPy's, in the same memory, on the CPU: its
    many calls on a few numbers each take a third of the time."""

    @property
    def capabilities(self) -> frozenset[str]:  # type: ignore[override]
        """vmap goes through what is eager alone: neither a compiled function nor an index can be mapped."""
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

    def update(
        self, config: MemoryConfig, state: MemoryState, *arguments: Any, **options: Any
    ) -> tuple[MemoryState, UpdateReport]:
        torch_modes.check_may_write(state)
        with torch.no_grad():
            return super().update(config, state, *arguments, **options)

    def _write(
        self, config: MemoryConfig, state: MemoryState, found: Lookup, targets: Tensor, mask: Tensor
    ) -> tuple[MemoryState, UpdateReport]:
        if not self.primitives.eager(state.values):  # compiled, or on a GPU
            return super()._write(config, state, found, targets, mask)
        keys, p = self._keys_here(state), self.primitives.in_numpy()
        shadow, views, seen = (
            torch_shadow.take(state._replace(keys=keys)),
            MemoryState(*map(_view, state)),
            Lookup(*map(_view, found)),
        )
        after, report = quietly(algorithm.update)(p, config, views, seen, _view(targets), _view(mask))
        if not keys.is_inference():
            torch.autograd.graph.increment_version(keys)
        if shadow is not None:
            shadow.write(keys, after.step, self._places_here(state, report.slots[report.written]))
        to_tensor = partial(torch.as_tensor, device=keys.device)
        return state, UpdateReport(*map(to_tensor, report))

    def _keys_here(self, state: MemoryState) -> Tensor:
        """The keys that are in this process."""
        keys: Tensor = state.keys
        return keys

    def _places_here(self, state: MemoryState, slots: NDArray[np.int32]) -> NDArray[np.int32]:
        """Where among these the keys of slots [n] are, those that are."""
        return slots


class Memory(MemoryModule):
    """The memory as a module: query it in `forward`, write to it with `update`.

    `forward` never changes the memory. All state is in buffers of fixed shape, so `state_dict`, `.to`, `deepcopy`,
    `torch.compile(fullgraph=True)`, autocast and gradient checkpointing work as for any module. Keys stay f32 whatever
    dtype the module is moved to. Beside the buffers, a large memory on the CPU keeps its keys in bf16 (`torch_shadow`).

    Args:
        config: size and behaviour.
        query_dim: if given, a learned linear map without bias takes queries from this many dimensions to `key_dim`
            (the projection of the original authors' code; the paper has none).
        strict: raise for rows that would be rejected. Waits for the device at every call.
        index: approximate search (rule 10), on the CPU: "annoy", "faiss", "hnswlib", or what `raremem.get_index` gave. It is
            no part of `state_dict`: it is built anew. By default search is exact.
        device: where to make it; by default PyTorch's default device.

    A state_dict is loaded whole, after every check of its shapes, dtypes and content, or not at all (`LoadError`); it holds the
    config, and another config is an error. Whatever fills buffers without content (`to_empty`) leaves the memory empty.

    >>> memory = Memory(MemoryConfig(slots=100, key_dim=8))
    >>> query, target = torch.randn(4, 8, requires_grad=True), torch.tensor([0, 1, 2, 3])
    >>> out = memory(query, target)
    >>> out.loss.mean().backward()
    >>> report = memory.update(out)
    >>> bool((memory(query).values[:, 0] == target).all())
    True
    """

    def __init__(
        self,
        config: MemoryConfig,
        query_dim: int | None = None,
        strict: bool = False,
        index: str | LiveIndex | None = None,
        device: Any = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.strict = strict
        self.index = get_index(index) if isinstance(index, str) else index
        self.backend = self._backend()
        with torch.inference_mode(False):
            self.projection = None if query_dim is None else nn.Linear(query_dim, config.key_dim, bias=False, device=device)
        self._register(device)

    def _backend(self) -> TorchBackend:
        return backend if self.index is None else TorchBackend(backend.primitives, index=self.index)

    def forward(self, query: Tensor, target: Tensor | None = None, mask: Tensor | None = None) -> Lookup:
        """Look up query [B, key_dim or query_dim]; with target [B], `loss` [B] too. See `Backend.query`.

        Raises: as `Backend.query` does, and StateError if something else has written to the buffers: they are no memory.
        """
        self._look()
        state, query = self.state, self._projected(query)
        if state.keys.dtype != torch.float32:  # in code that is traced; else `_look` has put them back
            state = state._replace(keys=state.keys.float())
        return self.backend.query(self.config, state, query, target, mask, strict=self.strict)

    def update(self, lookup: Lookup, target: Tensor | None = None, mask: Tensor | None = None) -> UpdateReport:
        """Write the rows of a `forward` on the memory as it is now, with its targets or those given here.

        With `mask` [B], only the rows where it is True.

        Call it after `backward` where gradient checkpointing is used: what is replayed must find the memory as it was. An
        update that is itself replayed is left out, with a warning, and so never made twice.

        With several ranks of `torch.distributed` it writes the rows of this one alone, and warns once:
        `raremem.adapters.distributed.update` writes those of all.

        Raises:
            StateError: the lookup was made without targets, and none are given; or what was written would be lost: this is a
                replica of DataParallel, or DistributedDataParallel broadcasts the buffers.
        """
        if not torch.compiler.is_compiling():
            self._check_is_written_alone()
        lookup, target = self._to_write(lookup, target)
        return self._write(lookup, target, mask)

    def _projected(self, query: Tensor) -> Tensor:
        if self.projection is None:
            return query
        if query.ndim != 2 or query.shape[1] != self.projection.in_features:
            raise ShapeError(
                f"queries have shape {tuple(query.shape)}; expected [batch, {self.projection.in_features}] for this query_dim. "
                "Reshape them, or make the memory with that query_dim."
            )
        projected: Tensor = self.projection(query)
        return projected

    def _to_write(self, lookup: Lookup, target: Tensor | None) -> tuple[Lookup, Tensor]:
        """What an update is to write of a lookup: nothing, if it is replayed."""
        target = lookup.targets if target is None else target
        if target is None:
            raise StateError("the lookup has no targets; call memory(query, target), or memory.update(out, target).")
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            warnings.warn("Memory.update was replayed by gradient checkpointing and left out.", stacklevel=3)
            unwritten = lookup.accepted & False
            lookup = lookup._replace(accepted=unwritten, rejected=unwritten)
        return lookup, target

    def _write(self, lookup: Lookup, target: Tensor, mask: Tensor | None) -> UpdateReport:
        self._look()
        report = self.backend.update(self.config, self.state, lookup.queries, target, mask, lookup)[1]
        self._note(report)
        return report

    def extra_repr(self) -> str:
        """The config, for `repr`. (In words that a compiler takes: `torch.func.vmap` asks for them.)"""
        return ", ".join([f"{name}={value!r}" for name, value in vars(self.config).items()])


def _view(tensor: Tensor | None) -> Any:
    """The same memory as a NumPy array."""
    return None if tensor is None else tensor.detach().numpy()


def default_device() -> str:
    """Where arrays go by default: the first CUDA device's name beside it, if there is one."""
    device = str(torch.get_default_device())
    return f"{device} (cuda: {torch.cuda.get_device_name()})" if torch.cuda.is_available() else device


backend = TorchBackend(TorchPrimitives())
compiled_backend = TorchBackend(TorchPrimitives(), compiled=True)
BACKENDS = {None: backend, False: backend, True: compiled_backend}
