"""The synthetic task on a tiny scale: the loss falls, and only a network with a memory knows what it was shown once."""

import numpy as np
import pytest

import raremem
from raremem.benchmarks.tasks.symbols.recipe import SymbolsRecipe
from raremem.benchmarks.tasks.symbols.run import ARMS, findings, make_learner, measure, seen_in_training
from raremem.benchmarks.training.snapshots import TrainingRun

SMALL = {
    "steps": 130,
    "symbols": 1000,
    "unseen": 300,
    "rarest": 20.0,
    "width": 2,
    "before": 2,
    "after": 1,
    "slots": 1024,
    "neighbors": 4,
}


def trained(backend, memory):
    recipe = SymbolsRecipe(memory=memory, **SMALL)
    learner = make_learner(backend, recipe)
    losses = [learner.learn(*recipe.batch_at(step)) for step in range(recipe.steps)]
    return losses, measure(learner, recipe, seen_in_training(recipe))


def check(losses, with_memory, without):
    assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:10])
    assert with_memory.one_shot > 25
    assert without.one_shot < 2
    assert with_memory.never_shown < 2


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_memory_knows_what_was_shown_once(backend):
    losses, with_memory = trained(backend, memory=True)
    _, without = trained(backend, memory=False)
    check(losses, with_memory, without)
    found = findings({"with memory": with_memory, "without": without}, {arm: TrainingRun({}, 120, 120) for arm in ARMS})
    assert found.headline["shown once, with memory, %"] == with_memory.one_shot
    assert len(found.plots()) == 1


def test_that_check_can_fail(monkeypatch):
    """With a memory that forgets what it is told, the same check fails."""
    from raremem.adapters.torch import Memory

    losses, with_memory = trained("torch", memory=False)
    with pytest.raises(AssertionError):
        check(losses, with_memory, with_memory)
    monkeypatch.setattr(Memory, "update", lambda self, *arguments, **options: None)
    with pytest.raises(AssertionError):
        check(*trained("torch", memory=True), with_memory)


def test_the_task_is_what_it_says():
    recipe = SymbolsRecipe(**SMALL)
    sequences, answers, due = recipe.batch_at(3)
    assert np.array_equal(answers[:, 1:], recipe.function[sequences[:, :-1]])
    assert due[:, 1:].all()
    assert not due[:, 0].any()
    assert not np.isin(sequences, recipe.order[: recipe.unseen]).any()
    assert np.array_equal(sequences, SymbolsRecipe(**SMALL).batch_at(3)[0])
    expected = recipe.frequencies * recipe.steps * sequences.size
    assert expected[-1] == pytest.approx(recipe.rarest, rel=1e-3)
    assert (np.diff(expected) <= 0).all()


def test_unknown_backend_is_a_clear_error():
    with pytest.raises(raremem.UnknownBackendError):
        make_learner("tensorflow", SymbolsRecipe())
