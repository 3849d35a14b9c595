"""A memory in a file: what is refused, what survives a death while it is written, and files of other times and sizes."""

import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raremem

CONFIG = raremem.MemoryConfig(slots=4, key_dim=2)
BACKEND = raremem.get_backend("numpy")
KILLS = 200
WRITER = """
import sys, numpy as np, raremem
path, slots = sys.argv[1], int(sys.argv[2])
config = raremem.MemoryConfig(slots, 64)
backend = raremem.get_backend("numpy")
generator = np.random.default_rng(0)
print("ready", flush=True)
for value in range(10**6):
    rows = generator.normal(size=(slots, 64)).astype(np.float32)
    state, _ = backend.update(config, backend.init(config), rows, np.full(slots, value))
    raremem.save(path, config, state)
    print(value, flush=True)
"""


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
    for content in (b"", whole[:-1], whole[: len(whole) // 2], b"\xff" * 100, whole.replace(b'schema\\": 3', b'schema\\": 9')):
        assert content != whole
        path.write_bytes(content)
        with pytest.raises(raremem.CheckpointError, match=r"not a whole|has schema"):
            raremem.load(path)
    with pytest.raises(FileNotFoundError):
        raremem.load(tmp_path / "nowhere")


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "memory.safetensors"
    raremem.save(path, CONFIG, BACKEND.init(CONFIG))
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        raremem.save(path, CONFIG, BACKEND.init(CONFIG))
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_file_can_be_read_by_those_who_can_read_any_other(tmp_path):
    raremem.save(tmp_path / "memory.safetensors", CONFIG, BACKEND.init(CONFIG))
    (tmp_path / "plain").touch()
    assert (tmp_path / "memory.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("schema", [1, 2])
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
    for place, bit in itertools.product(range(len(whole)), range(8)):
        content = bytearray(whole)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        with pytest.raises(raremem.CheckpointError, match=r"not a whole|has schema|checksum"):
            raremem.load(path)


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 2**64 - 1))
def test_any_bytes_are_refused(tmp_path_factory, content, length):
    path = tmp_path_factory.mktemp("bytes") / "memory.safetensors"
    for hostile in (content, length.to_bytes(8, "little") + content):
        path.write_bytes(hostile)
        with pytest.raises(raremem.CheckpointError):
            raremem.load(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("keys", np.full((4, 2), np.nan, np.float32), "not a finite unit vector"),
        ("keys", np.ones((5, 2), np.float32), "shape"),
        ("keys", np.ones((4, 2), np.int32), "kind"),
        ("values", np.full(4, -5, np.int32), "values reach from"),
        ("ages", np.full(4, -1, np.int32), "ages reach from"),
        ("hits", np.full(4, 200, np.int32), "hits reach"),
        ("step", np.asarray(-1), "step is"),
        ("step", np.asarray(2**33), "step is"),
    ],
)
def test_a_file_that_states_the_impossible_is_refused(tmp_path, monkeypatch, name, content, message):
    """Written with a right checksum, as one who means harm would."""
    config, state = a_memory()
    portable = {**BACKEND.to_numpy(state), name: content}

    class Liar(type(BACKEND)):
        def to_numpy(self, state):
            return portable

    with monkeypatch.context() as patch:
        patch.setattr("raremem.checkpoint.check_portable", lambda config, portable: portable)
        raremem.save(tmp_path / "memory.safetensors", config, state, Liar(BACKEND.primitives))
    with pytest.raises(raremem.CheckpointError, match=message):
        raremem.load(tmp_path / "memory.safetensors")


def test_what_cannot_be_loaded_is_not_saved(tmp_path):
    config, state = a_memory()
    raremem.save(tmp_path / "memory.safetensors", config, state)
    before = (tmp_path / "memory.safetensors").read_bytes()
    decayed = BACKEND.copy(state)
    decayed.keys[1] *= 0.9
    with pytest.raises(raremem.StateError, match=r"slot 1 .* norm 0.9; expected norm 1.*weight decay"):
        raremem.save(tmp_path / "memory.safetensors", config, decayed)
    assert (tmp_path / "memory.safetensors").read_bytes() == before


