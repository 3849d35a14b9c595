"""Which backends there are, what is installed, and how to get one by name or by array."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .backend import ArrayBackend, Backend
from .config import MemoryConfig
from .errors import MissingPackageError, UnknownBackendError
from .search.live import LiveIndex, LivePlan


@dataclass(frozen=True)
class _Entry:
    module: str
    package: str
    extra: str | None
    choose_for: str
    arrays: tuple[str, ...] = ()


_ENTRIES = {
    "reference": _Entry("raremem.reference.oracle", "numpy", None, "checking others: the specification, one row at a time"),
    "numpy": _Entry(
        "raremem.adapters.numpy", "numpy", None, "inference and tools without a deep-learning framework", ("numpy",)
    ),
    "torch": _Entry("raremem.adapters.torch", "torch", "torch", "PyTorch networks: an nn.Module, CPU or CUDA", ("torch",)),
    "jax": _Entry("raremem.adapters.jax", "jax", "jax", "JAX networks: pure functions over a pytree", ("jax", "jaxlib")),
}


INDEXES = {"annoy": "annoy", "faiss": "faiss", "hnswlib": "hnswlib"}
"""Approximate indexes, each the module of that name in `raremem.adapters.indexes`: the package that it imports."""


@dataclass(frozen=True)
class BackendInfo:
    """One line of `raremem.backends()`.

    Attributes:
        name: what `get_backend` takes.
        installed: its packages are here.
        version: of its framework, or None.
        device: where its arrays go by default, or None.
        missing: why it is not here and what to install, or None.
        choose_for: what it is the right choice for.
    """

    name: str
    installed: bool
    version: str | None
    device: str | None
    missing: str | None
    choose_for: str


def backends() -> dict[str, BackendInfo]:
    """Every backend by name: what is installed, its version and device, and why one is missing.

    Imports the frameworks that are installed, to ask for their devices.
    """
    return {name: _info(name, entry) for name, entry in _ENTRIES.items()}


def get_backend(name: str | Any, *, compiled: bool | None = None, index: str | LiveIndex | None = None) -> Backend:
    """The backend of that name, or of the framework that an array is from.

    Args:
        name: "reference", "numpy", "torch", "jax"; "package.module:attribute" of a backend of your own; or an array.
        compiled: through the framework's compiler (`torch.compile`, `jax.jit` with the state donated) or not.
            By default as the framework's users expect: JAX compiled, the others not.
        index: approximate search of one memory: "annoy", "faiss", "hnswlib", or what `get_index` gave. The backend is then a
            new one, for that memory alone. By default search is exact.

    Raises:
        UnknownBackendError: there is none of that name, for that array, or none compiled, or none with an index.
        MissingPackageError: its framework, or that of the index, is not installed.

    >>> get_backend("numpy").name
    'numpy'
    """
    if index is not None:
        return _with_index(get_backend(name, compiled=compiled), get_index(index) if isinstance(index, str) else index)
    name = name if isinstance(name, str) else _name_for_array(name)
    found = choices(name)
    if compiled in found:
        return found[compiled]
    if None in found and compiled is not None and found[None].compiled == compiled:
        return found[None]
    raise UnknownBackendError(f"backend {name!r} has no {'compiled' if compiled else 'eager'} mode; leave it out.")


def choices(name: str) -> Mapping[bool | None, Backend]:
    """A backend's modes: False is the eager one, True the compiled, and None what its users expect.

    Args:
        name: as for `get_backend`. What "package.module:attribute" names is such a dict, or a backend, which is then all.

    Raises:
        UnknownBackendError: there is none of that name.
        MissingPackageError: its framework is not installed.
    """
    if ":" in name:
        return _choices_of_ones_own(name)
    if name not in _ENTRIES:
        raise UnknownBackendError(f"no backend {name!r}; expected one of {', '.join(_ENTRIES)}, or an array.")
    entry = _ENTRIES[name]
    if importlib.util.find_spec(entry.package) is None:
        raise MissingPackageError(_how_to_install(name, entry))
    return importlib.import_module(entry.module).BACKENDS


def _choices_of_ones_own(name: str) -> Mapping[bool | None, Backend]:
    found = _imported("backend", name)
    backends = {None: found} if isinstance(found, Backend) else found
    if not isinstance(backends, Mapping) or not all(isinstance(backend, Backend) for backend in backends.values()):
        raise UnknownBackendError(f"{name!r} is {type(found).__name__}; expected a raremem.Backend, or a dict of some by mode.")
    return backends


def _imported(kind: str, name: str) -> Any:
    """What "package.module:attribute" names."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # its module may raise anything
        raise UnknownBackendError(
            f"no {kind} {name!r} ({type(error).__name__}: {error}); expected package.module:attribute of what can be imported."
        ) from error


