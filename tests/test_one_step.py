"""An update happens or does not (rule 11), whatever a signal interrupts; and whoever reads a memory whole sees it so."""

import copy
import io
import itertools
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest
import torch

import raremem
from raremem import MemoryConfig, guard
from raremem.adapters.torch import Memory
from raremem.reference.comparison import same_state
from raremem.state import MemoryState

CONFIG = MemoryConfig(slots=512, key_dim=16, neighbors=4, age_noise=0)
BATCH = 64


class Interrupted(BaseException):
    """What the handler of a signal raises."""


@pytest.fixture
def interrupts():
    """`interrupts(delay)`: after so many seconds of this process's time, a signal whose handler raises."""

    def handler(number, frame):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    yield lambda delay: signal.setitimer(signal.ITIMER_REAL, delay)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_an_interrupted_update_is_whole_or_was_never_begun(name, interrupts):
    backend = raremem.get_backend(name)
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(BATCH, 16)).astype(np.float32)
    state, _ = backend.update(CONFIG, backend.init(CONFIG), rows, np.arange(BATCH, dtype=np.int32))
    begun = time.perf_counter()
    for _ in range(5):
        backend.update(CONFIG, backend.copy(state), rows[::-1].copy(), np.arange(BATCH, dtype=np.int32))
    usual = (time.perf_counter() - begun) / 5
    interrupted = 0
    for attempt in range(400):
        rows = generator.normal(size=(BATCH, 16)).astype(np.float32)
        targets = generator.integers(0, 2 * BATCH, BATCH).astype(np.int32)
        before = backend.to_numpy(state)
        after, _ = backend.update(CONFIG, backend.copy(state), rows, targets)
        try:
            interrupts(usual * (attempt % 40 + 1) / 40)
            backend.update(CONFIG, state, rows, targets)
            interrupts(0)
        except Interrupted:
            interrupted += 1
        interrupts(0)
        now = backend.to_numpy(state)
        same_state(now, before if now["step"] == before["step"] else backend.to_numpy(after))
    assert interrupted > 20
    assert not guard._turns


FIXED = {
    "hits": lambda state: state._replace(hits=np.broadcast_to(state.hits, state.hits.shape)),
    "step": lambda state: MemoryState(*(array + array.dtype.type(0) for array in state)),
}


@pytest.mark.parametrize("name", FIXED)
def test_a_state_that_may_not_be_written_to_is_an_error_and_stays(name):
    """Arrays that another library shares are read-only, and of the step, an array [], NumPy's arithmetic makes a number."""
    backend = raremem.get_backend("numpy")
    state, _ = backend.update(CONFIG, backend.init(CONFIG), np.eye(16, dtype=np.float32), np.arange(16))
    state = FIXED[name](state)
    before = backend.to_numpy(state)
    for call in (
        lambda state: backend.update(CONFIG, state, -np.eye(16, dtype=np.float32), np.arange(16) + 20),
        lambda state: backend.forget(CONFIG, state, values=3),
    ):
        with pytest.raises(raremem.StateError, match=f"{name} of the state may not be written to; expected"):
            call(state)
        same_state(backend.to_numpy(state), before)
        call(backend.copy(state))


def test_a_module_goes_on_after_an_interrupt(interrupts):
    memory = Memory(CONFIG)
    torch.manual_seed(0)
    for attempt in range(100):
        rows, targets = torch.randn(BATCH, 16), torch.randint(0, 99, (BATCH,))
        out, expected = memory(rows, targets), copy.deepcopy(memory)
        before = [array.clone() for array in memory.state]
        expected.update(expected(rows, targets))
        try:
            interrupts(1e-5 * (attempt + 1))
            memory.update(out)
            interrupts(0)
        except Interrupted:
            pass
        interrupts(0)
        assert torch.is_grad_enabled(), "an interrupt has left gradients off"
        right = before if torch.equal(memory.step, before[-1]) else expected.state
        assert all(map(torch.equal, memory.state, right))


READERS = {
    "state_dict": lambda memory, path: memory.state_dict(),
    "deepcopy": lambda memory, path: copy.deepcopy(memory).state._asdict(),
    "pickle": lambda memory, path: pickle.loads(pickle.dumps(memory)).state._asdict(),
    "torch.save": lambda memory, path: _through_torch_save(memory).state._asdict(),
    "copy": lambda memory, path: memory.backend.copy(memory.state)._asdict(),
    "to_numpy": lambda memory, path: memory.backend.to_numpy(memory.state),
    "save": lambda memory, path: _through_a_file(memory, path),
}


