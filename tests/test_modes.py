"""Whatever a program has set for all of NumPy or PyTorch, the memory works, and answers as it did."""

import copy
import warnings
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch

import raremem
from raremem.adapters.torch import Memory, TorchPrimitives
from raremem.adapters.torch.primitives import EagerPrimitives
from raremem.reference.comparison import as_numpy

CONFIG = raremem.MemoryConfig(slots=200, key_dim=16, neighbors=20, softmax_temperature=400.0, loss="nll")
OTHER = raremem.MemoryConfig(slots=200, key_dim=16, neighbors=20, evict="least_hit")


@contextmanager
def setting(change, value, back):
    change(value)
    try:
        yield
    finally:
        change(back)


@contextmanager
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def device(name):
    return setting(torch.set_default_device, name, None)


def precision(name):
    return setting(torch.set_float32_matmul_precision, name, "highest")


MODES = {
    "numpy raises": lambda: np.errstate(all="raise"),
    "numpy warns": lambda: np.errstate(all="warn"),
    "warnings are errors": warnings_are_errors,
    "deterministic": lambda: setting(torch.use_deterministic_algorithms, True, False),
    "float64 by default": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "float16 by default": lambda: setting(torch.set_default_dtype, torch.float16, torch.float32),
    "meta by default": lambda: device("meta"),
    "cpu by default": lambda: device("cpu"),
    "anomalies": lambda: setting(torch.autograd.set_detect_anomaly, True, False),
    "medium precision": lambda: precision("medium"),
    "high precision": lambda: precision("high"),
    "denormals flushed": lambda: setting(torch.set_flush_denormal, True, False),
    "inference": torch.inference_mode,
    "no gradient": torch.no_grad,
}


