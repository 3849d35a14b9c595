"""The tests run on the CPU unless they are told otherwise, and JAX keeps what it has compiled, for all their processes.

Most of the time of a test of JAX is compiling: four such tests took 31 seconds of a core, and 9 with programs from before. They
are kept by processor, since a program made for one may crash on another.
"""

import ctypes
import gc
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from zlib import crc32

import pytest


def _processor():
    """A number that differs between kinds of processors."""
    try:
        told = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("model name", "flags"))]
    except OSError:
        told = [platform.processor(), platform.machine()]
    return f"{crc32(''.join(sorted(set(told))).encode()):08x}"


os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / "build" / "jax-programs" / _processor()))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
multiprocessing.set_forkserver_preload(["raremem.adapters.torch.sharded", "raremem.reference.laws"])
"""Ranks that are forks of a process with these imported start in a tenth of a second, and not in two or three."""

C = ctypes.CDLL(None) if os.name == "posix" else None


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


class Small:
    """Gives up what JAX and PyTorch have compiled when a process has grown large by it."""

    def __init__(self, most=3 * 2**29, step=2**28):
        self.most, self.step, self.before = most, step, 0

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self):
        size = self.size()
        if size < max(self.most, self.before + self.step):
            return
        if "jax" in sys.modules:
            sys.modules["jax"].clear_caches()
        if "torch._dynamo" in sys.modules:
            sys.modules["torch"].compiler.reset()
        gc.collect()
        self.give_back()
        self.before = self.size()

    @staticmethod
    def give_back():
        """What is free goes back to the system. glibc keeps it, so that a process is as large as it ever was."""
        if hasattr(C, "malloc_trim"):
            C.malloc_trim(0)

    @staticmethod
    def size():
        """Bytes of this process in memory, where the system tells."""
        try:
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, AttributeError):
            return 0


class EagerLaws:
    """Has the laws of JAX without jit held by a process of its own (`eager_laws.py`), whose XLA makes programs quickly.

    There JAX compiles each operation for each shape, 541 programs for one law, and most of the time is XLA's: 17 seconds of a
    core, and 10 with these flags. There is little to optimise in one operation.
    """

    FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

    def __init__(self):
        self.process = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem):
        if _group(pyfuncitem.nodeid) != "jax-eager" or pyfuncitem.config.option.raremem_fuzz:
            return None
        law, mode = (pyfuncitem.callspec.params[name] for name in ("law", "raremem_mode"))
        if not law.runs_on(mode.backend):
            return None
        tried, error = self.answer(law.name, pyfuncitem.config.option.raremem_examples)
        if error is not None:
            pytest.fail(error, pytrace=False)
        pyfuncitem.user_properties.append(("examples", tried))
        return True

    def answer(self, *question):
        if self.process is None:
            command = [sys.executable, str(Path(__file__).with_name("eager_laws.py"))]
            environment = {**os.environ, "XLA_FLAGS": self.FLAGS}
            self.process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment)
        print(json.dumps(question), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        assert line, f"the process that holds the laws has ended with status {self.process.wait()}"
        return json.loads(line)

    def pytest_unconfigure(self):
        if self.process is not None:
            self.process.communicate()


def pytest_configure(config):
    """For the laws in reference/conformance too."""
    config.pluginmanager.register(Small())
    config.pluginmanager.register(EagerLaws())


LONGEST = "torch-compiled", "test_mesh", "jax-compiled", "jax-eager", "test_faults", "test_sharded", "torch-eager"
"""They are begun first, so that no process is left with one of them alone."""
MODE = re.compile(r"test_law\[([a-z]+-[a-z]+)")


def _group(nodeid):
    """The backend and mode of a law, the file of another test: what one of a group has compiled, the next one uses."""
    mode = MODE.search(nodeid)
    return mode[1] if mode else Path(nodeid.partition("::")[0]).stem


def pytest_xdist_make_scheduler(config, log):
    """A group is run by one process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return _group(nodeid)

    return ByGroup(config, log)


def pytest_collection_modifyitems(items):
    """The longest groups first."""
    groups = {item: _group(item.nodeid) for item in items}
    items.sort(key=lambda item: LONGEST.index(groups[item]) if groups[item] in LONGEST else len(LONGEST))
