"""What people try first: it works, or the error says what to do."""

import numpy as np
import pytest
import torch
from torch import nn

import raremem
from raremem import MemoryConfig
from raremem.adapters.sklearn import MemoryClassifier
from raremem.adapters.torch import Memory

CONFIG = MemoryConfig(slots=20, key_dim=4, neighbors=3)
EYE = np.eye(4, dtype=np.float32)


def filled(framework):
    """A memory of any kind that has seen four rows, as `ask(queries, targets, mask)`, and what makes its arrays of NumPy's."""
    if framework == "torch":
        memory = Memory(CONFIG)
        memory.update(memory(torch.tensor(EYE), torch.arange(4)))
        return memory, torch.as_tensor
    if framework == "flax":
        from raremem.adapters.flax import Memory as FlaxMemory

        memory = FlaxMemory(CONFIG)
        memory.update(memory(EYE, np.arange(4)))
        return memory, __import__("jax").numpy.asarray
    backend = raremem.get_backend(framework)
    state, _ = backend.update(CONFIG, backend.init(CONFIG), EYE, np.arange(4))
    return lambda *rows: backend.query(CONFIG, state, *rows), np.asarray


KINDS = pytest.mark.parametrize("framework", ["torch", "flax", "numpy", "jax", "reference"])


@KINDS
@pytest.mark.parametrize("labels", [["a", "b", "c", "d"], np.array(["a", "b", "c", "d"]), np.array(["a", 1, "c", 2], object)])
def test_labels_as_targets_are_told_what_takes_labels(framework, labels):
    ask, own = filled(framework)
    with pytest.raises(raremem.DTypeError, match=r"targets are labels .*LabelEncoder; or use .*MemoryClassifier"):
        ask(own(EYE), labels)
    if hasattr(ask, "update"):
        with pytest.raises(raremem.DTypeError, match="MemoryClassifier"):
            ask.update(ask(own(EYE)), labels)
        with pytest.raises(raremem.DTypeError, match=r"values are labels .*MemoryClassifier"):
            ask.forget(values=labels)


def test_compiled_code_is_told_the_same():
    memory, _ = filled("torch")
    for fullgraph, error in ((True, torch._dynamo.exc.Unsupported), (False, raremem.DTypeError)):
        with pytest.raises(error, match="MemoryClassifier"):
            torch.compile(memory, fullgraph=fullgraph)(torch.tensor(EYE), ["a", "b", "c", "d"])
    jax = pytest.importorskip("jax")
    from raremem.adapters import jax as functional

    with pytest.raises(raremem.DTypeError, match="MemoryClassifier"):
        jax.jit(lambda rows: functional.query(CONFIG, functional.init(CONFIG), rows, np.array(["a"] * 4)).values)(EYE)


@KINDS
def test_sequences_are_told_to_be_flattened(framework):
    ask, own = filled(framework)
    rows, targets, mask = own(np.zeros((2, 3, 4), np.float32)), own(np.zeros((2, 3), np.int32)), own(np.ones((2, 3), bool))
    with pytest.raises(raremem.ShapeError, match=r"\(2, 3, 4\).*reshape\(-1, 4\), and targets and mask with reshape\(-1\)"):
        ask(rows, targets, mask)
    for given in ((targets, None), (None, mask)):
        with pytest.raises(raremem.ShapeError, match=r"\(2, 3\); expected \[6\].*Flatten them with reshape\(-1\)"):
            ask(rows.reshape(-1, 4), *given)
    with pytest.raises(raremem.ShapeError, match=r"queries\[None\]"):
        ask(rows[0, 0])
    with pytest.raises(raremem.ShapeError, match="make the memory with that key_dim"):
        ask(own(np.zeros((2, 5), np.float32)))
    assert ask(rows.reshape(-1, 4) + 1, targets.reshape(-1), mask.reshape(-1)).values.shape == (6, 3)


def test_sequences_before_a_projection_and_in_compiled_code():
    with pytest.raises(raremem.ShapeError, match=r"query_dim=6\. Flatten them with reshape\(-1, 6\)"):
        Memory(CONFIG, query_dim=6)(torch.zeros(2, 3, 6))
    with pytest.raises((raremem.ShapeError, torch._dynamo.exc.Unsupported), match=r"reshape\(-1, 4\)"):
        torch.compile(Memory(CONFIG), fullgraph=True)(torch.zeros(2, 3, 4))