def rows(seed, count=40):
    """Rows in clusters, some so large, so small or so broken that arithmetic in f32 overflows, vanishes or is not a number."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, 12, count)
    found = generator.normal(size=(12, 16))[targets] + 0.5 * generator.normal(size=(count, 16))
    found[:5] *= np.array([np.nan, np.inf, 0.0, 2.0**-90, 2.0**120])[:, None]
    return found.astype(np.float32), targets


INPUTS = [rows(seed) for seed in range(8)]


def begun(backend, config=CONFIG):
    """A memory whose steps and ages wrap in the course of what follows."""
    portable = backend.to_numpy(backend.init(config))
    return backend.from_numpy(config, {**portable, "step": 2**31 - 4})


def life(name, config=CONFIG):
    """All that a memory says and holds in eight steps."""
    backend = raremem.get_backend(name, compiled=False)
    state, said = begun(backend, config), []
    for queries, targets in INPUTS:
        out = backend.query(config, state, queries, targets)
        state, report = backend.update(config, state, queries, targets, lookup=out)
        said += [as_numpy(field) for field in (*out, *report)]
    return [*said, *backend.to_numpy(state).values()]


def agree(found, expected):
    for mine, own in zip(found, expected, strict=True):
        mine, own = np.asarray(mine), np.asarray(own)
        assert mine.dtype == own.dtype
        if own.dtype.kind == "f":  # the gradient of a small row is large, in all its entries
            size = np.abs(own).max(-1, keepdims=True, initial=1e-3)
            np.testing.assert_allclose(mine / size, own / size, rtol=0, atol=1e-4)
        else:
            np.testing.assert_array_equal(mine, own)


@pytest.fixture(scope="module")
def usual():
    return {(name, config): life(name, config) for name in ("numpy", "torch") for config in (CONFIG, OTHER)}


@pytest.mark.parametrize("config", [CONFIG, OTHER], ids=["oldest", "least hit"])
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "meta by default"])
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_answers_are_the_same_in_any_mode(name, mode, config, usual):
    with MODES[mode]():
        found = life(name, config)
    agree(found, usual[name, config])


def trained(memory, step):
    """The losses, gradients and reports of eight steps of a module."""
    said = []
    for queries, targets in INPUTS:
        query = torch.from_numpy(queries).requires_grad_()
        out, report = step(memory, query, torch.from_numpy(targets))
        if out.loss.requires_grad:
            out.loss.sum().backward()
            said.append(query.grad)
        said += [out.loss.detach(), out.slots, *report]
    return [*said, *(buffer.clone() for buffer in memory.buffers())]


def step(memory, query, target):
    out = memory(query, target)
    return out, memory.update(out)


@pytest.mark.parametrize(
    ("mode", "compiled"),
    [(mode, False) for mode in MODES] + [(mode, True) for mode in MODES if mode != "warnings are errors"],
)
def test_a_module_trains_the_same_in_any_mode(mode, compiled):
    """Made in the mode too, unless that is on meta; and used outside it after. (The compiler itself warns.)"""
    torch.compiler.reset()
    way = torch.compile(step, fullgraph=True, backend="aot_eager") if compiled else step
    quiet = torch.no_grad() if mode in ("inference", "no gradient") else nullcontext()
    with quiet:
        expected = trained(Memory(CONFIG), step)
    memory = Memory(CONFIG)
    with MODES[mode]():
        if mode != "meta by default":
            memory = Memory(CONFIG)
        found = trained(memory, way)
    agree([as_numpy(array) for array in found], [as_numpy(array) for array in expected])
    before = memory.step.clone()
    out = memory(torch.ones(1, 16, requires_grad=True), torch.tensor([1]))
    out.loss.sum().backward()
    memory.update(out)
    assert memory.step == before + 1


def copied(config):
    return copy.deepcopy(Memory(config))


def moved(config):
    """By what replaces every buffer."""
    return Memory(config)._apply(torch.clone)


@pytest.mark.parametrize("make", [Memory, copied, moved])
def test_a_module_made_in_inference_mode_has_normal_buffers(make):
    with torch.inference_mode():
        memory = make(CONFIG)
    assert not any(buffer.is_inference() for buffer in memory.buffers())
    memory.update(memory(torch.eye(3, 16), torch.arange(3)))
    with torch.inference_mode():
        memory.update(memory(torch.eye(3, 16), torch.arange(3)))
        with torch.enable_grad():
            found = memory(torch.eye(3, 16)).values[:, 0]
    assert found.tolist() == [0, 1, 2]
    assert memory.step == 2


def test_what_is_loaded_in_inference_mode_can_be_written_to():
    memory, other = Memory(CONFIG), Memory(CONFIG)
    with torch.inference_mode():
        memory.load_state_dict({name: buffer.clone() for name, buffer in other.state_dict().items()}, assign=True)
    assert memory.update(memory(torch.eye(3, 16), torch.arange(3))).written.all()


@pytest.mark.parametrize("set_precision", [precision, lambda name: newer(name)], ids=["older", "newer"])
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("table", [TorchPrimitives, EagerPrimitives])
def test_products_are_of_f32_at_any_precision(gradient, set_precision, table):
    """Two calls of PyTorch allow bf16; a processor that has units for it then rounds to eight bits."""
    generator, p = torch.Generator().manual_seed(0), table()
    left, right = torch.randn(300, 64, generator=generator), torch.randn(20, 64, generator=generator)
    keys = torch.randn(20, 30, 64, generator=generator)
    with set_precision("medium"):
        right.requires_grad_(gradient)
        inner, score = p.inner(left, right), p.score(right, keys)
        slopes = torch.autograd.grad(inner.sum() + score.sum(), right) if gradient else []
    torch.testing.assert_close(inner.double(), left.double() @ right.double().T, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(score.double(), (keys.double() * right.double()[:, None]).sum(2), rtol=1e-5, atol=1e-4)
    for slope in slopes:
        torch.testing.assert_close(slope, (left.double().sum(0) + keys.double().sum(1)).float(), rtol=1e-5, atol=1e-3)


def newer(name):
    matmul = torch.backends.mkldnn.matmul
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("this PyTorch has the older call alone")
    return setting(lambda value: setattr(matmul, "fp32_precision", value), "bf16", "ieee")
