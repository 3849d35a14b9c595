"""What PyTorch users expect of a module."""

import copy
import warnings

import ml_dtypes
import numpy as np
import pytest
import torch
from torch._inductor.utils import fresh_inductor_cache
from torch.utils.checkpoint import checkpoint

import raremem
from raremem.adapters.numpy import NumpyPrimitives
from raremem.adapters.torch import LARGE, Memory, TorchBackend, search_operator
from raremem.adapters.torch.shortlist import SHORTLIST
from raremem.reference.comparison import same_state
from raremem.reference.laws import LAWS, run
from raremem.search.live import LiveIndex, LivePlan

CONFIG = raremem.MemoryConfig(slots=40, key_dim=8, neighbors=5)
BACKEND = raremem.get_backend("torch")


def batch(seed=0, rows=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 8, generator=generator), torch.randint(0, 4, (rows,), generator=generator)


def written(steps=5):
    memory = Memory(CONFIG)
    for step in range(steps):
        memory.update(memory(*batch(step)))
    return memory


def content(memory):
    return BACKEND.to_numpy(memory.state)


def test_forward_changes_nothing():
    memory = written()
    before = content(memory)
    memory(*batch(9))
    same_state(content(memory), before)


def test_loss_trains_what_comes_before():
    network, memory = torch.nn.Linear(8, 8), written()
    memory(network(batch(9)[0]), batch(9)[1]).loss.sum().backward()
    assert network.weight.grad.abs().sum() > 0
    assert not any(buffer.requires_grad for buffer in memory.buffers())


def test_module_is_the_functional_interface():
    memory, state = Memory(CONFIG), BACKEND.init(CONFIG)
    for step in range(5):
        memory.update(memory(*batch(step)))
        state, _ = BACKEND.update(CONFIG, state, *batch(step))
    same_state(content(memory), BACKEND.to_numpy(state))


def test_update_with_a_mask_writes_some_rows():
    memory, state = written(), written().state
    rows, targets = batch(9)
    mask = torch.tensor([True, False, True, True, False, False])
    report = memory.update(memory(rows, targets), mask=mask)
    state, expected = BACKEND.update(CONFIG, state, rows, targets, mask)
    assert not report.written[~mask].any()
    assert torch.equal(report.slots, expected.slots)
    same_state(content(memory), BACKEND.to_numpy(state))


def test_update_copies_no_keys():
    memory = written()
    places = [buffer.data_ptr() for buffer in memory.buffers()]
    memory.update(memory(*batch(9)))
    assert [buffer.data_ptr() for buffer in memory.buffers()] == places


def test_update_allocates_less_than_the_keys():
    config = raremem.MemoryConfig(slots=50_000, key_dim=64, neighbors=1)
    memory = Memory(config)
    rows, targets = torch.randn(4, 64), torch.arange(4)
    out = memory(rows, targets)
    with torch.profiler.profile(profile_memory=True) as profile:
        memory.update(out)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < memory.keys.nbytes / 8


def test_state_dict_round_trip():
    memory, other = written(), Memory(CONFIG)
    other.load_state_dict(memory.state_dict())
    same_state(content(other), content(memory))
    memory.update(memory(*batch(9)))
    other.update(other(*batch(9)))
    same_state(content(other), content(memory))


