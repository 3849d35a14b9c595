"""The short name of `raremem.adapters.torch.sharded`: a memory over the ranks of `torch.distributed`."""

from raremem.adapters.torch.sharded import ShardedBackend, ShardedMemory

__all__ = ["ShardedBackend", "ShardedMemory"]
