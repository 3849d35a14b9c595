"""The short name of `raremem.adapters.jax.flax`: the memory as a Flax NNX module."""

from raremem.adapters.jax.flax import Memory, MemoryVariable

__all__ = ["Memory", "MemoryVariable"]
