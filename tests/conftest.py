"""The tests run on the CPU unless they are told otherwise."""

import os
import sys

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TRITON_INTERPRET", "1")


def _what_is_set():
    """What a program sets for all of PyTorch."""
    torch = sys.modules.get("torch")
    return torch and (
        torch.get_default_device(),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch._C._len_torch_dispatch_stack(),
        torch._C._functorch.peek_interpreter_stack(),
    )


@pytest.fixture(autouse=True)
def nothing_stays_set():
    """The test that leaves PyTorch on another device, say, fails itself, and not some hundred tests after it."""
    before = _what_is_set()
    yield
    assert before is None or _what_is_set() == before
