"""A step of training (query, loss, gradient, update) as a user of each framework writes it.

Each function here returns a function that takes one step, on the next of the given batches in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import raremem
from raremem.config import MemoryConfig

Batches = Sequence[tuple[Any, Any]]
"""Queries [B, key_dim] and targets [B] of each, in the arrays of the backend."""


def training_step(backend: raremem.Backend, config: MemoryConfig, state: Any, batches: Batches) -> Callable[[], object]:
    """A step through the functional interface; NumPy has no gradient."""
    if backend.name == "torch":
        return _torch_step(backend, config, state, batches)
    if backend.name == "jax":
        return _jax_step(config, state, batches)
    held, turns = [state], cycle(batches)

    def step() -> None:
        rows, targets = next(turns)
        out = backend.query(config, held[0], rows, targets)
        held[0], _ = backend.update(config, held[0], rows, targets, lookup=out)

    return step


def _torch_step(backend: raremem.Backend, config: MemoryConfig, state: Any, batches: Batches) -> Callable[[], object]:
    held, turns = [state], cycle([(rows.requires_grad_(), targets) for rows, targets in batches])

    def step() -> None:
        rows, targets = next(turns)
        out = backend.query(config, held[0], rows, targets)
        assert out.loss is not None
        out.loss.mean().backward()
        held[0], _ = backend.update(config, held[0], out.queries, targets, lookup=out)

    return step


def _jax_step(config: MemoryConfig, state: Any, batches: Batches) -> Callable[[], object]:
    import jax

    from raremem.adapters import jax as memory

    held, turns = [state], cycle(batches)

    def loss(rows: Any, state: Any, targets: Any) -> Any:
        out = memory.query(config, state, rows, targets)
        assert out.loss is not None
        return out.loss.mean(), out

    def whole(state: Any, rows: Any, targets: Any) -> Any:
        (_, out), gradient = jax.value_and_grad(loss, has_aux=True)(rows, state, targets)
        return memory.update(config, state, out.queries, targets, lookup=out)[0], gradient

    compiled = jax.jit(whole, donate_argnums=0)

    def step() -> None:
        held[0], gradient = compiled(held[0], *next(turns))
        jax.block_until_ready((held[0], gradient))  # type: ignore[no-untyped-call]

    return step


def module_step(config: MemoryConfig, state: Any, batches: Batches) -> Callable[[], object]:
    """A step of PyTorch's module: all that it changes stays where it is."""
    memory, turns = _module(config, state), cycle(batches)

    def step() -> None:
        rows, targets = next(turns)
        out = memory(rows, targets)
        out.loss.mean().backward()
        memory.update(out)

    return step


def compiled_step(config: MemoryConfig, state: Any, batches: Batches) -> Callable[[], object]:
    """A step of PyTorch's module, with query, loss and update compiled as one function."""
    import torch

    memory, turns = _module(config, state), cycle(batches)

    def ask_and_write(rows: Any, targets: Any) -> Any:
        out = memory(rows, targets)
        return out.loss.mean(), memory.update(out)

    torch.compiler.reset()  # a code object is compiled a few times only
    compiled = torch.compile(ask_and_write, fullgraph=True)
    return lambda: compiled(*next(turns))[0].backward()


def _module(config: MemoryConfig, state: Any) -> Any:
    """A module with that memory."""
    from raremem.adapters.torch import Memory

    memory = Memory(config)
    memory.keys, memory.values, memory.last_used, memory.hits, memory.step = state
    return memory
