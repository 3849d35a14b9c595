"""Two threads and one memory: what may not be is an error, and what is answered is of the memory before an update or after."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

import raremem

CONFIG = raremem.MemoryConfig(slots=64, key_dim=8, neighbors=4, age_noise=0)
ROWS, TARGETS = np.eye(8, dtype=np.float32), np.arange(8)


@pytest.fixture(params=["numpy", "torch"])
def backend(request):
    return raremem.get_backend(request.param)


@pytest.fixture
def held(backend, monkeypatch):
    """`with held(call, ...)`: meanwhile that call, in a thread of its own, is under way, held at its first `take_along`."""
    begun, go_on = threading.Event(), threading.Event()
    take_along = backend.table_for().take_along

    def waits(*arguments):
        if threading.current_thread().name.startswith("held"):
            begun.set()
            assert go_on.wait(10)
        return take_along(*arguments)

    @contextmanager
    def under_way(call, *arguments):
        with ThreadPoolExecutor(1, "held") as threads:
            answer = threads.submit(call, *arguments)
            assert begun.wait(10)
            yield
            go_on.set()
            answer.result()

    monkeypatch.setattr(backend.table_for(), "take_along", waits, raising=False)
    return under_way


def query(backend, state):
    return backend.query(CONFIG, state, ROWS, TARGETS)


def update(backend, state):
    return backend.update(CONFIG, state, ROWS, TARGETS)


@pytest.mark.parametrize(("first", "second"), [(update, query), (update, update), (query, update)])
def test_a_call_beside_an_update_is_an_error(backend, held, first, second):
    state, _ = backend.update(CONFIG, backend.init(CONFIG), ROWS, TARGETS + 1)
    before, other = backend.to_numpy(state), backend.copy(state)
    with held(first, backend, state):
        with pytest.raises(raremem.ConcurrencyError, match="another thread's call on this memory is under way"):
            second(backend, state)
        query(backend, other), update(backend, backend.init(CONFIG))
        if first is update:
            for read in (backend.to_numpy, backend.copy):
                with pytest.raises(raremem.ConcurrencyError, match="is under way"):
                    read(state)
        if first is query:
            query(backend, state)
            for name, array in backend.to_numpy(state).items():
                np.testing.assert_array_equal(array, before[name])
    second(backend, state)


def test_after_an_error_a_memory_is_free_again(backend, monkeypatch):
    state = backend.init(CONFIG)
    monkeypatch.setattr(backend.table_for(), "take_along", lambda *arguments: 1 / 0, raising=False)
    for call in (query, update):
        with pytest.raises(ZeroDivisionError):
            call(backend, state)
    monkeypatch.undo()
    for call in (query, update):
        call(backend, state)


def test_an_answer_is_of_the_memory_before_an_update_or_after(backend):
    """An update writes eight slots in a row, with its number as their value: in one answer there is one number."""
    state, _ = backend.update(CONFIG, backend.init(CONFIG), ROWS, TARGETS * 0)
    stop, answers, refused = threading.Event(), [], []

    def ask():
        while not stop.is_set():
            try:
                answers.append(np.asarray(backend.query(CONFIG, state, ROWS).values[:, 0]))
            except raremem.ConcurrencyError as error:
                refused.append(error)

    with ThreadPoolExecutor(1) as threads:
        asking, number = threads.submit(ask), 1
        while number < 300:
            try:
                state, _ = backend.update(CONFIG, state, ROWS, TARGETS * 0 + number)
                number += 1
            except raremem.ConcurrencyError as error:
                refused.append(error)
        stop.set()
        asking.result()
    assert refused
    assert answers
    assert all(len(set(values.tolist())) == 1 for values in answers)


def test_with_an_index_there_is_one_call_at_a_time(held, backend):
    live = backend.indexed(raremem.get_index("hnswlib"))
    state = live.init(CONFIG)
    with held(query, live, state), pytest.raises(raremem.ConcurrencyError, match="that has an index is queried"):
        query(live, state)
