"""Which backends there are, what is installed, and how to get one by name or by array."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass
from typing import Any

from .backend import Backend
from .errors import MissingPackageError, UnknownBackendError


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


def get_backend(name: str | Any, *, compiled: bool | None = None) -> Backend:
    """The backend of that name, or of the framework that an array is from.

    Args:
        name: "reference", "numpy", "torch", "jax"; "package.module:attribute" of a backend of your own; or an array.
        compiled: through the framework's compiler (`torch.compile`, `jax.jit` with the state donated) or not.
            By default as the framework's users expect: JAX compiled, the others not.

    Raises:
        UnknownBackendError: there is none of that name, for that array, or none compiled.
        MissingPackageError: its framework is not installed.

    >>> get_backend("numpy").name
    'numpy'
    """
    if not isinstance(name, str):
        name = _name_for_array(name)
    if ":" in name:
        module, _, attribute = name.partition(":")
        return _chosen(name, {None: getattr(importlib.import_module(module), attribute)}, compiled)
    if name not in _ENTRIES:
        raise UnknownBackendError(f"no backend {name!r}; expected one of {', '.join(_ENTRIES)}, or an array.")
    entry = _ENTRIES[name]
    if importlib.util.find_spec(entry.package) is None:
        raise MissingPackageError(_how_to_install(name, entry))
    return _chosen(name, importlib.import_module(entry.module).BACKENDS, compiled)


def _chosen(name: str, choices: dict[bool | None, Backend], compiled: bool | None) -> Backend:
    """From a module's `BACKENDS`: keys False (eager), True (compiled) and None (what its users expect)."""
    if compiled in choices:
        return choices[compiled]
    raise UnknownBackendError(f"backend {name!r} has no {'compiled' if compiled else 'eager'} mode; leave it out.")


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
