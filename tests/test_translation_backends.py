"""A network that translates a stream is the same in both frameworks: its answers, its memory, its training."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from raremem.benchmarks.data.corpus import END, PAD
from raremem.benchmarks.tasks.translation import gate
from raremem.benchmarks.tasks.translation.engine import Sentence, run_stream
from raremem.benchmarks.tasks.translation.observe import forced
from raremem.benchmarks.tasks.translation.peers import KnnMt, Tuned
from raremem.benchmarks.tasks.translation.source import Source
from raremem.benchmarks.tasks.translation.systems import Alone, Remembering
from raremem.benchmarks.training.translator.recipe import (
    BUCKETS,
    Pair,
    TranslationRecipe,
    bucket_of,
    extended,
    first_weights,
    padded,
)
from raremem.benchmarks.training.translator.text import make_learner, make_store
from raremem.config import MemoryConfig

jax = pytest.importorskip("jax")
torch = pytest.importorskip("torch")

BACKENDS = ("torch", "jax")
TOKENS = 40
TINY = TranslationRecipe(
    mixed=True, batch=16, dim=32, key_dim=16, slots=256, neighbors=4, rate=8e-3, steps=100, dropout=0.0, helped=1.0
)  # fmt: skip
"""Nothing of it is random in training, so that both frameworks are asked for the same."""
ROUNDINGS = 8
"""How many times PyTorch's own rounding error in f32 another order of the same sums may be off."""


def pairs(generator, count):
    """Sentences whose translation is each word's own other word; long ones and short ones."""
    sources = [generator.integers(4, TOKENS, generator.integers(1, 10)).tolist() for _ in range(count)]
    return [Pair(row, [4 + (7 * word) % (TOKENS - 4) for word in row], [False] * len(row)) for row in sources]


def place_of(name):
    """Where a weight of `first_weights` is in both networks: PyTorch's name, and the path in the other."""
    layer, _, part = name.partition("/")
    if part:
        ours = {"input": ("dense_i", "kernel"), "hidden": ("dense_h", "kernel"), "bias": ("dense_h", "bias")}[part]
        theirs = {"input": "weight_ih_l0", "hidden": "weight_hh_l0", "bias": "bias_ih_l0"}[part]
        return f"model/recurrent.{layer}_lstm.{theirs}", (layer, *ours)
    path = {"gate_bias": ("gate", "bias"), "bias": ("bias",), "gain": ("gain",)}.get(name)
    return f"model/weights.{name}", path or (name, "embedding" if name in ("source", "embedding") else "kernel")


def by_path(state):
    """The arrays of JAX's network by their paths."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(state)
    parts = [[getattr(key, "key", getattr(key, "name", None)) for key in path] for path, _ in leaves]
    names = [tuple(part for part in path if part != "value") for path in parts]
    return dict(zip(names, (leaf for _, leaf in leaves), strict=True)), names, tree


def take_over(learner, other):
    """Give a learner in JAX the weights of one in PyTorch, its memory's content left out."""
    content = other.to_numpy()
    arrays, names, tree = by_path(learner.weights)
    for name in first_weights(other.recipe, other.sizes):
        theirs, path = place_of(name)
        array = content[theirs]
        if name.endswith("/bias"):
            array = array + content[theirs.replace("bias_ih", "bias_hh")]
        array = array.T if name.partition("/")[2] in ("input", "hidden") else array
        assert arrays[path].shape == array.shape, name
        arrays[path] = jax.numpy.asarray(array.copy())
    learner.weights = jax.tree.unflatten(tree, [arrays[name] for name in names])


@pytest.fixture(scope="module", autouse=True)
def products_in_f32():
    """PyTorch's too, where the processor has faster ones."""
    from raremem.benchmarks.training.translator.torch_learner import TorchTranslator

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TorchTranslator, "fast_products", lambda self: nullcontext())
        yield


@pytest.fixture(scope="module")
def learners(products_in_f32):
    """Both, trained a little, with PyTorch's weights."""
    generator = np.random.default_rng(0)
    both = {backend: make_learner(backend, TINY, (TOKENS, TOKENS)) for backend in BACKENDS}
    for _ in range(TINY.steps):
        both["torch"].learn(*padded(pairs(generator, TINY.batch)))
    take_over(both["jax"], both["torch"])
    return both


def sentences(generator, count):
    """As the engine takes them: a word is a token, and most are of words that training never had."""
    found = []
    for source, target, _ in pairs(generator, count):
        tokens = np.array([*source, END], np.int32)
        rarity, signatures = -np.log1p(tokens % 3).astype(np.float32), np.eye(TOKENS, dtype=np.float32)[tokens]
        place = np.arange(len(tokens), dtype=np.int32)
        found.append(Sentence(Source(tokens, place, tokens, rarity, signatures), [[token] for token in target]))
    return found


def exactly(learner, sentence):
    """What a reading should be, in f64, and how far from it PyTorch's is in f32."""
    near, right = forced(learner, sentence)[0], forced(learner.tunable(1.0).double(), sentence)[0]
    return right, [float(np.abs(one - other).max()) for one, other in zip(near, right, strict=True)]


def test_readings_agree_within_the_rounding_of_f32(learners):
    for sentence in sentences(np.random.default_rng(1), 6):
        right, errors = exactly(learners["torch"], sentence)
        for part, expected, error in zip(forced(learners["jax"], sentence)[0], right, errors, strict=True):
            assert part.shape == expected.shape
            assert np.abs(part - expected).max() <= ROUNDINGS * max(error, 2**-24 * np.abs(expected).max())


