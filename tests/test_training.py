"""The loop that trains all tasks: a stopped run goes on, a finished one is not run again, another one is an error."""

import sys

import numpy as np
import pytest

import raremem
from raremem.benchmarks.training.learner import framework_module
from raremem.benchmarks.training.loop import train


class Counter:
    """A learner whose weights are the sum of what it was shown."""

    def __init__(self, steps):
        self.total, self.steps = np.zeros(1), steps
        self.stop_at = None

    def learn(self, number):
        if self.stop_at is not None and number[0] == self.stop_at:
            raise KeyboardInterrupt
        self.total += number
        return float(number[0])

    def to_numpy(self):
        return {"total": self.total}

    def from_numpy(self, content):
        self.total = content["total"].copy()


def trained(path, stop_at=None, asked=None, minutes=1.0, steps=40):
    made = []

    def make(steps):
        made.append(Counter(steps))
        made[-1].stop_at = stop_at
        return made[-1]

    learner, run = train(
        make,
        lambda step, steps: (np.array([float(step)]),),
        asked or {"seed": 0},
        minutes,
        path,
        lambda learner: {"total": float(learner.total[0])},
        steps,
    )
    return learner, run


def test_a_stopped_run_goes_on(tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trained(path, stop_at=21)
    learner, run = trained(path)
    assert learner.total[0] == sum(range(40))
    assert [point["step"] for point in run.curve] == list(range(2, 41, 2))
    assert [point["total"] for point in run.curve] == [sum(range(step)) for step in range(2, 41, 2)]


def test_a_finished_run_is_not_run_again(tmp_path):
    path = tmp_path / "run.safetensors"
    trained(path)
    learner, run = trained(path, stop_at=0)
    assert learner.total[0] == sum(range(40))
    assert run.done == run.steps == 40


@pytest.mark.parametrize(("changed", "named"), [({"asked": {"seed": 1}}, "seed"), ({"minutes": 2.0}, "minutes")])
def test_a_snapshot_of_another_run_is_an_error(tmp_path, changed, named):
    trained(tmp_path / "run.safetensors")
    with pytest.raises(raremem.ConfigError, match=f"run of other {named}; repeat"):
        trained(tmp_path / "run.safetensors", **changed)


def test_no_minutes_are_an_error(tmp_path):
    with pytest.raises(raremem.ConfigError, match="expected more than 0"):
        trained(tmp_path / "run.safetensors", minutes=0.0)


def test_steps_are_worked_out_from_minutes(tmp_path):
    _, run = trained(tmp_path / "run.safetensors", minutes=1e-5, steps=None)
    assert run.steps >= 20
    assert run.done == run.steps


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(raremem.MissingPackageError, match=r"training needs optax: pip install 'raremem\[bench\]'"):
        framework_module("training.embedding", "jax")


def test_an_import_that_fails_for_another_reason_is_not_called_a_missing_package():
    pytest.importorskip("torch")
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        framework_module("training.nowhere", "torch")
