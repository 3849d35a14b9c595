"""What a save does to the file that was there, to its folder, and what a death while it writes leaves behind."""

import contextlib
import errno
import fcntl
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import raremem
from raremem import files
from raremem.files import replace_file

BACKEND = raremem.get_backend("numpy")
CONFIG = raremem.MemoryConfig(slots=4, key_dim=2)
KILLS = 40
ACL = struct.pack("<I" + "HHI" * 5, 2, 1, 6, 2**32 - 1, 2, 4, 1234, 4, 0, 2**32 - 1, 16, 4, 2**32 - 1, 32, 0, 2**32 - 1)
"""user::rw-, user:1234:r--, group::---, mask::r--, other::---"""


@pytest.fixture(params=["unnamed", "named"])
def way(request, monkeypatch):
    """Both ways to write: to a file without a name, and as on a file system that has none."""
    if request.param == "named" and sys.platform == "linux":
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    return request.param


@pytest.fixture
def everyones_folder():
    """A folder that any user can write to: pytest's own are for one."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


def in_a_child(work, user=None):
    """The exit status of a process that does `work`; as another user, where this one may become any."""
    child = os.fork()
    if child == 0:
        status = 70
        with contextlib.suppress(Exception):
            if user is not None and os.geteuid() == 0:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            status = work() or 0
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def an_owner():
    """One that this process may give, and not its own if it can be helped."""
    if os.geteuid() == 0:
        return 12345, 54321
    return os.geteuid(), next((group for group in os.getgroups() if group != os.getegid()), os.getegid())


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o777, 0o000])
def test_mode_and_owner_stay(tmp_path, way, mode):
    path = tmp_path / "file"
    path.write_bytes(b"older")
    os.chown(path, *an_owner())
    path.chmod(mode)
    replace_file(path, b"newer")
    found = path.stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (mode, *an_owner())
    path.chmod(0o600)
    assert path.read_bytes() == b"newer"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_of_the_umask(tmp_path, way, mask):
    before = os.umask(mask)
    try:
        replace_file(tmp_path / "file", b"content")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o666 & ~mask


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_a_group_that_may_not_be_given_gets_no_more_than_everyone(everyones_folder, way):
    path = everyones_folder / "file"
    path.write_bytes(b"older")
    os.chown(path, 12345, 54321)
    path.chmod(0o664)
    assert in_a_child(lambda: replace_file(path, b"newer"), user=4321) == 0
    found = path.stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o644, 4321, 4321)


def set_attribute(path, name, value):
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        pytest.skip(f"no such attribute can be set here: {error}")


@pytest.mark.skipif(sys.platform != "linux", reason="Python reads extended attributes on Linux only")
def test_attributes_and_access_lists_stay(tmp_path, way):
    path = tmp_path / "file"
    path.write_bytes(b"older")
    path.chmod(0o600)
    attributes = {"user.origin": b"a run of March", "user.empty": b"", "system.posix_acl_access": ACL}
    for name, value in attributes.items():
        set_attribute(path, name, value)
    replace_file(path, b"newer")
    assert {name: os.getxattr(path, name) for name in attributes} == attributes
    assert path.stat().st_mode & 0o7777 == 0o640  # the group's bits are the mask of the list
    assert path.read_bytes() == b"newer"


@pytest.mark.skipif(sys.platform != "linux", reason="Python reads extended attributes on Linux only")
def test_the_folders_default_list_opens_no_file_that_was_closed(tmp_path, way):
    path = tmp_path / "file"
    path.write_bytes(b"older")
    path.chmod(0o640)
    set_attribute(tmp_path, "system.posix_acl_default", ACL)
    replace_file(path, b"newer")
    assert "system.posix_acl_access" not in os.listxattr(path)
    assert path.stat().st_mode & 0o7777 == 0o640


def test_links_stay_links(tmp_path, way):
    (tmp_path / "store").mkdir()
    target = tmp_path / "store" / "memory"
    target.write_bytes(b"older")
    target.chmod(0o600)
    (tmp_path / "first").symlink_to("store/memory")
    (tmp_path / "second").symlink_to(tmp_path / "first")
    replace_file(tmp_path / "second", b"newer")
    assert os.readlink(tmp_path / "first") == "store/memory"
    assert (tmp_path / "second").is_symlink()
    assert target.read_bytes() == b"newer"
    assert target.stat().st_mode & 0o7777 == 0o600
    assert os.listdir(tmp_path / "store") == ["memory"]


def test_a_link_to_nothing_yet_and_one_to_itself(tmp_path, way):
    (tmp_path / "ahead").symlink_to("to-come")
    replace_file(tmp_path / "ahead", b"content")
    assert (tmp_path / "ahead").is_symlink()
    assert (tmp_path / "to-come").read_bytes() == b"content"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        replace_file(tmp_path / "loop", b"content")
    (tmp_path / "astray").symlink_to("nowhere/memory")
    with pytest.raises(FileNotFoundError, match="astray"):
        replace_file(tmp_path / "astray", b"content")


def test_other_hard_links_keep_the_older_content(tmp_path, way):
    (tmp_path / "one").write_bytes(b"older")
    os.link(tmp_path / "one", tmp_path / "other")
    replace_file(tmp_path / "one", b"newer")
    assert [(tmp_path / name).read_bytes() for name in ("one", "other")] == [b"newer", b"older"]


def test_a_pipe_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    content, got = os.urandom(200_000), []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    replace_file(tmp_path / "pipe", content)
    reader.join()
    assert got == [content]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("through", ["pipe", "file"])
def test_a_memory_to_standard_output(tmp_path, through):
    raremem.save(tmp_path / "memory", CONFIG, BACKEND.init(CONFIG))
    program = "import raremem; c = raremem.MemoryConfig(slots=4, key_dim=2); "
    program += "raremem.save('/dev/stdout', c, raremem.get_backend('numpy').init(c))"
    with open(tmp_path / "out", "wb") as out:
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE if through == "pipe" else out, check=True)
    got = done.stdout if through == "pipe" else (tmp_path / "out").read_bytes()
    assert got == (tmp_path / "memory").read_bytes()


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        replace_file(tmp_path / "folder", b"content")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match=r"no file; expected the name of a file.*socket"):
            replace_file(tmp_path / "socket", b"content")
        assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)


@pytest.mark.parametrize("name", ["x" * 255, "\N{SNOWMAN}" * 85, "é" * 127 + "x", "-rf *\n", ".hidden", "\udcff\udcfe"])
def test_any_name_that_the_file_system_takes(tmp_path, way, name):
    assert len(os.fsencode(name)) <= 255
    for content in (b"older", b"newer"):
        replace_file(tmp_path / name, content)
    assert (tmp_path / name).read_bytes() == b"newer"
    assert os.listdir(tmp_path) == [name]


def test_a_name_that_is_too_long_is_the_systems_error(tmp_path, way):
    with pytest.raises(OSError, match="too long"):
        replace_file(tmp_path / ("x" * 256), b"content")
    assert os.listdir(tmp_path) == []


def test_the_file_is_on_disk_before_its_name_and_then_the_folder(tmp_path, way, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda it: (events.append(stat.S_IFMT(os.fstat(it).st_mode)), fsync(it))[1])
    monkeypatch.setattr(os, "replace", lambda *names: (events.append("replace"), replace(*names))[1])
    replace_file(tmp_path / "file", b"content")
    assert events == [stat.S_IFREG, "replace", stat.S_IFDIR]


def test_a_folder_that_may_not_be_written_to_leaves_the_older_file(everyones_folder, way):
    path = everyones_folder / "file"
    path.write_bytes(b"older")
    path.chmod(0o666)
    everyones_folder.chmod(0o555)

    def work():
        try:
            replace_file(path, b"newer")
        except PermissionError as error:
            return 1 if str(path) in str(error) else 2

    assert in_a_child(work, user=4321) == 1
    everyones_folder.chmod(0o777)
    assert path.read_bytes() == b"older"
    assert os.listdir(everyones_folder) == ["file"]


def test_a_folder_that_may_be_written_to_and_not_read(everyones_folder, way):
    everyones_folder.chmod(0o333)
    assert in_a_child(lambda: replace_file(everyones_folder / "file", b"content"), user=4321) == 0
    everyones_folder.chmod(0o777)
    assert (everyones_folder / "file").read_bytes() == b"content"


@pytest.mark.parametrize("call", ["fsync", "link", "replace"])
def test_a_death_at_each_step_leaves_nothing_after_the_next_save(tmp_path, way, call):
    """The older file is whole at once; what may lie beside it goes with the next save into the folder, to whichever name."""
    path = tmp_path / "file"
    replace_file(path, b"older")

    def work():
        setattr(os, call, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        replace_file(path, b"newer")

    died = in_a_child(work) == -signal.SIGKILL
    assert died != (way == "named" and call == "link")
    assert path.read_bytes() == (b"older" if died else b"newer")
    left = len(os.listdir(tmp_path)) - 1
    assert left == (died and (way == "named" or call == "replace"))
    replace_file(tmp_path / "another", b"content")
    assert sorted(os.listdir(tmp_path)) == ["another", "file"]


def test_a_system_that_gives_no_name_to_an_unnamed_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    replace_file(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_living_writer_writes_is_left_alone(tmp_path, way):
    """A child waits just before it takes the name; meanwhile others save into its folder, and to its path."""
    path = tmp_path / "file"
    there, go_on = os.pipe(), os.pipe()

    def work():
        replace = os.replace
        os.replace = lambda *names: (os.write(there[1], b"."), os.read(go_on[0], 1), replace(*names))
        replace_file(path, b"the child's")

    child = threading.Thread(target=lambda: statuses.append(in_a_child(work)))
    statuses = []
    child.start()
    os.read(there[0], 1)
    replace_file(path, b"another's")
    replace_file(tmp_path / "other", b"another's")
    assert path.read_bytes() == b"another's"
    assert len(os.listdir(tmp_path)) == 3
    os.write(go_on[1], b".")
    child.join()
    assert statuses == [0]
    assert path.read_bytes() == b"the child's"
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


def test_a_file_that_is_removed_before_it_is_locked_is_made_anew(tmp_path, monkeypatch):
    """Between the two, it looks like one that a dead writer left."""
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY, raising=False)
    flock, removals = fcntl.flock, []

    def late(descriptor, how):
        if how == fcntl.LOCK_EX and not removals:
            removals.append(os.listdir(tmp_path))
            files._remove_abandoned(tmp_path)
            assert os.listdir(tmp_path) == []
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    replace_file(tmp_path / "file", b"content")
    assert len(removals[0]) == 1
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"content"


def test_only_its_own_leftovers_are_removed(tmp_path):
    name = f".raremem-{'0' * 16}"
    (tmp_path / "pointed-at").write_bytes(b"mine")
    (tmp_path / name).symlink_to("pointed-at")
    for other in (f"{name}.txt", ".raremem-notes", f"my{name}"):
        (tmp_path / other).write_bytes(b"mine")
    (tmp_path / f".raremem-{'1' * 16}").mkdir()
    (tmp_path / f".raremem-{'2' * 16}").write_bytes(b"left by a dead writer")
    before = set(os.listdir(tmp_path))
    replace_file(tmp_path / "file", b"content")
    assert before - set(os.listdir(tmp_path)) == {f".raremem-{'2' * 16}"}


def kills(folder, count, generator):
    """Kill so many writers, each after a time of its own.

    Returns:
        How many were killed; how many files lay beside the memory after each kill, summed; and how many after the next save.
    """
    path = folder / "memory"
    config = raremem.MemoryConfig(200, 64)
    rows = generator.normal(size=(200, 64)).astype(np.float32)
    states = [BACKEND.update(config, BACKEND.init(config), rows, np.full(200, value))[0] for value in range(2)]
    raremem.save(path, config, states[0])
    killed = left = 0
    for _ in range(count):
        ready = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(ready[1], b".")
            for turn in range(10**6):
                raremem.save(path, config, states[turn % 2])
            os._exit(0)
        os.read(ready[0], 1)
        time.sleep(generator.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        os.close(ready[0]), os.close(ready[1])
        values = BACKEND.to_numpy(raremem.load(path)[1])["values"]
        assert len(set(values.tolist())) == 1
        left += len(os.listdir(folder)) - 1
    raremem.save(path, config, states[0])
    return killed, left, len(os.listdir(folder)) - 1


def test_kills_at_any_moment_leave_no_files(tmp_path, way):
    killed, _, left_for_good = kills(tmp_path, KILLS, np.random.default_rng(1))
    assert killed == KILLS
    assert left_for_good == 0


@pytest.mark.skipif(sys.platform != "linux", reason="extended attributes are Linux's here")
def test_an_attribute_that_is_refused_is_the_systems_error_of_that_file(tmp_path, monkeypatch):
    """The system names the descriptor of a file without a name, a number."""
    path = tmp_path / "memory"
    path.write_bytes(b"older")
    monkeypatch.setattr(os, "listxattr", lambda path: ["user.note"] if not isinstance(path, int) else [])
    monkeypatch.setattr(os, "getxattr", lambda *_: b"")

    def refuse(descriptor, *_):
        raise OSError(errno.ENOSPC, "No space left on device", descriptor)

    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(OSError, match="No space left") as raised:
        replace_file(path, b"newer")
    assert raised.value.filename == str(path)
    assert path.read_bytes() == b"older"
