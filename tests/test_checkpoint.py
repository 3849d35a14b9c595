"""A memory in a file: what is refused, and files of other times, sizes and backends."""

import dataclasses
import itertools
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import raremem
from raremem.checkpoint import ARRAYS, _checksum

CONFIG = raremem.MemoryConfig(slots=4, key_dim=2)
BACKEND = raremem.get_backend("numpy")


def a_memory(slots=4, evict="oldest"):
    """With one slot empty, and three that were used at other times."""
    config = raremem.MemoryConfig(slots, 2, evict=evict)
    state = BACKEND.init(config)
    for row, target in (([1, 0], 7), ([0, 1], 8), ([-1, 0], 9), ([1, 0], 7), ([0, 1], 8)):
        state, _ = BACKEND.update(config, state, np.array([row], np.float32), np.array([target]))
    return config, state


def test_files_that_are_no_checkpoint(tmp_path):
    path = tmp_path / "memory.safetensors"
    raremem.save(path, CONFIG, BACKEND.init(CONFIG))
    assert raremem.load(path)[0] == CONFIG
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole[: len(whole) // 2], b"\xff" * 100, whole.replace(b'schema\\": 4', b'schema\\": 9')):
        assert content != whole
        path.write_bytes(content)
        with pytest.raises(raremem.CheckpointError, match=r"not a whole|has schema"):
            raremem.load(path)


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_a_file_of_an_old_schema_is_read(schema):
    config, state = raremem.load(Path(__file__).with_name("files") / f"memory-schema-{schema}.safetensors")
    portable = BACKEND.to_numpy(state)
    assert config.slots == 4
    assert portable["values"].tolist() == [7, 8, -1, -1]
    assert portable["hits"].tolist() == ([0, 0, 0, 0] if schema == 1 else [1, 0, 0, 0])


def test_any_changed_bit_is_found(tmp_path):
    """Every one of the file: also of the schema, which tells whether there is a checksum."""
    path = tmp_path / "memory.safetensors"
    raremem.save(path, *a_memory())
    whole = path.read_bytes()
    with open(path, "r+b") as file:
        for place, bit in itertools.product(range(len(whole)), range(8)):
            os.pwrite(file.fileno(), bytes([whole[place] ^ 1 << bit]), place)
            with pytest.raises(raremem.CheckpointError, match=r"not a whole|has schema|checksum"):
                raremem.load(path)
            os.pwrite(file.fileno(), whole[place : place + 1], place)
    assert path.read_bytes() == whole


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 2**64 - 1))
def test_any_bytes_are_refused(tmp_path_factory, content, length):
    path = tmp_path_factory.mktemp("bytes") / "memory.safetensors"
    for hostile in (content, length.to_bytes(8, "little") + content):
        path.write_bytes(hostile)
        with pytest.raises(raremem.CheckpointError):
            raremem.load(path)


def craft(path, change_header=None, change_arrays=None, change_config=None, extra=None):
    """Write a memory's file with something changed and a right checksum, as one who means harm would."""
    config, state = a_memory()
    portable = BACKEND.to_numpy(state)
    arrays = (
        {name: portable[name] for name in ARRAYS} | {"step": np.asarray(portable["step"], np.int64)} | (change_arrays or {})
    )
    arrays = {name: array for name, array in arrays.items() if array is not None}
    fields = dataclasses.asdict(config) | (change_config or {})
    header = {"schema": 4, "config": fields, "sha256": _checksum(fields, arrays)} | (change_header or {})
    header = {name: entry for name, entry in header.items() if entry is not None}
    path.write_bytes(safetensors.numpy.save(arrays, {"raremem": json.dumps(header, sort_keys=True)} | (extra or {})))


def check_refused(path, message):
    """With one line, which names the file."""
    with pytest.raises(raremem.CheckpointError, match=message) as caught:
        raremem.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_what_is_crafted_without_a_change_is_what_is_saved(tmp_path):
    craft(tmp_path / "crafted")
    raremem.save(tmp_path / "saved", *a_memory())
    assert (tmp_path / "crafted").read_bytes() == (tmp_path / "saved").read_bytes()


