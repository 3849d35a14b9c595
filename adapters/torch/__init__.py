"""The memory for PyTorch: `Memory`, an `nn.Module`; and the backend, its functional interface."""

from raremem.adapters.torch.functional import BACKENDS, TorchBackend, backend, compiled_backend, default_device
from raremem.adapters.torch.memory import Memory
from raremem.adapters.torch.primitives import TorchPrimitives
from raremem.adapters.torch.search import LARGE

__all__ = ["BACKENDS", "LARGE", "Memory", "TorchBackend", "TorchPrimitives", "backend", "compiled_backend", "default_device"]
