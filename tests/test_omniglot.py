"""The Omniglot task on a tiny scale: few-shot accuracy is what it should be, training helps, and a stopped run goes on."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest

import raremem
from raremem.benchmarks import registry, runner
from raremem.benchmarks.data.characters import Characters, draw_characters
from raremem.benchmarks.tasks import omniglot
from raremem.benchmarks.training.embedding.recipe import EmbeddingRecipe, episode, make_embedder
from raremem.command import cli

NUMPY = raremem.get_backend("numpy")
RECIPE = EmbeddingRecipe(steps=120, classes=16, channels=(1, 16, 32), distortion=1.0)


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


def trained(backend, recipe, characters):
    learner = make_embedder(backend, recipe)
    before = omniglot.measure(NUMPY, learner, characters.test, 100, 0)[2].percent
    losses = [learner.learn(*episode(recipe, characters.train, step)) for step in range(recipe.steps)]
    return losses, before, omniglot.measure(NUMPY, learner, characters.test, 100, 0)[2].percent


def check(losses, before, after):
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])
    assert after > before + 5


@pytest.mark.parametrize(("backend", "loss"), [("torch", "nll"), ("torch", "margin"), ("jax", "nll")])
def test_training_through_the_memory_helps(backend, loss, characters):
    check(*trained(backend, dataclasses.replace(RECIPE, loss=loss), characters))


def test_that_check_can_fail(characters, monkeypatch):
    """Without the memory's gradient the network learns nothing."""
    from raremem.benchmarks.training.embedding.torch_learner import TorchEmbedder

    whole = TorchEmbedder.losses
    monkeypatch.setattr(TorchEmbedder, "losses", lambda self, *batch: whole(self, *batch) * 0.0)
    with pytest.raises(AssertionError):
        check(*trained("torch", dataclasses.replace(RECIPE, steps=40), characters))


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_learner_goes_on_where_it_was(backend, characters):
    recipe = dataclasses.replace(RECIPE, steps=6)
    whole, first, second = (make_embedder(backend, recipe) for _ in range(3))
    for step in range(6):
        whole.learn(*episode(recipe, characters.train, step))
    for step in range(3):
        first.learn(*episode(recipe, characters.train, step))
    second.from_numpy(first.to_numpy())
    for step in range(3, 6):
        second.learn(*episode(recipe, characters.train, step))
    shown = characters.test[0]
    assert np.array_equal(second.embed(shown), whole.embed(shown))


def test_a_snapshot_of_another_network_is_an_error():
    pytest.importorskip("jax")
    small, other = (make_embedder("jax", dataclasses.replace(RECIPE, channels=channels)) for channels in ((1, 4), (1, 8)))
    with pytest.raises(raremem.CheckpointError, match="not those of this network"):
        other.from_numpy(small.to_numpy())


def test_classes_are_turned_and_mirrored():
    images = np.zeros((16, 1, 28, 28), np.float32)
    images[:, :, 2, 5] = 1
    recipe = EmbeddingRecipe(classes=128, showings=1)
    shown, values = episode(dataclasses.replace(recipe, distortion=0.0), images, 0)
    assert sorted(values[0].tolist()) == list(range(128))
    places = {tuple(np.argwhere(picture)[0] - np.argwhere(shown[0, 0])[0]) for picture in shown[0]}
    assert len(places) == 8


def test_every_showing_has_values_of_its_own():
    """So that a turn finds nothing of the one before."""
    _, values = episode(EmbeddingRecipe(classes=10, showings=3), np.zeros((4, 5, 28, 28), np.float32), 0)
    assert len(np.unique(values)) == 30
    assert (np.diff(values, axis=0) == 32).all()


def losses_of(backend, characters, recipe=RECIPE):
    learner = make_embedder(backend, recipe)
    return [learner.learn(*episode(recipe, characters.train, step)) for step in range(8)]


def test_both_frameworks_learn_alike(characters):
    """Within 2 %, in bf16 and in f32; with another rate they do not."""
    expected = pytest.approx(losses_of("torch", characters), rel=0.02)
    assert losses_of("jax", characters) == expected
    assert losses_of("jax", characters, dataclasses.replace(RECIPE, matrix_rate=0.025)) != expected


def test_a_pytorch_without_muon_says_what_to_install(monkeypatch):
    monkeypatch.delattr("torch.optim.Muon")
    with pytest.raises(raremem.MissingPackageError, match=r"pip install 'torch>=2\.9'"):
        make_embedder("torch", RECIPE)


def test_a_run_leaves_its_results(tmp_path, monkeypatch, capsys):
    drawn = Characters("drawn", draw_characters(3, 110, 30).train, draw_characters(4, 30, 1).train)
    monkeypatch.setattr(omniglot, "load_omniglot", lambda path: drawn)
    small = partial(omniglot.run, plan=omniglot.OmniglotPlan(RECIPE, test_episodes=20, curve_episodes=5, views=2))
    monkeypatch.setattr(runner, "find", lambda name: dataclasses.replace(registry.find(name), run=small))
    arguments = ["bench", "omniglot", "--data", str(tmp_path), "--out", str(tmp_path), "--minutes", "0.001"]
    assert cli.main(arguments) == 0
    assert "20-way 5-shot" in capsys.readouterr().out
    result = json.loads((tmp_path / "omniglot-torch-0.json").read_text())
    assert len(result["headline"]) == len(result["figures"]["test"]) == 4
    assert len(result["figures"]["run"]["curve"]) == 20
    assert (tmp_path / "omniglot-torch-0.html").read_text().count("<svg") == 1