def arrays(**changes):
    return {"change_arrays": changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (arrays(keys=np.full((4, 2), np.nan, np.float32)), "expected a finite unit vector"),
        (arrays(keys=np.ones((5, 2), np.float32)), r"keys are F32 \[5, 2\], where F32 \[4, 2\]"),
        (arrays(keys=np.ones((8,), np.float32)), r"keys are F32 \[8\]"),
        (arrays(keys=np.ones((4, 2), np.int32)), "keys are I32"),
        (arrays(keys=np.ones((4, 2), np.float64)), "keys are F64"),
        (arrays(values=np.full(4, -5, np.int32)), "values have -5 in slot 0"),
        (arrays(values=np.zeros(4, np.int64)), "values are I64"),
        (arrays(ages=np.full(4, -1, np.int32)), "ages have -1 in slot 0"),
        (arrays(ages=np.zeros(4, np.float32)), "ages are F32"),
        (arrays(hits=np.full(4, 200, np.int32)), "hits have 200 in slot 0"),
        (arrays(filled=np.full(4, 2, np.uint8).view(np.bool_)), "filled holds bytes other than 0 and 1"),
        (arrays(filled=np.ones(4, np.uint8)), "filled are U8"),
        (arrays(step=np.asarray(-1)), "step is"),
        (arrays(step=np.asarray(2**33)), "step is"),
        (arrays(step=np.asarray(2.7)), "step are F64"),
        (arrays(step=np.asarray([3])), r"step are I64 \[1\]"),
        (arrays(step=None), "it holds ages, filled, hits, keys, values, where"),
        (arrays(hits=None), "it holds ages, filled, keys, step, values, where"),
        (arrays(more=np.zeros(3)), "it holds ages, filled, hits, keys, more, step, values"),
        ({"change_header": {"schema": True}}, "no whole number as schema"),
        ({"change_header": {"schema": 1.0}}, "no whole number as schema"),
        ({"change_header": {"schema": 4.0}}, "no whole number as schema"),
        ({"change_header": {"schema": "4"}}, "no whole number as schema"),
        ({"change_header": {"schema": None}}, "no whole number as schema"),
        ({"change_header": {"schema": 0}}, "has schema 0; expected 1 to 4"),
        ({"change_header": {"schema": 10**300}}, "has schema 1000+\\.\\.\\. \\(301 characters\\); expected 1 to 4"),
        ({"change_header": {"schema": 2}}, "where .*'config', 'schema'.* is expected"),
        ({"change_header": {"sha256": None}}, "where .*'sha256'.* is expected"),
        ({"change_header": {"sha256": 7}}, "checksum"),
        ({"change_header": {"note": "more"}}, "'note'"),
        ({"change_header": {"config": [1, 2]}}, "its config is a list"),
        ({"change_config": {"slots": 2**31 - 1}}, r"where I32 \[2147483647\] is expected"),
        ({"change_config": {"key_dim": 2**31 - 1}}, r"where F32 \[4, 2147483647\] is expected"),
        ({"change_config": {"slots": 4.0}}, "slots=4.0: expected a whole number"),
        ({"change_config": {"slots": True}}, "slots=True"),
        ({"change_config": {"seed": 10**400}}, "seed=1000"),
        ({"change_config": {"margin": 10**400}}, "margin=1000"),
        ({"change_config": {"margin": float("nan")}}, "margin=nan"),
        ({"change_config": {"margin": {"a": [1]}}}, "margin={"),
        ({"change_config": {"evict": ["oldest"]}}, "evict="),
        ({"change_config": {"loss": "x" * 10**6}}, "loss='xxx"),
        ({"change_config": {"wings": 2}}, "wings"),
        ({"change_config": {"a line\nand another": 2}}, "a line and another"),
        ({"extra": {"more": "metadata"}}, "its metadata is"),
    ],
)  # fmt: skip
def test_a_file_that_states_the_impossible_is_refused(tmp_path, change, message):
    craft(tmp_path / "memory.safetensors", **change)
    tracemalloc.start()
    check_refused(tmp_path / "memory.safetensors", message)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("[" * 100_000, "recursion"),
        ('{"schema": 3, "schema": 3}', "stands twice"),
        ('{"schema": ' + "9" * 5000 + "}", "4300"),
        ("null", "no whole number as schema"),
        ("", "expecting value"),
    ],
)
def test_a_header_that_is_none_is_refused(tmp_path, header, message):
    path = tmp_path / "memory.safetensors"
    path.write_bytes(safetensors.numpy.save({"keys": np.zeros(1)}, {"raremem": header}))
    check_refused(path, f"(?i){message}")


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    path = tmp_path / "memory.safetensors"
    config, state = a_memory()
    raremem.save(path, config, state)
    before = path.read_bytes()
    for entry, change, message in (
        ("keys", lambda keys: keys * np.float32(3), "the key of slot 0 has norm 3; expected a finite unit vector"),
        ("keys", lambda keys: np.where(np.arange(4)[:, None] == 1, np.float32(np.nan), keys), "the key of slot 1"),
        ("values", lambda values: np.where(values == 8, np.int32(-7), values), "values have -7 in slot"),
        ("hits", lambda hits: hits + np.int32(127), "hits have 128 in slot"),
    ):
        with pytest.raises(raremem.StateError, match=message):
            raremem.save(path, config, state._replace(**{entry: change(getattr(state, entry))}))
    with pytest.raises(raremem.StateError, match="shape"):
        raremem.save(path, dataclasses.replace(config, slots=5), state)
    with pytest.raises(raremem.ConfigError, match="the config is a dict"):
        raremem.save(path, dataclasses.asdict(config), state)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_of_no_backend_what_could_not_be_loaded_is_saved(tmp_path, name):
    backend = raremem.get_backend(name)
    config, state = a_memory()
    state = backend.from_numpy(config, BACKEND.to_numpy(state))
    with pytest.raises(raremem.StateError, match="the key of slot 0 has norm 3; expected a finite unit vector"):
        raremem.save(tmp_path / "memory", config, state._replace(keys=state.keys * 3), backend)
    assert os.listdir(tmp_path) == []


