"""What a backend's table must have, what its arrays must support, and how their dtypes are told."""

import operator
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

import raremem
from raremem.adapters.numpy import NumpyPrimitives
from raremem.backend import ArrayBackend
from raremem.primitives import Primitives
from raremem.reference.laws import LAWS, run
from raremem.state import backends_of
from raremem.validation import dtype_name


class Spelled:
    """A dtype that shows as a framework spells it."""

    def __init__(self, spelling):
        self.spelling = spelling

    def __str__(self):
        return self.spelling


SPELLINGS = [
    (np.dtype("float32"), "float32"),
    (np.dtype(">f4"), "float32"),
    (np.dtype(">i8"), "int64"),
    (np.dtype("bool"), "bool"),
    (np.float16, "float16"),
    (np.bool_, "bool"),
    (np.dtype(ml_dtypes.bfloat16), "bfloat16"),
    (ml_dtypes.bfloat16, "bfloat16"),
    (Spelled("torch.bfloat16"), "bfloat16"),
    (Spelled("mlx.core.int32"), "int32"),
    (Spelled("<dtype: 'int32'>"), "int32"),
    (Spelled("<dtype: 'bool'>"), "bool"),
    (Spelled("<dtype: 'bfloat16'>"), "bfloat16"),
    (Spelled("<class 'jax.numpy.float32'>"), "float32"),
    (Spelled("paddle.float64"), "float64"),
    (Spelled("Float32"), "float32"),
    (SimpleNamespace(name="uint8"), "uint8"),
]


@pytest.mark.parametrize(("dtype", "name"), SPELLINGS, ids=[str(dtype) for dtype, _ in SPELLINGS])
def test_a_dtype_is_told_however_it_is_spelled(dtype, name):
    assert dtype_name(SimpleNamespace(dtype=dtype)) == name


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float32", "int8", "int32", "int64", "uint8", "bool"])
def test_dtypes_of_pytorch_and_jax_are_told(kind):
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    assert dtype_name(torch.zeros(1, dtype=getattr(torch, kind))) == kind
    if kind != "int64":
        assert dtype_name(jnp.zeros(1, kind)) == kind


@pytest.mark.parametrize("forgotten", sorted(Primitives.__abstractmethods__))
def test_what_a_table_forgets_is_named_when_it_is_made(forgotten):
    """NumPy's table overrides all that is abstract: without one of them it cannot be made."""
    assert getattr(NumpyPrimitives, forgotten) is not None
    body = {key: value for key, value in vars(NumpyPrimitives).items() if key != forgotten and not key.startswith("__")}
    with pytest.raises(TypeError, match=rf"abstract method.*{forgotten}"):
        type("Forgetful", (Primitives,), body)()


class Few:
    """An array that supports what `raremem.primitives` asks for, and nothing else. Its dtypes show as TensorFlow's."""

    def __init__(self, array):
        self.seen = np.asarray(array)

    shape = property(lambda self: self.seen.shape)
    dtype = property(lambda self: Spelled(f"<dtype: '{self.seen.dtype}'>"))

    @property
    def T(self):
        assert self.seen.ndim == 2
        return Few(self.seen.T)

    def __len__(self):
        return len(self.seen)

    def __int__(self):
        return int(self.seen[()])

    def __bool__(self):
        raise TypeError("a branch on content")

    def __array__(self, dtype=None, copy=None):
        return np.array(self.seen, dtype)

    def reshape(self, *shape):
        return Few(self.seen.reshape(*shape))

    def sum(self, axis):
        return Few(self.seen.sum(axis))

    def __getitem__(self, index):
        parts = index if isinstance(index, tuple) else (index,)
        assert all(part is None or part is ... or isinstance(part, int | slice | Few) for part in parts)
        assert all(part.seen.dtype == np.int32 for part in parts if isinstance(part, Few)), "an index that is not i32"
        return Few(self.seen[tuple(part.seen if isinstance(part, Few) else part for part in parts)])

    def __invert__(self):
        assert self.seen.dtype == np.bool_
        return Few(~self.seen)

    def __neg__(self):
        return Few(-self.seen)