def test_deepcopy_is_a_memory_of_its_own():
    memory = written()
    before, other = content(memory), copy.deepcopy(memory)
    other.update(other(*batch(9)))
    same_state(content(memory), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_keys_stay_f32(dtype):
    memory = written()
    before = content(memory)
    memory.to(dtype)
    assert memory.keys.dtype == torch.float32
    same_state(content(memory), before)
    out = memory(batch(9)[0].to(dtype).requires_grad_(), batch(9)[1])
    assert out.similarities.dtype == torch.float32


def test_gradient_has_the_dtype_of_the_query():
    memory = written()
    rows = batch(9)[0].to(torch.bfloat16).requires_grad_()
    memory(rows, batch(9)[1]).loss.sum().backward()
    assert rows.grad.dtype == torch.bfloat16


def test_moving_to_a_device_moves_everything():
    memory = Memory(CONFIG).to("meta")
    assert {buffer.device.type for buffer in memory.buffers()} == {"meta"}
    assert memory.keys.dtype == torch.float32


def test_autocast_changes_nothing():
    memory = written()
    plain = memory(*batch(9))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = memory(*batch(9))
    assert torch.equal(plain.similarities, cast.similarities)
    assert torch.equal(plain.loss, cast.loss)


def test_compiles_as_one_graph():
    memory, other = written(), written()

    @torch.compile(fullgraph=True)
    def step(rows, targets):
        out = other(rows, targets)
        other.update(out)
        return out.loss

    for place in range(9, 12):
        out = memory(*batch(place))
        memory.update(out)
        torch.testing.assert_close(step(*batch(place)), out.loss, rtol=0, atol=1e-6)
    assert content(memory)["ages"].tolist() == content(other)["ages"].tolist()
    assert content(memory)["values"].tolist() == content(other)["values"].tolist()


def test_compiled_backend_takes_any_batch_size():
    """Also where programs come from the compiler's cache on disk, whose lookup may tie a program to one size."""
    with fresh_inductor_cache():
        takes_any_batch_size()
        torch.compiler.reset()
        takes_any_batch_size()


def test_compiled_backend_takes_inputs_of_any_kind():
    """More kinds of rows and targets than the compiler makes programs of one function."""
    compiled, rows, targets = raremem.get_backend("torch", compiled=True), *batch(3, 6)[:2]
    state, expected = compiled.init(CONFIG), BACKEND.init(CONFIG)
    kinds = [(dtype, torch.int64) for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)]
    kinds += [(dtype, None) for dtype, _ in kinds] + [(torch.float32, torch.int32)]
    layouts = [lambda rows: rows, lambda rows: rows.T.contiguous().T, lambda rows: rows.clone().requires_grad_()]
    for place, (dtype, of_targets) in enumerate(kinds):
        asked = layouts[place % 3](rows.to(dtype))
        given = None if of_targets is None else targets.to(of_targets)
        same = [backend.query(CONFIG, at, asked, given).slots for backend, at in ((compiled, state), (BACKEND, expected))]
        assert torch.equal(*same)


def takes_any_batch_size():
    compiled = raremem.get_backend("torch", compiled=True)
    states = [compiled.init(CONFIG), BACKEND.init(CONFIG)]
    for rows in range(1, 20):
        reports = []
        for place, backend in enumerate((compiled, BACKEND)):
            states[place], report = backend.update(CONFIG, states[place], *batch(rows, rows))
            reports.append(report)
        assert torch.equal(reports[0].slots, reports[1].slots)


