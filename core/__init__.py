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

from .backend import Backend
from .checkpoint import load, save
from .config import MemoryConfig
from .errors import (
    CheckpointError,
    ConcurrencyError,
    ConfigError,
    DeviceError,
    DTypeError,
    MissingPackageError,
    RarememError,
    RejectedRowsError,
    ShapeError,
    StateError,
    TargetError,
    UnknownBackendError,
)
from .guard import waiting
from .index import LiveIndex
from .registry import BackendInfo, backends, get_backend, get_index
from .state import Lookup, MemoryState, UpdateReport
from .version import __version__

__all__ = [
    "Backend",
    "BackendInfo",
    "CheckpointError",
    "ConcurrencyError",
    "ConfigError",
    "DTypeError",
    "DeviceError",
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