def binary(name, kinds):
    """An operator for arrays of these kinds, and for Python numbers where they may be any."""

    def check(value):
        array = value.seen if isinstance(value, Few) else np.asarray(value)
        assert array.dtype.kind in kinds, f"{name} of {array.dtype}"
        return array if isinstance(value, Few) else value

    def of_both(left, right):
        with np.errstate(all="ignore"):
            found = getattr(operator, name)(check(left), check(right))
        return Few(found.astype(np.float32) if found.dtype == np.float64 else found)

    setattr(Few, f"__{name.rstrip('_')}__", of_both)
    setattr(Few, f"__r{name.rstrip('_')}__", lambda right, left: of_both(left, right))


for name in ("add", "sub", "mul", "eq", "ne", "lt", "le", "gt", "ge"):
    binary(name, "fi")
binary("truediv", "f")
binary("mod", "i")
binary("and_", "b")
binary("or_", "b")


def plain(value):
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return value.seen if isinstance(value, Few) else value


def through(function):
    """A function of NumPy for such arrays."""

    def call(*arguments, **options):
        with np.errstate(all="ignore"):
            found = function(*map(plain, arguments), **options)
        return tuple(map(Few, found)) if isinstance(found, tuple) else Few(found)

    return call


def borrowed(function):
    call = through(function)
    return lambda self, *arguments: call(*arguments)


MADE = {"copy", "cast", "constant", "arange", "multiply", "power_of_two", "slice_rows"}
COMPARED = {"inner", "score", "top_k", "sort_order", "take_along", "sum_by_column"}
FUNCTIONS = {
    "where",
    "sum",
    "amax",
    "any",
    "cumsum",
    "argmax",
    "abs",
    "sqrt",
    "exp",
    "log",
    "concatenate",
    "broadcast_to",
    "full_like",
    "zeros_like",
}
FUNCTIONS |= {"bitwise_xor", "bitwise_and", "bitwise_right_shift"}
Borrowed = type("Borrowed", (), {name: borrowed(getattr(NumpyPrimitives(), name)) for name in MADE | COMPARED})


class FewPrimitives(Borrowed, Primitives):
    """A table for them: NumPy's, and what their bits do."""

    name = "few"
    xp = SimpleNamespace(**{name: through(getattr(np, name)) for name in FUNCTIONS})

    def to_numpy(self, array):
        return np.array(array.seen)

    def peek(self, array, wait=False):
        return plain(array) if wait or not isinstance(array, Few) else None

    def asarray(self, array, like=None):
        return array if isinstance(array, Few) else Few(array)

    def put_rows(self, array, rows, content):
        array.seen[rows.seen] = content.seen
        return array


backends_of[Few] = ArrayBackend(FewPrimitives())


@pytest.mark.parametrize(
    "law", [law for law in LAWS.values() if law.needs is None and not law.costly], ids=lambda law: law.name
)
def test_every_law_holds_for_arrays_that_support_what_is_asked_alone(law):
    run(law, ArrayBackend(FewPrimitives()), 5)


def test_arrays_of_ones_own_framework_may_be_rows_targets_and_masks():
    config = raremem.MemoryConfig(slots=6, key_dim=4, neighbors=3, age_noise=0)
    backend, rows = ArrayBackend(FewPrimitives()), np.eye(3, 4, dtype=np.float32)
    for targets in (np.array([4, 5, 6], kind) for kind in ("int8", "int16", "int32", "int64", "uint8")):
        state, report = backend.update(
            config, backend.init(config), Few(rows), Few(targets), Few(np.array([True, False, True]))
        )
        assert backend.to_numpy(state)["values"].tolist() == [4, 6, -1, -1, -1, -1]
        assert report.written.seen.tolist() == [True, False, True]
    with pytest.raises(raremem.DTypeError, match="targets are uint16; expected one of"):
        backend.query(config, state, Few(rows), Few(np.array([4, 5, 6], "uint16")))
    with pytest.raises(raremem.DTypeError, match="mask entries are int32; expected one of bool"):
        backend.query(config, state, Few(rows), Few(np.arange(3)), Few(np.ones(3, np.int32)))
