"""The short name of `raremem.adapters.torch.distributed`: data-parallel training over `torch.distributed`."""

from raremem.adapters.torch.distributed import forget, update

__all__ = ["forget", "update"]
