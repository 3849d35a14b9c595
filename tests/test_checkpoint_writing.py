"""Saving a memory: whatever ends it, a whole file is left, the old one or the new."""

import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import raremem

CONFIG = raremem.MemoryConfig(slots=4, key_dim=2)
BACKEND = raremem.get_backend("numpy")
KILLS = 100
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


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "memory.safetensors"
    raremem.save(path, CONFIG, BACKEND.init(CONFIG))
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        raremem.save(path, CONFIG, BACKEND.init(CONFIG))
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


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
    """A hundred writers, each killed after a time of its own; what is left is the last file that was saved, or a newer."""
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
    raremem.save(path, config, states[0])
    assert os.listdir(tmp_path) == [path.name]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """No file may grow beyond 40,000 bytes; one of 1,000 slots has 270,000."""
    path = tmp_path / "memory.safetensors"
    raremem.save(path, CONFIG, BACKEND.init(CONFIG))
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
    raremem.save(path, CONFIG, BACKEND.init(CONFIG))
    assert os.listdir(tmp_path) == [path.name]