def test_no_rows_train_a_network_and_change_nothing():
    memory, before = Memory(CONFIG, query_dim=6), None
    rows = torch.zeros(0, 6, requires_grad=True)
    out = memory(rows, torch.zeros(0, dtype=torch.int64), torch.ones(0, dtype=torch.bool))
    (out.loss.sum() + out.scores(5).sum() + out.recall(nn.Embedding(5, 2)).sum()).backward()
    assert rows.grad.shape == (0, 6)
    assert not memory.projection.weight.grad.any()
    before = memory.state_dict()
    for report in (memory.update(out), memory.store(rows, torch.zeros(0, dtype=torch.int64))):
        assert report.slots.shape == (0,)
    assert torch.isnan(out.loss.mean())  # as of all means of nothing in PyTorch
    assert int(memory.forget(slots=[]).count) == 0
    assert all(torch.equal(array, before[name]) for name, array in memory.state_dict().items())
    strict = Memory(CONFIG, strict=True)
    assert strict(torch.zeros(0, 4)).found.shape == (0,)


def test_no_rows_in_flax_and_in_traced_jax_code():
    jax = pytest.importorskip("jax")
    memory, own = filled("flax")
    none, targets = own(np.zeros((0, 4), np.float32)), own(np.zeros(0, np.int32))
    before = [np.asarray(array) for array in memory.state]
    assert memory.update(memory(none, targets)).slots.shape == (0,)
    assert memory(none).recall(own(np.ones((4, 5)))).shape == (0, 5)
    assert memory(none).scores(4).shape == (0, 4)
    assert all(np.array_equal(old, new) for old, new in zip(before, memory.state, strict=True))
    from raremem.adapters import jax as functional

    slope = jax.grad(lambda rows: functional.query(CONFIG, memory.state, rows, targets).loss.sum())(none)
    assert slope.shape == (0, 4)
    state, report = jax.jit(lambda state: functional.update(CONFIG, state, none, targets))(memory.state)
    assert (report.written.shape, int(state.step)) == ((0,), 1)


def test_no_rows_of_a_classifier_are_scikit_learns_own_error():
    from raremem.adapters.sklearn import MemoryClassifier

    classifier = MemoryClassifier().fit(EYE, list("abcd"))
    for call in (classifier.predict, classifier.predict_proba, classifier.kneighbors, classifier.evidence):
        with pytest.raises(ValueError, match="0 sample"):
            call(np.zeros((0, 4)))
    with pytest.raises(ValueError, match="0 sample"):
        classifier.partial_fit(np.zeros((0, 4)), [])
    assert classifier.forget(ids=[]) == 0
    assert len(classifier) == 4


class Scaled(nn.Embedding):
    """Whose answers are not its weights, as some language models have it."""

    def forward(self, values):
        return 3 * super().forward(values)


@pytest.mark.parametrize("compiled", [False, True])
def test_recall_takes_an_embedding_as_it_takes_its_weights(compiled):
    memory, _ = filled("torch")
    query = torch.randn(5, 4, requires_grad=True)
    out, table = memory(query), nn.Embedding(4, 6)

    def recall(out, table):
        return out.recall(table)

    recall = torch.compile(recall, fullgraph=True) if compiled else recall
    torch.testing.assert_close(recall(out, table), out.recall(table.weight))
    recall(out, table).sum().backward()
    assert table.weight.grad.any()
    assert query.grad.any()
    if not compiled:
        scaled = Scaled.from_pretrained(table.weight.detach())
        torch.testing.assert_close(out.recall(scaled), 3 * out.recall(table.weight))
        deep = nn.Sequential(table, nn.Linear(6, 2, bias=False))
        torch.testing.assert_close(out.recall(deep), deep[1](out.recall(table)))


