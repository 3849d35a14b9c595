"""raremem: a life-long memory that a neural network can be given.

It stores (key, value, age) triples, answers nearest-neighbor queries, is trained end to end with a margin loss, and never
needs a reset. The method is Kaiser, Nachum, Roy and Bengio, "Learning to Remember Rare Events", ICLR 2017.

>>> import numpy as np
>>> import raremem
>>> config = raremem.MemoryConfig(slots=100, key_dim=4)
>>> backend = raremem.get_backend("numpy")
>>> state = backend.init(config)
>>> state, report = backend.update(config, state, np.eye(4, dtype=np.float32), np.arange(4))
>>> backend.query(config, state, np.eye(4, dtype=np.float32)[:1] * 3).values[0, 0]
np.int32(0)
"""

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .backend import Backend
    from .checkpoint import load, save
    from .config import MemoryConfig
    from .errors import (
        CheckpointError,
        ConcurrencyError,
        ConfigError,
        DeviceError,
        DTypeError,
        ForgetError,
        MissingPackageError,
        RarememError,
        RejectedRowsError,
        ShapeError,
        StateError,
        TargetError,
        UnknownBackendError,
    )
    from .guard import waiting
    from .registry import BackendInfo, backends, get_backend, get_index
    from .search.live import LiveIndex
    from .state import ForgetReport, Lookup, MemoryState, UpdateReport
    from .version import __version__

__all__ = [
    "Backend",
    "BackendInfo",
    "CheckpointError",
    "ConcurrencyError",
    "ConfigError",
    "DTypeError",
    "DeviceError",
    "ForgetError",
    "ForgetReport",
    "LiveIndex",
    "Lookup",
    "MemoryConfig",
    "MemoryState",
    "MissingPackageError",
    "RarememError",
    "RejectedRowsError",
    "ShapeError",
    "StateError",
    "TargetError",
    "UnknownBackendError",
    "UpdateReport",
    "__version__",
    "backends",
    "get_backend",
    "get_index",
    "load",
    "save",
    "waiting",
]

MODULES = ("errors", "version", "config", "state", "guard", "index", "backend", "search.live", "registry", "checkpoint")
"""Where these names are from. They are imported when the first is asked for, so that the command can heed signals before."""

if not TYPE_CHECKING:

    def __getattr__(name):
        if name in MODULES:
            return importlib.import_module(f"raremem.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        for module in MODULES:
            found = vars(importlib.import_module(f"raremem.{module}"))
            globals().update({public: found[public] for public in __all__ if public in found})
        return globals()[name]

    def __dir__():
        return sorted({*globals(), *__all__})