def listening(neighbors=14, context=8):
    """A gate that hears the memory wherever it has something very similar."""
    sizes = {"neighbors": neighbors, "context": context}
    weights = {f"{name}/mean": np.zeros(size, np.float32) for name, size in sizes.items()}
    weights |= {f"{name}/deviation": np.ones(size, np.float32) for name, size in sizes.items()}
    weights |= {"neighbor_in": np.zeros((neighbors + context, 1), np.float32), "network_in": np.zeros((context, 1), np.float32)}
    one = {"neighbor_bias": -9, "neighbor_out": 6, "network_bias": 0, "network_out": 0, "start": 0}
    weights |= {name: np.array([value], np.float32) for name, value in one.items()}
    weights["neighbor_in"][0] = 10
    return gate.Gate(weights)


def systems_of(backend):
    memory = make_store(backend, MemoryConfig(64, TINY.key_dim, 4))
    kept = make_store(backend, MemoryConfig(512, TINY.dim, 4, write="keep"))
    return {"alone": Alone(), "memory": Remembering(memory, 64, None, gate=listening()), "kNN-MT": KnnMt(kept, 0.6, 0.1)}


def content_of(store):
    """What a store holds, in NumPy."""
    state = store.memory.state if hasattr(store, "memory") else store.state
    return {name: np.asarray(getattr(state, name)) for name in ("keys", "values", "last_used", "hits")}


def test_a_stream_is_translated_and_kept_alike(learners):
    """With a memory so small that slots are taken again."""
    stream = sentences(np.random.default_rng(2), 24)
    systems = {backend: systems_of(backend) for backend in BACKENDS}
    spoken = {backend: run_stream(learners[backend], systems[backend], stream) for backend in BACKENDS}
    for name in systems["torch"]:
        assert spoken["jax"][name] == spoken["torch"][name]
    assert any(spoken["jax"]["memory"].origins)
    assert spoken["jax"]["memory"].said != spoken["jax"]["alone"].said
    for name in ("memory", "kNN-MT"):
        ours, theirs = (content_of(systems[backend][name].store) for backend in ("jax", "torch"))
        for part in ("values", "last_used", "hits"):
            np.testing.assert_array_equal(ours[part], theirs[part])
        np.testing.assert_allclose(ours["keys"], theirs["keys"], rtol=0, atol=1e-5)
    for part, expected in vars(systems["jax"]["memory"].notes).items():
        np.testing.assert_array_equal(vars(systems["torch"]["memory"].notes)[part], expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_comes_out_of_a_store_is_of_numpy(backend):
    store = make_store(backend, MemoryConfig(16, 4, 4))
    said = np.array([7, 8, 9], np.int32)
    out = store.lookup(np.eye(4, dtype=np.float32)[:3], said)
    report = store.update(out, said, np.array([True, False, True]))
    assert np.asarray(report.slots).tolist() == [0, -1, 1]
    again = store.lookup(np.eye(4, dtype=np.float32)[:3])
    assert np.asarray(again.values)[[0, 2], 0].tolist() == [7, 9]
    if backend == "jax":
        assert {type(part) for part in (*again, *report) if part is not None} == {np.ndarray}


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("mixed", [True, False])
def test_training_is_alike(mixed, memory):
    """The loss of each of some steps, with a memory that fills up; a step takes both to about the same weights."""
    recipe = replace(TINY, mixed=mixed, memory=memory, slots=128)
    both = {backend: make_learner(backend, recipe, (TOKENS, TOKENS)) for backend in BACKENDS}
    generator = np.random.default_rng(3)
    for step in range(6):
        source, read, said, rare = padded(pairs(generator, recipe.batch))
        rare = (said % 3 == 0) & (said != PAD)
        ours, theirs = (both[backend].learn(source, read, said, rare) for backend in ("jax", "torch"))
        assert ours == pytest.approx(theirs, rel=1e-5 if step == 0 else 1e-3), step
    if memory:
        ours, theirs = both["jax"].state[0], both["torch"].memory.state
        np.testing.assert_array_equal(np.asarray(ours.values), theirs.values.numpy())


def test_fine_tuning_is_alike(learners):
    """The change that a step on each sentence makes differs by little of itself, and the network itself is not changed."""
    stream = sentences(np.random.default_rng(4), 4)
    before = {backend: forced(learners[backend], stream[0])[0].probabilities for backend in BACKENDS}
    after = {}
    for backend in BACKENDS:
        tuned = learners[backend].tunable(1e-3)
        run_stream(tuned, {"fine-tuning": Tuned(tuned)}, stream)
        after[backend] = forced(tuned, stream[0])[0].probabilities
        np.testing.assert_array_equal(forced(learners[backend], stream[0])[0].probabilities, before[backend])
    change = np.abs(after["torch"] - before["torch"]).max()
    assert change > 0.01
    assert np.abs(after["jax"] - after["torch"]).max() < 0.02 * change


def test_sentences_of_any_length_have_few_shapes():
    lengths = [bucket_of(length) for length in range(1, 200)]
    assert set(lengths) == {1, *BUCKETS, 128, 192, 256}
    assert all(length >= needed for needed, length in enumerate(lengths, 1))
    array = np.ones((2, 3), np.int32)
    assert extended(array, 3, axis=1) is array
    assert extended(array, 5, axis=1).tolist() == [[1, 1, 1, PAD, PAD]] * 2
