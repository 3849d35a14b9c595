"""The short name of `raremem.adapters.torch.distributed`: data-parallel training over `torch.distributed`."""

from raremem.adapters.torch.distributed import update

__all__ = ["update"]
