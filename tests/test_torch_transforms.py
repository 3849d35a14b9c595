"""`torch.func` through a memory, and through a network before it: every transform gives what a loop gives."""

import copy

import pytest
import torch
from torch.func import functional_call, grad, grad_and_value, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap
from torch.utils import _pytree as pytree

import raremem
from raremem.adapters.torch import Memory
from raremem.state import Lookup

SLOTS = [40, 5000]
"""Searched in one product, and with a short list."""


def filled(slots=40, query_dim=None, **options):
    memory = Memory(raremem.MemoryConfig(slots=slots, key_dim=8, neighbors=5, softmax_temperature=4.0, **options), query_dim)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(slots * 3 // 4, query_dim or 8, generator=generator)
    memory.update(memory(rows, torch.arange(len(rows)) % 7))
    return memory


@pytest.fixture
def rows():
    return torch.randn(6, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def targets():
    return torch.tensor([0, 3, 1, 2, 6, 3])


def each(function, *columns):
    return torch.stack([function(*arguments) for arguments in zip(*columns, strict=True)])


@pytest.mark.parametrize("loss", ["margin", "nll"])
@pytest.mark.parametrize("slots", SLOTS)
def test_per_sample_gradients_are_those_of_a_loop(slots, loss, rows, targets):
    memory = filled(slots, loss=loss)

    def of(row, target):
        return memory(row[None], target[None]).loss[0]

    def by_autograd(row, target):
        row = row.clone().requires_grad_()
        return torch.autograd.grad(of(row, target), row)[0]

    expected = each(by_autograd, rows, targets)
    assert expected.abs().sum() > 0
    gradients, losses = vmap(grad_and_value(of))(rows, targets)
    torch.testing.assert_close(gradients, expected)
    torch.testing.assert_close(losses, memory(rows, targets).loss)
    torch.testing.assert_close(vmap(grad(of))(rows, targets), expected)
    torch.testing.assert_close(each(grad(of), rows, targets), expected)
    torch.testing.assert_close(vmap(jacrev(of))(rows, targets), expected)
    torch.testing.assert_close(vmap(jacfwd(of))(rows, targets), expected)
    torch.testing.assert_close(grad(lambda rows: vmap(of)(rows, targets).sum())(rows), expected)
    torch.testing.assert_close(grad(lambda rows: memory(rows, targets).loss.sum())(rows), expected)
    torch.testing.assert_close(vjp(lambda rows: memory(rows, targets).loss, rows)[1](torch.ones(6))[0], expected)
    along = jvp(lambda rows: memory(rows, targets).loss, (rows,), (rows * 0 + 1,))[1]
    torch.testing.assert_close(along, expected.sum(1))
    twice = vmap(vmap(grad(of), in_dims=(1, 0)), in_dims=(0, None))(torch.stack([rows.T, rows.T]), targets)
    torch.testing.assert_close(twice, torch.stack([expected, expected]))


@pytest.mark.parametrize("slots", SLOTS)
def test_jacobians_and_hessians_are_those_of_a_loop(slots, rows, targets):
    memory = filled(slots, loss="nll")

    def similarities(row):
        return memory(row[None]).similarities[0]

    expected = each(lambda row: torch.autograd.functional.jacobian(similarities, row), rows)
    torch.testing.assert_close(vmap(jacrev(similarities))(rows), expected)
    torch.testing.assert_close(vmap(jacfwd(similarities))(rows), expected)

    def loss(row, target):
        return memory(row[None], target[None]).loss[0]

    pairs = list(zip(rows, targets, strict=True))
    curved = torch.stack([torch.autograd.functional.hessian(lambda row, t=t: loss(row, t), row) for row, t in pairs])
    torch.testing.assert_close(vmap(hessian(loss))(rows, targets), curved)
    torch.testing.assert_close(vmap(jacrev(grad(loss)))(rows, targets), curved)


@pytest.mark.parametrize("inside", ["before", "projection"])
def test_per_sample_gradients_of_a_network(inside, rows, targets):
    memory = filled(query_dim=8 if inside == "projection" else None)
    network = memory if inside == "projection" else torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh())
    parameters = dict(network.named_parameters())

    def loss(parameters, row, target):
        if inside == "projection":
            return functional_call(memory, parameters, (row[None], target[None])).loss[0]
        return memory(functional_call(network, parameters, (row[None],)), target[None]).loss[0]

    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, rows, targets)
    for place, (row, target) in enumerate(zip(rows, targets, strict=True)):
        network.zero_grad()
        loss(parameters, row, target).backward()
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(found[name][place], parameter.grad)


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("mapped", ["rows", "targets", "masks"])
def test_any_one_argument_may_be_mapped_alone(mapped, slots, rows, targets):
    memory = filled(slots)
    masks = torch.tensor([[True] * 6, [False] + [True] * 5])
    dims = {"rows": (0, None, None), "targets": (None, 0, None), "masks": (None, None, 0)}[mapped]
    arguments = {
        "rows": (torch.stack([rows, -rows]), targets, masks[1]),
        "targets": (rows, torch.stack([targets, targets + 1]), masks[1]),
        "masks": (rows, targets, masks),
    }[mapped]
    found = vmap(memory, in_dims=dims)(*arguments)
    for place in range(2):
        one = [argument if dim is None else argument[place] for argument, dim in zip(arguments, dims, strict=True)]
        for name, field in memory(*one)._asdict().items():
            if field is not None:
                torch.testing.assert_close(getattr(found, name)[place], field, msg=name)