def test_nothing_in_a_file_is_run(tmp_path):
    import pickle

    for content in (pickle.dumps(print), b"PK\x03\x04" + pickle.dumps(print)):
        (tmp_path / "memory.safetensors").write_bytes(content)
        with pytest.raises(raremem.CheckpointError):
            raremem.load(tmp_path / "memory.safetensors")


def writer(path, slots=200, **options):
    command = [sys.executable, "-c", WRITER, str(path), str(slots)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def check_whole(path, at_least):
    """The file is one that was saved whole, of this number or the next."""
    _, state = raremem.load(path)
    values = BACKEND.to_numpy(state)["values"]
    assert len(set(values.tolist())) == 1
    assert values[0] >= at_least


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    """Two hundred writers, each killed after a time of its own; what is left is the last file that was saved, or a newer."""
    path = tmp_path / "memory.safetensors"
    config = raremem.MemoryConfig(200, 64)
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(200, 64)).astype(np.float32)
    states = [BACKEND.update(config, BACKEND.init(config), rows, np.full(200, value))[0] for value in range(20)]
    raremem.save(path, config, states[0])
    newest = 0
    for kill in range(KILLS):
        child = os.fork()
        if child == 0:
            for value in range(newest, 20):
                raremem.save(path, config, states[value])
            os._exit(0)
        time.sleep(generator.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        check_whole(path, newest)
        newest = int(BACKEND.to_numpy(raremem.load(path)[1])["values"][0]) if kill % 10 else 0
        if newest == 0:
            raremem.save(path, config, states[0])


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """No file may grow beyond 40,000 bytes; one of 1,000 slots has 270,000."""
    path = tmp_path / "memory.safetensors"
    raremem.save(path, *a_memory())
    before = path.read_bytes()

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    process = writer(path, slots=1000, preexec_fn=limit)
    _, error = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "OSError" in error
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_a_full_file_system_leaves_the_old_file(tmp_path):
    """The same on a file system of 128 kB, full but for what a small memory takes."""
    program = f"""
import raremem
backend, small, large = raremem.get_backend("numpy"), raremem.MemoryConfig(4, 2), raremem.MemoryConfig(1000, 64)
raremem.save({str(tmp_path)!r} + "/memory", small, backend.init(small))
try:
    raremem.save({str(tmp_path)!r} + "/memory", large, backend.init(large))
except OSError as error:
    print(error.strerror)
print(raremem.load({str(tmp_path)!r} + "/memory")[0] == small, *__import__("os").listdir({str(tmp_path)!r}))
"""
    mount = f"mount -t tmpfs -o size=128k none {tmp_path} || exit 77; "
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount + 'exec "$0" -c "$1"', sys.executable, program]
    try:
        done = subprocess.run(inside, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("there is no unshare (util-linux) here")
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"a file system may not be mounted here: {done.stderr.strip()}")
    assert done.stdout.splitlines() == ["No space left on device", "True memory"], done.stderr


def test_a_folder_that_may_not_be_written_to_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "memory.safetensors"
    raremem.save(path, *a_memory())
    before = path.read_bytes()
    real = open

    def refuse(name, mode="r", *rest, **options):
        if "x" in mode:
            raise PermissionError(13, "Permission denied", str(name))
        return real(name, mode, *rest, **options)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(PermissionError):
        raremem.save(path, *a_memory())
    assert path.read_bytes() == before


def test_two_processes_that_save_to_one_path_leave_a_whole_file(tmp_path):
    path = tmp_path / "memory.safetensors"
    writers = [writer(path) for _ in range(2)]
    for process in writers:
        assert process.stdout.readline() == "ready\n"
        process.stdout.readline()
    for _ in range(100):
        check_whole(path, 0)
    for process in writers:
        process.kill()
        process.communicate()


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