def get_index(name: str, *, background: bool = True, seed: int = 0, plan: LivePlan | None = None) -> LiveIndex:
    """Approximate search that follows a memory as it changes, for `index=` of `get_backend` and of `Memory` in PyTorch.

    Args:
        name: "annoy", "faiss" or "hnswlib"; or "package.module:attribute", a `NeighborIndex` of your own.
        background: see `LiveIndex`.
        seed: of the index. (hnswlib and annoy are built with one thread, so that nothing else decides what they find.)
        plan: when an index is used, and built anew; by default as was measured to be quickest.

    Raises:
        UnknownBackendError: there is none of that name.
        MissingPackageError: its package is not installed, or its build does not work.
    """
    if ":" in name:
        return LiveIndex(_imported("index", name), background, seed, plan)
    if name not in INDEXES:
        raise UnknownBackendError(f"no index {name!r}; expected one of {', '.join(INDEXES)}, or package.module:attribute.")
    if importlib.util.find_spec(INDEXES[name]) is None:
        raise MissingPackageError(f"index {name!r} needs the package {name!r}: pip install 'raremem[{name}]'")
    module = importlib.import_module(f"raremem.adapters.indexes.{name}")
    return LiveIndex(module.Index, background, seed, plan)


def _with_index(backend: Backend, index: LiveIndex) -> Backend:
    """A backend like this one that searches with an index."""
    if (
        isinstance(backend, ArrayBackend)
        and not backend.compiled
        and backend.table_for(backend.init(MemoryConfig(1, 1)).values).eager
    ):
        return backend.indexed(index)
    raise UnknownBackendError(
        f"backend {backend.name!r}{' (compiled)' if backend.compiled else ''} takes no index; expected 'numpy' or 'torch', "
        "not compiled. Leave out index= (search is then exact), or look up in NumPy: get_backend('numpy', index=...)."
    )


def _name_for_array(array: Any) -> str:
    """The backend whose array types are defined in the same package as the array's; imports nothing."""
    root = type(array).__module__.partition(".")[0]
    for name, entry in _ENTRIES.items():
        if root in entry.arrays and entry.package in sys.modules:
            return name
    raise UnknownBackendError(
        f"no backend owns arrays of type {type(array).__module__}.{type(array).__qualname__}; "
        f"expected a name ({', '.join(_ENTRIES)}) or an array of NumPy, PyTorch or JAX."
    )


def _how_to_install(name: str, entry: _Entry) -> str:
    return f"backend {name!r} needs the package {entry.package!r}: pip install 'raremem[{entry.extra}]'"


def _info(name: str, entry: _Entry) -> BackendInfo:
    if importlib.util.find_spec(entry.package) is None:
        return BackendInfo(name, False, None, None, _how_to_install(name, entry), entry.choose_for)
    version = importlib.metadata.version(entry.package)
    try:
        device = importlib.import_module(entry.module).default_device()
    except ImportError as error:
        reason = f"{entry.package} {version} does not import: {error}"
        return BackendInfo(name, False, version, None, reason, entry.choose_for)
    return BackendInfo(name, True, version, device, None, entry.choose_for)
