"""The Omniglot task on a tiny scale: few-shot accuracy is what it should be, training helps, and a stopped run goes on."""

import dataclasses
import json

import numpy as np
import pytest

import raremem
from raremem.benchmarks import bench, cli, omniglot
from raremem.benchmarks.characters import Characters, draw_characters
from raremem.benchmarks.embedding.recipe import Recipe, episodes, make_learner

NUMPY = raremem.get_backend("numpy")
RECIPE = Recipe(steps=120, classes=16, channels=(1, 16, 32), distorted=True)


@pytest.fixture(scope="module")
def characters():
    return draw_characters(3, 80, 30)


def rows_of(classes, spread, dim=32):
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(classes, 1, dim)) + spread * generator.normal(size=(classes, 20, dim))
    return rows.astype(np.float32)


@pytest.mark.parametrize("shots", [1, 5])
def test_few_shot_knows_perfect_embeddings_and_guesses_on_noise(shots):
    perfect = omniglot.few_shot(NUMPY, rows_of(30, 0.0), 5, shots, 100, seed=0)
    assert perfect.percent == 100
    guessed = omniglot.few_shot(NUMPY, rows_of(30, 1e6), 5, shots, 300, seed=0)
    assert abs(guessed.percent - 20) < 3 * guessed.half_interval


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_training_through_the_memory_helps(backend, characters):
    learner = make_learner(backend, RECIPE)
    before = omniglot.measure(NUMPY, learner, characters.test, 100, 0)[2].percent
    losses = [learner.learn(*episode) for episode in episodes(RECIPE, characters.train)]
    after = omniglot.measure(NUMPY, learner, characters.test, 100, 0)[2].percent
    assert np.mean(losses[-20:]) < 0.97 * np.mean(losses[:20])
    assert after > before + 5


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_learner_goes_on_where_it_was(backend, characters):
    recipe = dataclasses.replace(RECIPE, steps=6)
    whole = make_learner(backend, recipe)
    for episode in episodes(recipe, characters.train):
        whole.learn(*episode)
    first, second = make_learner(backend, recipe), make_learner(backend, recipe)
    for _, episode in zip(range(3), episodes(recipe, characters.train), strict=False):
        first.learn(*episode)
    second.from_numpy(first.to_numpy())
    for episode in episodes(recipe, characters.train, start=3):
        second.learn(*episode)
    shown = characters.test[0]
    assert np.array_equal(second.embed(shown), whole.embed(shown))


def test_a_stopped_run_goes_on_and_leaves_its_results(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        omniglot,
        "load_omniglot",
        lambda path: Characters("drawn", *(draw_characters(3, 110, 30).train, draw_characters(4, 30, 1).train)),
    )
    monkeypatch.setattr(omniglot, "_recipe", lambda steps, seed: dataclasses.replace(RECIPE, steps=20, seed=seed))
    monkeypatch.setattr(omniglot, "_steps_in", lambda *arguments: 20)
    snapshots = []

    def stop_after_five(path, state):
        snapshot(path, state)
        snapshots.append(state.done)
        if state.done == 5:
            raise KeyboardInterrupt

    snapshot = omniglot.snapshot
    monkeypatch.setattr(omniglot, "snapshot", stop_after_five)
    arguments = ["bench", "omniglot", "--data", str(tmp_path), "--out", str(tmp_path)]
    monkeypatch.setattr(omniglot.run, "__defaults__", (0, 20))
    assert cli.main(arguments) == 130
    assert cli.main(arguments) == 0
    assert "going on from episode 5 of 20" in capsys.readouterr().out
    assert snapshots == list(range(1, 21))
    result = json.loads((tmp_path / "omniglot-torch.json").read_text())
    assert len(result["test"]) == 4
    assert len(result["curve"]) == 20
    assert (tmp_path / "omniglot-torch.html").read_text().count("<svg") == 1


def test_bench_says_what_it_needs(capsys, monkeypatch):
    monkeypatch.delenv("RAREMEM_DATA", raising=False)
    assert cli.main(["bench", "--list"]) == 0
    assert all(task in capsys.readouterr().out for task in bench.NEEDS)
    assert cli.main(["bench", "omniglot"]) == 1
    assert "Name the folder with --data" in capsys.readouterr().err
    assert cli.main(["bench", "omniglot", "--data", "/", "--minutes", "0"]) == 1
    assert "expected more than 0" in capsys.readouterr().err