def test_a_memory_is_mapped_without_targets(rows):
    memory = filled()
    found, expected = vmap(memory)(rows[:, None]), memory(rows)
    assert isinstance(found, Lookup)
    assert found.loss is None
    assert found.targets is None
    assert found.slots[:, 0].equal(expected.slots)
    assert found.queries[:, 0].equal(expected.queries)


def test_memories_are_mapped_together(rows, targets):
    memories = [filled(), filled(), Memory(filled().config)]
    memories[1].update(memories[1](-rows, targets))
    _, buffers = stack_module_state(memories)
    found = vmap(lambda buffers: functional_call(memories[0], buffers, (rows, targets)))(buffers)
    for place, memory in enumerate(memories):
        assert found.slots[place].equal(memory(rows, targets).slots)
        torch.testing.assert_close(found.loss[place], memory(rows, targets).loss)


def test_compiled_per_sample_gradients(rows, targets):
    memory = filled()
    of = vmap(grad(lambda row, target: memory(row[None], target[None]).loss[0]))
    torch.testing.assert_close(torch.compile(of, fullgraph=True, backend="aot_eager")(rows, targets), of(rows, targets))
    slots = torch.compile(lambda rows: vmap(memory)(rows[:, None]).slots, fullgraph=True, backend="aot_eager")(rows)
    assert slots[:, 0].equal(memory(rows).slots)


@pytest.mark.parametrize("transform", [grad, lambda function: lambda rows: vmap(function)(rows[None])])
def test_an_update_inside_a_transform_says_what_to_do_and_writes_nothing(transform, rows, targets):
    memory = filled()
    before = copy.deepcopy(memory.state_dict())

    def step(rows):
        out = memory(rows, targets)
        memory.update(out)
        return out.loss.sum()

    with pytest.raises(raremem.StateError, match="expected a state that is mapped itself"):
        transform(step)(rows)
    assert all(torch.equal(before[name], buffer) for name, buffer in memory.state_dict().items())


def test_mapped_states_may_be_updated(rows, targets):
    backend, memory = raremem.get_backend("torch"), filled()
    together = [torch.stack([buffer, buffer]) for buffer in memory.state]
    both = torch.stack([rows, -rows])
    found, report = vmap(lambda state, rows: backend.update(memory.config, state, rows, targets))(
        type(memory.state)(*together), both
    )
    for place, rows in enumerate(both):
        state, alone = backend.update(memory.config, backend.copy(memory.state), rows, targets)
        assert report.slots[place].equal(alone.slots)
        assert all(torch.allclose(mine[place], own) for mine, own in zip(found, state, strict=True))


def test_named_tuples_are_nodes_in_which_none_is_no_leaf(rows, targets):
    """By their fields, whatever these are: also in a lookup of which all is replaced."""
    memory = filled()
    for lookup in (memory(rows), memory(rows, targets)):
        there = [field for field in lookup if field is not None]
        leaves, spec = pytree.tree_flatten(lookup)
        assert all(leaf is field for leaf, field in zip(leaves, there, strict=True))
        again = pytree.tree_unflatten(leaves, pytree.treespec_loads(pytree.treespec_dumps(spec)))
        assert type(again) is Lookup
        assert all(mine is own for mine, own in zip(again, lookup, strict=True))
        named = [path[0].name for path, _ in pytree.tree_flatten_with_path(lookup)[0]]
        assert named == [name for name in Lookup._fields if getattr(lookup, name) is not None]
        assert lookup._asdict() == dict(zip(Lookup._fields, lookup, strict=True))
    assert [leaf is buffer for leaf, buffer in zip(pytree.tree_leaves(memory.state), memory.state, strict=True)] == [True] * 5
    report = memory.update(lookup)
    assert all(mine is own for mine, own in zip(pytree.tree_map(lambda field: field, report), report, strict=True))