def test_a_compiled_program_searches_a_large_memory_as_an_eager_one_does(monkeypatch):
    memory = Memory(raremem.MemoryConfig(slots=LARGE, key_dim=8, neighbors=5))
    memory.update(memory(torch.randn(LARGE // 2, 8), torch.arange(LARGE // 2)))
    other = copy.deepcopy(memory)

    def step(memory, rows, targets):
        out = memory(rows, targets)
        return out, memory.update(out), memory(rows).slots

    compiled = torch.compile(lambda *arrays: step(memory, *arrays), fullgraph=True)
    for rows in (6, 9):
        out, report, slots = compiled(*batch(rows, rows))
        expected = step(other, *batch(rows, rows))
        assert torch.equal(out.slots, expected[0].slots)
        torch.testing.assert_close(out.loss, expected[0].loss, rtol=0, atol=1e-6)
        assert torch.equal(report.slots, expected[1].slots)
        assert torch.equal(slots, expected[2])
    monkeypatch.setattr(SHORTLIST, "find", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compiled(*batch())


@pytest.mark.parametrize("with_targets", [True, False])
def test_a_compiler_is_told_the_truth_about_the_search(with_targets):
    rows, targets = batch()
    torch.library.opcheck(search_operator.nearest, (list(written().state), rows, targets.int() if with_targets else None, 3))


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradient_and_writes_once(reentrant):
    gradients, states = [], []
    for way in ("plain", "checkpointed"):
        memory = written()
        rows = batch(9)[0].requires_grad_()

        def loss(rows, memory=memory):
            return memory(rows * 1.0, batch(9)[1]).loss.mean()

        (loss(rows) if way == "plain" else checkpoint(loss, rows, use_reentrant=reentrant)).backward()
        memory.update(memory(rows, batch(9)[1]))
        gradients.append(rows.grad)
        states.append(content(memory))
    assert torch.equal(*gradients)
    same_state(*states)


@pytest.mark.parametrize("reentrant", [False, True])
def test_an_update_inside_a_checkpoint_is_made_once(reentrant):
    memory, once = written(), written()
    once.update(once(*batch(9)))

    def loss(rows):
        out = memory(rows * 1.0, batch(9)[1])
        memory.update(out)
        return out.loss.mean()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checkpoint(loss, batch(9)[0].requires_grad_(), use_reentrant=reentrant).backward()
    same_state(content(memory), content(once))
    replayed = [str(warning.message) for warning in caught if "replayed" in str(warning.message)]
    assert bool(replayed) == reentrant, "only a reentrant checkpoint replays to the end, and then says so"


def test_learned_projection():
    memory = Memory(CONFIG, query_dim=20)
    targets = torch.arange(4)
    for _ in range(2):
        out = memory(torch.randn(4, 20, generator=torch.Generator().manual_seed(0)), targets)
        memory.update(out)
    assert (out.values[:, 0] == targets).all()
    assert [name for name, _ in memory.named_parameters()] == ["projection.weight"]


def test_errors_say_what_to_do():
    memory = Memory(CONFIG, strict=True)
    with pytest.raises(raremem.RejectedRowsError, match=r"rows \[1\]"):
        memory(torch.tensor([[1.0] * 8, [float("nan")] * 8]))
    with pytest.raises(raremem.StateError, match="no targets"):
        memory.update(memory(batch()[0]))
    with pytest.raises(raremem.DeviceError, match="on meta"):
        memory(batch()[0].to("meta"))


@pytest.mark.parametrize("law", [law for law in LAWS.values() if law.needs is None], ids=lambda law: law.name)
def test_every_law_holds_where_content_is_not_seen(law):
    """As on a GPU: all in PyTorch, and in shapes that no content decides."""
    backend = TorchBackend()
    backend.eager = None
    run(law, backend, 10)


def test_where_content_is_not_seen_updates_are_pytorch_s(monkeypatch):
    """The laws above would else be of NumPy, in which updates on the CPU are made."""
    monkeypatch.setattr(NumpyPrimitives, "put_rows", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        written()
    monkeypatch.setattr(BACKEND, "eager", None, raising=False)
    written()


def live(name):
    return LiveIndex(raremem.get_index(name).build, background=False, plan=LivePlan(smallest=20))


@pytest.mark.parametrize("index", [None, "annoy"])
def test_autocast_changes_no_update(index):
    """Nor what an index, or the exact search of what changed beside it, answers."""
    contents = []
    for fast in (False, True):
        memory = Memory(
            CONFIG, index=index and LiveIndex(raremem.get_index(index).build, background=False, plan=LivePlan(smallest=20))
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            for step in range(12):
                memory.update(memory(*batch(step)))
        assert index is None or memory.index.ready
        contents.append(content(memory))
    same_state(*contents)


def test_a_product_with_one_row_is_that_with_many():
    """Whole numbers: every sum is exact."""
    left, right = (torch.randint(-8, 9, (rows, 128)).float() for rows in (50, 3))
    for row in range(3):
        found = BACKEND.eager.inner(left, right[row : row + 1])
        assert torch.equal(found, (left @ right.T)[:, row : row + 1])


def test_arrays_of_numpy_are_taken_as_they_are():
    """Of another byte order, backwards, not to be written to, of dtypes that PyTorch lacks: what counts are the numbers."""
    memory, (rows, targets) = written(), batch(9)
    expected = memory(rows, targets)
    rows, targets, mask = rows.numpy(), targets.numpy(), np.array([True, True, False, True, False, True])
    frozen = rows.copy()
    frozen.flags.writeable = False
    for queries, wanted in [
        (rows.astype(">f4"), targets.astype(">i8")),
        (rows[::-1].copy()[::-1], targets[::-1].copy()[::-1]),
        (frozen, targets.astype("<i2")),
        (rows.astype(np.longdouble), targets.astype("uint8")),
        (np.asfortranarray(rows), targets.astype(">i4")),
    ]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = memory(queries, wanted)
        assert all(mine.equal(own) for mine, own in zip(found, expected, strict=True))
    in_bf16 = memory(rows.astype(ml_dtypes.bfloat16), targets, mask)
    same = memory(torch.from_numpy(rows).bfloat16(), torch.from_numpy(targets), torch.from_numpy(mask))
    assert all(mine.equal(own) for mine, own in zip(in_bf16, same, strict=True))
