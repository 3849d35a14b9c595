"""The task `speed` on sizes that take no time: what it measures, on every backend."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from raremem import get_backend
from raremem.benchmarks import registry, runner
from raremem.benchmarks.cost import measure as measuring
from raremem.benchmarks.cost import timing
from raremem.benchmarks.cost.workload import Workload
from raremem.benchmarks.tasks import speed
from raremem.command import cli

SMALL = [Workload(5000, 4, 8, 1, also_compiled=True), Workload(6000, 70, 8, 5), Workload(5001, 6, 8, 5, classes=3)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(runner, "find", lambda name: replace(registry.find(name), run=partial(speed.run, workloads=SMALL)))


@pytest.mark.parametrize("backend", ["torch", "jax", "numpy"])
def test_a_run_leaves_its_figures(backend, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed, "faiss_ms", lambda cases, seconds: None)
    arguments = ["bench", "speed", "--backend", backend, "--minutes", "0.0001", "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    assert "not run" in capsys.readouterr().out
    found = json.loads((tmp_path / f"speed-{backend}-0.json").read_text())["figures"]["cases"]
    assert [(case["slots"], case["batch"]) for case in found] == [(5000, 4), (6000, 70), (5001, 6)]
    for case in found:
        assert case["step"] > 0
        assert case["query"] > 0
        assert case["query with targets"] > 0
        assert case["limit"] > 0
        assert case["plain"] > 0
        assert ("compiled" in case) == (backend == "torch" and case["slots"] == 5000)
        assert ("peak" in case) == timing.STATM.is_file()
    assert (tmp_path / f"speed-{backend}-0.html").read_text().count("<svg") == 1


def test_without_pytorch_there_is_a_limit_still(monkeypatch):
    backend = get_backend("numpy")
    monkeypatch.setattr(measuring.importlib.util, "find_spec", lambda name: None)
    found = measuring.measure(SMALL[0], backend, 0.0)
    assert found["limit"] > 0
    assert "plain" not in found


def test_ratios_are_of_the_step():
    measured = [{"step": 2.0, "query": 1.0, "limit": 1.0, "plain": 4.0, "faiss": 8.0, "certain": 100.0}] * 3
    assert speed.findings(SMALL, measured).headline["5,000 x 4 x 8 x 1: step / faiss search"] == 0.25


def test_faiss_is_timed_in_its_own_process():
    pytest.importorskip("faiss")
    taken = speed.faiss_ms(SMALL, 0.001)
    assert len(taken) == len(SMALL)
    assert min(taken) > 0


def test_half_of_the_queries_hit():
    workload = Workload(5000, 40, 16, 1)
    keys, values, (queries,), (targets,) = workload.data()
    assert (keys**2).sum(1) == pytest.approx(1, abs=1e-5)
    right = values[(queries @ keys.T).argmax(1)] == targets
    assert not right[::2].any()
    assert right[1::2].mean() > 0.8


def test_an_untrained_network_has_few_classes_and_seldom_its_own_among_the_neighbors():
    keys, values, queries, targets = Workload(5000, 40, 16, 5, classes=100).data()
    assert (keys**2).sum(1) == pytest.approx(1, abs=1e-5)
    assert set(values) == set(targets.ravel()) == set(range(100))
    nearest = values[np.argsort(-(queries[0] @ keys.T), axis=1)[:, :5]]
    assert (nearest == targets[0][:, None]).any(axis=1).mean() < 0.3
    assert len(np.unique(queries.reshape(-1, 16), axis=0)) == queries.shape[0] * queries.shape[1]


@pytest.mark.skipif(not timing.STATM.is_file(), reason="this system does not say how large a process is")
def test_growth_is_seen_while_it_lasts():
    assert timing.peak_extra_mb(lambda: np.ones(10**7).sum()) > 60
    assert timing.peak_extra_mb(lambda: sum(range(10**6))) < 20


def test_speed_alone_goes_to_another_device(tmp_path, capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    assert cli.main(["bench", "symbols", "--device", "meta"]) == 1
    assert "only speed takes a device" in capsys.readouterr().err
    devices = []

    def measure(workload, backend, seconds):
        devices.append(str(torch.get_default_device()))
        return {"step": 1.0, "query": 1.0, "limit": 1.0}

    monkeypatch.setattr(speed, "measure", measure)
    monkeypatch.setattr(speed, "faiss_ms", lambda cases, seconds: None)
    assert cli.main(["bench", "speed", "--device", "cpu:0", "--out", str(tmp_path)]) == 0
    assert devices == ["cpu:0"] * 3
    assert str(torch.get_default_device()) == "cpu"