def test_what_is_missing_or_closed_is_the_systems_error(tmp_path):
    """Anything else that is there and no memory is a CheckpointError: above, and in test_mutations."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        raremem.load(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError):
        raremem.load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    check_refused(tmp_path / "pipe", "a device or a pipe, where a file is expected")


def test_what_cannot_be_loaded_is_not_saved(tmp_path):
    config, state = a_memory()
    raremem.save(tmp_path / "memory.safetensors", config, state)
    before = (tmp_path / "memory.safetensors").read_bytes()
    decayed = BACKEND.copy(state)
    decayed.keys[1] *= 0.9
    with pytest.raises(raremem.StateError, match=r"slot 1 .* norm 0.9; expected a finite unit vector.*weight decay"):
        raremem.save(tmp_path / "memory.safetensors", config, decayed)
    assert (tmp_path / "memory.safetensors").read_bytes() == before


def test_nothing_in_a_file_is_run(tmp_path):
    import pickle

    for content in (pickle.dumps(print), b"PK\x03\x04" + pickle.dumps(print)):
        (tmp_path / "memory.safetensors").write_bytes(content)
        with pytest.raises(raremem.CheckpointError):
            raremem.load(tmp_path / "memory.safetensors")


@pytest.mark.parametrize("name", ["reference", "numpy", "torch", "jax"])
def test_every_backend_writes_the_same_bytes_and_goes_on_from_any(tmp_path, name):
    config, state = a_memory()
    raremem.save(tmp_path / "numpy", config, state)
    backend = raremem.get_backend(name)
    _, loaded = raremem.load(tmp_path / "numpy", backend)
    raremem.save(tmp_path / "other", config, loaded, backend)
    assert (tmp_path / "other").read_bytes() == (tmp_path / "numpy").read_bytes()
    rows, targets = np.array([[0, -1], [1, 0]], np.float32), np.array([5, 7])
    after = [some.to_numpy(some.update(config, it, rows, targets)[0]) for some, it in ((backend, loaded), (BACKEND, state))]
    for entry in ("keys", "values", "ages", "filled", "hits", "step"):
        np.testing.assert_array_equal(after[0][entry], after[1][entry])


def test_into_more_slots(tmp_path):
    raremem.save(tmp_path / "memory", *a_memory())
    config, state = raremem.load(tmp_path / "memory", slots=6)
    assert config.slots == 6
    assert BACKEND.to_numpy(state)["values"].tolist() == [7, 8, 9, -1, -1, -1]
    assert raremem.load(tmp_path / "memory", slots=4)[0] == a_memory()[0]


@pytest.mark.parametrize(("evict", "kept"), [("oldest", [7, 8]), ("least_hit", [7, 8])])
def test_into_fewer_slots_what_would_be_evicted_first_goes(tmp_path, evict, kept):
    raremem.save(tmp_path / "memory", *a_memory(evict=evict))
    config, state = raremem.load(tmp_path / "memory", slots=2)
    assert config.slots == 2
    assert BACKEND.to_numpy(state)["values"].tolist() == kept
    assert BACKEND.to_numpy(raremem.load(tmp_path / "memory", slots=1)[1])["values"].tolist() == [8]
    with pytest.raises(raremem.ConfigError, match="slots=0"):
        raremem.load(tmp_path / "memory", slots=0)


def test_orbax_saves_a_state(tmp_path):
    import jax
    from orbax.checkpoint import StandardCheckpointer

    backend = raremem.get_backend("jax")
    config, memory = a_memory()
    state = backend.from_numpy(config, BACKEND.to_numpy(memory))
    with StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        again = checkpointer.restore(tmp_path / "state", jax.eval_shape(lambda: backend.init(config)))
    for entry, array in backend.to_numpy(again).items():
        np.testing.assert_array_equal(array, backend.to_numpy(state)[entry])


def test_a_state_is_a_pytree_that_others_can_save(tmp_path):
    """Through the ecosystem's own ways: here a plain npz of the leaves."""
    import jax

    backend = raremem.get_backend("jax")
    config, _ = a_memory()
    state = backend.from_numpy(config, BACKEND.to_numpy(a_memory()[1]))
    leaves, tree = jax.tree.flatten(state)
    np.savez(tmp_path / "state.npz", *leaves)
    with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
        again = jax.tree.unflatten(tree, [jax.numpy.asarray(file[name]) for name in file.files])
    for entry, array in backend.to_numpy(again).items():
        np.testing.assert_array_equal(array, backend.to_numpy(state)[entry])
