"""The JAX backend: pure functions of a state, which is a pytree.

Use `init`, `query`, `update`, `store`, `forget`, `clear`, `copy`, `to_numpy` and `from_numpy` of this module inside your own
`jax.jit`, `grad`, `vmap`, `lax.scan` or `shard_map`, with the config static and the state donated. `get_backend("jax")` gives
the same functions compiled, with the state donated to `update` and `forget`. `resize` and `counts` are for outside.

>>> import jax
>>> config = MemoryConfig(slots=100, key_dim=8)
>>> state = init(config)
>>> state, report = update(config, state, jax.numpy.eye(8), jax.numpy.arange(8))
>>> query(config, state, jax.numpy.eye(8)[:2]).values[:, 0].tolist()
[0, 1]
"""

from raremem.adapters.jax.functional import BACKENDS, JaxBackend, backend, compiled_backend, default_device
from raremem.adapters.jax.primitives import JaxPrimitives
from raremem.config import MemoryConfig

__all__ = [
    "BACKENDS",
    "JaxBackend",
    "JaxPrimitives",
    "MemoryConfig",
    "backend",
    "clear",
    "compiled_backend",
    "copy",
    "counts",
    "default_device",
    "forget",
    "from_numpy",
    "init",
    "query",
    "resize",
    "store",
    "to_numpy",
    "update",
]

init = backend.init
query = backend.query
update = backend.update
copy = backend.copy
forget = backend.forget
store = backend.store
clear = backend.clear
counts = backend.counts
to_numpy = backend.to_numpy
from_numpy = backend.from_numpy
resize = backend.resize
