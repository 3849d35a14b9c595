"""Configs and states that cannot be are refused, with what arrived and what was expected."""

import dataclasses
import enum
import json
import pickle
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import raremem

CONFIG = raremem.MemoryConfig(slots=4, key_dim=2)
BACKEND = raremem.get_backend("numpy")


class Color(enum.IntEnum):
    BLUE = 3


class Choice(str, enum.Enum):
    OLDEST = "oldest"


NUMBERS = ("slots", "key_dim", "neighbors", "age_noise", "seed", "margin", "softmax_temperature")


@pytest.mark.parametrize(
    "field",
    [
        {"slots": 0}, {"slots": 2**31}, {"slots": 2.5}, {"slots": 4.0}, {"slots": np.float32(4)}, {"slots": Fraction(4)},
        {"key_dim": -1}, {"neighbors": 0}, {"margin": -0.1}, {"margin": -5e-324}, {"margin": 1e39}, {"seed": 2**32},
        {"softmax_temperature": np.nextafter(np.float64(np.finfo(np.float32).max), np.inf)}, {"age_noise": -1},
        {"age_noise": 2**20 + 1}, {"margin": Fraction(10**400)}, {"loss": "hinge"}, {"evict": "newest"}, {"write": "append"},
    ],
)  # fmt: skip
def test_config_out_of_range(field):
    with pytest.raises(raremem.ConfigError, match=r"expected (a|one of)"):
        raremem.MemoryConfig(**field)


@pytest.mark.parametrize("field", [*NUMBERS, "loss", "evict", "write"])
@pytest.mark.parametrize(
    "value",
    [
        True, np.True_, None, "1", "", b"1", "a line\n" * 100, 1j, np.complex64(1), [], [1], {}, float, object(), float("nan"),
        float("inf"), np.float64("-inf"), np.float32("nan"), np.float16("inf"), np.longdouble("1e4000"), 10**400, -(10**5000),
        Fraction(10**5000, 3), Fraction(-1, 3), Decimal("0.1"), Decimal("NaN"), Decimal("sNaN"), np.array(1), np.array([1, 2]),
        np.array(["margin"]), np.timedelta64(1), np.timedelta64("NaT"), np.datetime64("2026"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_value_of_any_field(field, value):
    with pytest.raises(raremem.ConfigError, match=f"^{field}=") as caught:
        raremem.MemoryConfig(**{field: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("number", [3, np.int8(3), np.uint64(3), Color.BLUE, np.float16(3), np.longdouble(3), Fraction(6, 2)])
def test_numbers_of_any_kind_become_pythons_own(number):
    whole = isinstance(number, (int, np.integer))
    for field in NUMBERS if whole else NUMBERS[-2:]:
        taken = getattr(raremem.MemoryConfig(**{field: number}), field)
        assert taken == 3
        assert type(taken) is (int if field in NUMBERS[:-2] else float)
    assert raremem.MemoryConfig(softmax_temperature=np.finfo(np.float32).max).softmax_temperature == np.finfo(np.float32).max


def test_equal_configs_are_written_alike():
    one = raremem.MemoryConfig(margin=-0.0, loss=np.str_("margin"), evict=Choice.OLDEST)
    assert repr(one) == repr(raremem.MemoryConfig(margin=0))
    assert json.dumps(dataclasses.asdict(one)) == json.dumps(dataclasses.asdict(raremem.MemoryConfig(margin=0)))


def test_config_is_frozen_hashable_and_takes_numpy_numbers():
    assert raremem.MemoryConfig(slots=np.int64(4), key_dim=2, margin=np.float32(0.5)).slots == 4
    assert hash(CONFIG) == hash(pickle.loads(pickle.dumps(CONFIG)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONFIG.slots = 5


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"keys": np.zeros((3, 2), np.float32)}, "keys has shape"),
        ({"keys": np.full((4, 2), np.nan, np.float32)}, "expected a finite unit vector"),
        ({"values": np.array([0, -3, 0, 0], np.int32)}, "values have"),
        ({"ages": np.array([0, -3, 0, 0], np.int32)}, "ages have"),
        ({"hits": np.array([0, 128, 0, 0], np.int32)}, "hits have"),
        ({"filled": np.ones(4, np.int32)}, "filled has shape"),
        ({"step": -1}, "step is -1"),
        ({"step": 1.5}, "step is 1.5"),
    ],
)
@pytest.mark.parametrize("name", ["reference", "numpy"])
def test_states_that_cannot_be(entry, message, name):
    good = {
        "keys": np.tile(np.float32([1, 0]), (4, 1)),
        "values": np.arange(4, dtype=np.int32),
        "ages": np.zeros(4, np.int32),
        "filled": np.ones(4, np.bool_),
        "step": 7,
    }
    backend = raremem.get_backend(name)
    backend.from_numpy(CONFIG, good)
    with pytest.raises(raremem.StateError, match=message):
        backend.from_numpy(CONFIG, {**good, **entry})
    with pytest.raises(raremem.StateError, match="has no"):
        backend.from_numpy(CONFIG, {"keys": good["keys"]})


def test_a_backend_of_ones_own_by_name():
    assert raremem.get_backend("raremem.adapters.numpy:backend") is BACKEND