def test_recall_of_what_is_no_embedding_says_what_is():
    out, own = filled("torch")[0](torch.tensor(EYE)), np.ones((4, 5), np.float32)
    with pytest.raises(raremem.DTypeError, match=r"is a ndarray; expected an array \[values, dim\] of the memory's framework"):
        out.recall(own)
    with pytest.raises(raremem.DTypeError, match="is a list"):
        out.recall(own.tolist())
    with pytest.raises(raremem.ShapeError, match=r"gave \(4, 3\) for values \(4, 3\); .*Give its weights"):
        out.recall(nn.Identity())
    with pytest.raises(raremem.ShapeError, match=r"has shape \(5,\); expected \[values, dim\]"):
        out.recall(torch.ones(5))
    for short in (nn.Embedding(3, 5), nn.Embedding(3, 5).weight):
        with pytest.raises(IndexError, match="answers the value 3, and the embedding has 3 rows"):
            out.recall(short)
    with pytest.raises(raremem.DTypeError, match="is a int"):
        raremem.get_backend("numpy").recall(np.ones((1, 1), np.float32), np.zeros((1, 1), np.int32), 5)


def test_recall_takes_flax_embeddings():
    jax, nnx = pytest.importorskip("jax"), pytest.importorskip("flax.nnx")
    out, table = filled("flax")[0](EYE), nnx.Embed(4, 6, rngs=nnx.Rngs(0))
    expected = out.recall(table.embedding[...])
    for given in (table, table.embedding):
        np.testing.assert_allclose(out.recall(given), expected, atol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda out: out.recall(table))(out), expected, atol=1e-6)
    slope = nnx.grad(lambda table: out.recall(table).sum())(table)
    assert jax.tree.leaves(slope)[0].any()


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_a_memory_is_made_of_a_config_or_of_its_fields(framework):
    kind = type(filled(framework)[0])
    assert kind(slots=20, key_dim=4, neighbors=3).config == CONFIG == kind(CONFIG).config
    with pytest.raises(raremem.ConfigError, match=r"slots are given beside a config; .*Memory\(slots=\.\.\., \.\.\.\)"):
        kind(CONFIG, slots=5)
    for wrong in (20, {"slots": 20}, None):
        with pytest.raises(raremem.ConfigError, match=r"expected a MemoryConfig, such as MemoryConfig\(slots=1000"):
            kind(wrong)
    with pytest.raises(TypeError, match="slot"):
        kind(slot=20)
    with pytest.raises(raremem.ConfigError, match="slots=0"):
        kind(slots=0)


@pytest.mark.parametrize("labels", [(), ([0, 1, 2, 3],)])
@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_rows_given_for_a_lookup_are_told_where_they_belong(framework, labels):
    memory, own = filled(framework)
    with pytest.raises(raremem.DTypeError, match=r"the lookup is a .*; expected .*memory.update\(out\).*memory.store\(query"):
        memory.update(own(EYE), *(own(np.array(row)) for row in labels))
    assert len(memory) == 4


@pytest.mark.parametrize("framework", ["numpy", "jax", "reference"])
def test_rows_given_for_a_lookup_of_a_backend_are_refused(framework):
    backend = raremem.get_backend(framework)
    with pytest.raises(raremem.DTypeError, match="the lookup is a ndarray; expected what a query"):
        backend.update(CONFIG, backend.init(CONFIG), EYE, np.arange(4), None, EYE)


def test_a_file_that_another_class_wrote_is_told_which(tmp_path):
    filled("torch")[0].save(tmp_path / "memory")
    MemoryClassifier().fit(EYE, list("abcd")).save(tmp_path / "classifier")
    with pytest.raises(raremem.CheckpointError, match=r"written by MemoryClassifier.save; .*MemoryClassifier.load"):
        Memory.load(tmp_path / "classifier")
    with pytest.raises(raremem.CheckpointError, match=r"written by raremem.save or Memory.save; .* or Memory.load"):
        MemoryClassifier.load(tmp_path / "memory")
    with pytest.raises(raremem.ConfigError, match=r"neighbors, key_dim: the file has the config; .*dataclasses.replace"):
        Memory.load(tmp_path / "memory", neighbors=2, key_dim=3)


def test_a_classifier_that_is_to_forget_nothing_is_told_its_own_names():
    classifier = MemoryClassifier().fit(EYE, list("abcd"))
    with pytest.raises(raremem.ForgetError, match=r"nothing is named; expected labels, ids= or older_than="):
        classifier.forget()
    assert classifier.forget(classifier.classes_) == len(EYE)  # as the message says