def _through_torch_save(memory):
    file = io.BytesIO()
    torch.save(memory, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def _through_a_file(memory, path):
    raremem.save(path, memory.config, memory.state)
    return raremem.load(path, "torch")[1]._asdict()


@pytest.mark.parametrize("read", READERS)
def test_a_memory_is_never_read_half_written(read, tmp_path):
    """An update writes one value to all slots, whose number is its step: in what is read there is one number."""
    config = MemoryConfig(slots=1024, key_dim=32, neighbors=1, age_noise=0)
    memory = Memory(config)
    rows = torch.nn.functional.normalize(torch.randn(1024, 32, generator=torch.Generator().manual_seed(0)))
    memory.update(memory(rows, torch.zeros(1024).long()))
    stop, failed = threading.Event(), []

    def learn():
        with raremem.waiting(timeout=20):
            for number in itertools.count(1):
                if stop.is_set():
                    return
                memory.update(memory(rows, torch.full((1024,), number)))

    thread = threading.Thread(target=learn)
    thread.start()
    try:
        with raremem.waiting(timeout=20):
            for _ in range(20):
                seen = READERS[read](memory, tmp_path / "memory.safetensors")
                numbers = set(np.asarray(seen["values"]).tolist()) | {int(seen["step"]) - 1}
                if len(numbers) != 1:
                    failed.append(numbers)
    finally:
        stop.set()
        thread.join()
    assert not failed


def test_what_state_dict_gave_does_not_change_later():
    memory = Memory(CONFIG)
    given = memory.state_dict()
    memory.update(memory(torch.eye(16), torch.arange(16)))
    assert int(given["step"]) == 0
    assert (given["values"] == -1).all()


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_a_service_waits_for_its_turn(name):
    """No call raises; every query is answered, and all updates are made."""
    backend = raremem.get_backend(name)
    rows, targets = np.eye(16, dtype=np.float32), np.arange(16, dtype=np.int32)
    state, _ = backend.update(CONFIG, backend.init(CONFIG), rows, targets)
    failed = []

    def work(call):
        try:
            with raremem.waiting(timeout=30):
                for _ in range(200):
                    call()
        except BaseException as error:
            failed.append(error)

    calls = [lambda: backend.query(CONFIG, state, rows)] * 3 + [lambda: backend.update(CONFIG, state, rows, targets)] * 2
    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert backend.to_numpy(state)["step"] == 401
    assert not guard._turns
    assert not guard._waiting


def test_a_call_waits_no_longer_than_it_was_told():
    go_on, begun = threading.Event(), threading.Event()
    thread = threading.Thread(target=guard.in_turn, args=("m", True, lambda: begun.set() or go_on.wait(10)))
    thread.start()
    assert begun.wait(10)
    start = time.monotonic()
    with raremem.waiting(timeout=0.2), pytest.raises(raremem.ConcurrencyError, match="expected no other call"):
        guard.in_turn("m", False, print)
    assert 0.15 < time.monotonic() - start < 5
    with raremem.waiting(), pytest.raises(raremem.ConcurrencyError):
        guard.in_turn("n", True, lambda: guard.in_turn("n", False, print))  # it would wait for itself
    go_on.set()
    thread.join()
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="expected seconds"), raremem.waiting(wrong):
            pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
def test_a_child_process_has_a_whole_memory_that_is_free():
    """Forked while another thread updates and queries."""
    backend = raremem.get_backend("numpy")
    rows, zeros = np.eye(16, dtype=np.float32), np.zeros(16, np.int32)
    state, _ = backend.update(CONFIG, backend.init(CONFIG), rows, zeros)
    stop = threading.Event()

    def learn():
        number = 0
        while not stop.is_set():
            number += 1
            backend.update(CONFIG, state, rows, zeros + number % 2)
            backend.query(CONFIG, state, rows)

    thread = threading.Thread(target=learn)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    portable = backend.to_numpy(state)
                    backend.update(CONFIG, state, rows, zeros)
                    backend.query(CONFIG, state, rows)
                    newest = portable["ages"][portable["filled"]] == 0
                    status = 0 if newest.sum() == 16 else 2
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()


def test_a_flax_module_is_whole_after_an_interrupt(monkeypatch):
    """An exception at each of its writes in turn."""
    jax = pytest.importorskip("jax")
    flax = pytest.importorskip("flax")
    from raremem.adapters.flax import Memory, MemoryVariable

    set_value = MemoryVariable.set_value
    for place in range(5):
        memory = Memory(CONFIG)
        out = memory(jax.numpy.eye(16), jax.numpy.arange(16))
        left = [place]

        def interrupted(variable, *arguments, left=left, **options):
            left[0] -= 1
            if left[0] == -1:
                raise Interrupted
            return set_value(variable, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(MemoryVariable, "set_value", interrupted)
            with pytest.raises(Interrupted):
                memory.update(out)
        assert left[0] < 0, flax.__version__
        assert int(memory.step[...]) == 1
        assert memory(jax.numpy.eye(16)).values[:, 0].tolist() == list(range(16))
        assert (memory.last_used[...][:16] == 1).all()


def test_a_write_that_fails_every_time_is_an_error():
    tries = []
    with pytest.raises(ZeroDivisionError):
        guard.wholly(lambda: tries.append(1) or 1 / 0)
    assert len(tries) == 3
