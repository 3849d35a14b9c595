"""The short name of `raremem.adapters.jax.mesh`: a memory over the devices of a JAX mesh."""

from raremem.adapters.jax.mesh import MeshBackend

__all__ = ["MeshBackend"]