def test_an_index_that_cannot_be_imported_is_unknown():
    with pytest.raises(raremem.UnknownBackendError, match=r"no index 'nowhere:Index' .*; expected package.module:attribute"):
        Memory(CONFIG, index="nowhere:Index")


def test_a_jax_memory_grows_by_the_module():
    from raremem.adapters import jax as memory

    state, _ = memory.update(CONFIG, memory.init(CONFIG), EYE, np.arange(4))
    config, state, kept = memory.resize(CONFIG, state, 30)
    assert config.slots == 30
    assert kept[:5].tolist() == [0, 1, 2, 3, 4]
    assert memory.query(config, state, EYE).values[:, 0].tolist() == [0, 1, 2, 3]


def test_options_of_a_module_go_with_fields_of_its_config():
    memory = Memory(slots=20, key_dim=4, query_dim=6, strict=True)
    assert memory.projection.in_features == 6
    assert memory.strict
    with pytest.raises(raremem.ConfigError, match="expected a MemoryConfig"):
        raremem.get_backend("numpy").init({"slots": 20})


def test_a_lookup_without_its_gradients_is_kept_for_late_labels():
    memory, _ = filled("torch")
    query = torch.randn(3, 4, requires_grad=True)
    out = memory(query)
    kept = out.detach()
    assert all(field is None or not field.requires_grad for field in kept)
    assert all(field is None or torch.equal(field, other) for field, other in zip(kept, out, strict=True))
    other = Memory(CONFIG)
    other.update(other(torch.tensor(EYE), torch.arange(4)))
    with pytest.raises(raremem.StateError, match="made on another memory"):
        other.update(kept, torch.arange(3))  # it is still of its own
    assert memory.update(kept, torch.arange(3)).written.all()


@KINDS
def test_a_lookup_in_numpy(framework):
    ask, own = filled(framework)
    out = ask(own(EYE), own(np.arange(4)))
    found, same = out.numpy(), out.detach()
    for name, field, other, mine in zip(found._fields, found, same, out, strict=True):
        assert type(field) is np.ndarray, name
        np.testing.assert_array_equal(field, np.asarray(other), err_msg=name)
        assert field is not mine
    assert found.scores(4).argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_a_lookup_without_gradients_in_traced_code():
    memory, _ = filled("torch")
    query = torch.randn(3, 4, requires_grad=True)
    weights = torch.compile(lambda query: memory(query).detach().weights, fullgraph=True)(query)
    assert not weights.requires_grad
    jax = pytest.importorskip("jax")
    ask, own = filled("flax")
    assert not jax.grad(lambda rows: ask(rows).detach().weights[0, 0])(own(EYE)).any()


def test_a_lookup_on_another_device():
    memory, _ = filled("torch")
    out = memory(torch.tensor(EYE), torch.arange(4))
    assert out.to("meta").values.is_meta
    assert out.to("meta").loss.is_meta
    assert memory.update(out.to(torch.device("cpu"))).hit.all()
    with pytest.raises(raremem.DeviceError, match=r"torch.float16 was given to Lookup.to; .*out\.weights\.half\(\)"):
        out.to(torch.float16)
    with pytest.raises(raremem.DeviceError, match=r"jax\.device_put\(out, device\)"):
        filled("flax")[0](EYE).to("cpu")


@KINDS
def test_what_found_means(framework):
    """Something was there to be found, however unlike; elsewhere values are -1, and numbers 0."""
    ask, own = filled(framework)
    rows = np.stack([EYE[0], -np.ones(4, np.float32), EYE[1], np.full(4, np.nan, np.float32)])
    out = ask(own(rows), own(np.arange(4)), own(np.array([True, True, False, True]))).numpy()
    assert out.found.tolist() == [True, True, False, False]
    assert (out.similarities[1] < 0).all()
    for name, none in (("values", -1), ("slots", -1), ("similarities", 0), ("weights", 0), ("loss", 0)):
        assert (getattr(out, name)[2:] == none).all(), name
    backend = raremem.get_backend("numpy")
    assert not backend.query(CONFIG, backend.init(CONFIG), EYE).found.any()
